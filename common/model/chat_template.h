/* chat_template.h - a conversation as a prompt, in the form that the model was trained on.
 *
 * Templates in model files are Jinja programs.  They are not run: the form is recognised by its
 * marks, its details (a space here, the system message there) are read off the template's text, and
 * the forms that are known are written in chat_render.c:
 *     ChatML    <|im_start|>role\ncontent<|im_end|>\n ...          Qwen, SmolLM, Yi; Phi-4
 *     Inst      [INST] user [/INST] assistant</s> ...              Llama 2, Mistral
 *     Llama 3   <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|> ...
 *     Phi-3     <|role|>\ncontent<|end|>\n ...
 * Where a template asks for today's date it gets the one that it names itself (Llama 3.1 and 3.2),
 * or none (SmolLM3): the same conversation is the same prompt on every day.  Immutable after open;
 * any thread. */
#ifndef OMNI_COMMON_MODEL_CHAT_TEMPLATE_H
#define OMNI_COMMON_MODEL_CHAT_TEMPLATE_H

#include "common/model/tokenizer.h"

enum chat_format { CHAT_CHATML, CHAT_INST, CHAT_LLAMA3, CHAT_PHI3 };

/* Where a system message goes. */
enum chat_system {
    CHAT_SYSTEM_REFUSED,
    CHAT_SYSTEM_TURN,  /* CHATML, PHI3: a turn of its own */
    CHAT_SYSTEM_BARE,  /* CHATML: its text alone, before the first turn */
    CHAT_SYSTEM_TAGS,  /* INST: between <<SYS>> marks in the first user message */
    CHAT_SYSTEM_FIRST, /* INST: in front of the first user message, an empty line between */
    CHAT_SYSTEM_LAST   /* INST: likewise, of the last */
};

enum { CHAT_LITERAL_BYTES_MAX = 2048, CHAT_TOKEN_BYTES_MAX = 48 };

/* Text that a template has in quotes.  n 0: none. */
struct chat_literal {
    uint32_t n;
    char bytes[CHAT_LITERAL_BYTES_MAX];
};

struct chat_template {
    enum chat_format format;
    bool bos_first;             /* the prompt begins with BOS */
    bool refuses_tools;         /* the template treats role "tool" in a way of its own */
    struct chat_literal system; /* CHATML: in front when the first message is not "system";
                                   LLAMA3: what every system message begins with */
    char bos[CHAT_TOKEN_BYTES_MAX], eos[CHAT_TOKEN_BYTES_MAX]; /* by name; "" if there is none */
    char opening[CHAT_TOKEN_BYTES_MAX]; /* CHATML: what an answer begins with, beside its role */
    bool separator;      /* CHATML: <|im_sep|> behind the role, and no line ends (Phi-4) */
    bool drops_thoughts; /* CHATML: up to </think>, of answers that are given back */
    bool thinks_last;    /* CHATML: a last answer has its thoughts, be they empty */
    bool two_modes;      /* CHATML: SmolLM3's system turn, which says whether to think; then
                                   system is what it says where there is no message ... */
    struct chat_literal unthinking; /* ... and this when it shall not think */
    bool overrides;                 /* SmolLM3: knows /system_override */
    bool names_roles;               /* CHATML: roles but system, user, assistant are left out */
    bool bos_each;                  /* INST: BOS before every [INST], not only the first */
    bool space_before, space_inside, space_close; /* INST: " [INST]", "[INST] x", "x [/INST]" */
    bool space_answer, space_eos, space_after;    /* INST: " answer", "answer </s>", "</s> " */
    bool trim_user, trim_answer;
    enum chat_system system_place;
    bool newline; /* PHI3: behind <|role|> and <|end|> */
    bool in_turn; /* CHATML, PHI3: an answer is opened behind every user message, asked or not */
    bool skips_empty; /* PHI3: an empty system message */
    bool eos_last;    /* PHI3: EOS where no answer is asked for */
};

/* Not NUL-terminated. */
struct chat_message {
    const char *role;
    size_t role_len;
    const char *content;
    size_t content_len;
};

/* Reads tokenizer.chat_template.  0, -ENOENT (the file has none), -ENOTSUP (one that is not known).
 */
int chat_template_open(const struct gguf *g, struct chat_template *out, struct gguf_error *err);

/* Does the template allow this conversation?  0, or -EINVAL with err: which message, and why. */
int chat_template_check(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n_messages, struct gguf_error *err);

/* The conversation as text, with the opening of the assistant's answer if add_prompt.  Writes at
 * most cap bytes (out may be NULL if cap is 0) and returns the bytes it takes.  A conversation that
 * is not allowed gives some text. */
size_t chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                            uint32_t n_messages, bool add_prompt, char *out, size_t cap);

/* The same as token ids.  Equal to encoding the text with TOKENIZER_PARSE_SPECIAL, except that a
 * message that contains <|im_end|> and the like cannot break out of its place: roles and contents
 * are encoded as plain text.  Returns the number of ids, or -EINVAL (not allowed), -ENOSPC (cap
 * below chat_template_encode_bound), -ENOMEM, -E2BIG, -ENOTSUP (the vocabulary lacks the form's
 * control tokens). */
int64_t chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                             const struct chat_message *messages, uint32_t n_messages,
                             bool add_prompt, uint32_t *ids, size_t cap);

/* A capacity that is always enough. */
size_t chat_template_encode_bound(const struct chat_template *c,
                                  const struct chat_message *messages, uint32_t n_messages);

#endif
