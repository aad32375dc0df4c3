/* chat_template.h - a conversation as a prompt, in the form that the model was trained on.
 *
 * Templates in model files are Jinja programs.  They are not run: the form is recognised, and the
 * forms that are known are written here.  ChatML is one that carries <|im_start|>:
 *     <|im_start|>role\ncontent<|im_end|>\n  ...  <|im_start|>assistant\n
 * If the file's template puts a system message in front of conversations without one (SmolLM2
 * does), that message is taken from it.  Immutable after open; any thread. */
#ifndef OMNI_COMMON_MODEL_CHAT_TEMPLATE_H
#define OMNI_COMMON_MODEL_CHAT_TEMPLATE_H

#include "common/model/tokenizer.h"

enum chat_format { CHAT_CHATML };

#define CHAT_SYSTEM_BYTES_MAX 1024

struct chat_template {
    enum chat_format format;
    uint32_t n_system;                  /* bytes of system; 0: none is added */
    char system[CHAT_SYSTEM_BYTES_MAX]; /* put in front when the first message is not "system" */
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

/* The conversation as text, with the opening of the assistant's answer if add_prompt.  Writes at
 * most cap bytes (out may be NULL if cap is 0) and returns the bytes it takes. */
size_t chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                            uint32_t n_messages, bool add_prompt, char *out, size_t cap);

/* The same as token ids.  Equal to encoding the text with TOKENIZER_PARSE_SPECIAL, except that a
 * message that contains <|im_end|> and the like cannot break out of its place: roles and contents
 * are encoded as plain text.  Returns the number of ids, or -ENOSPC (cap below
 * chat_template_encode_bound), -ENOMEM, -E2BIG, -ENOTSUP (the vocabulary lacks the ChatML tokens).
 */
int64_t chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                             const struct chat_message *messages, uint32_t n_messages,
                             bool add_prompt, uint32_t *ids, size_t cap);

/* A capacity that is always enough. */
size_t chat_template_encode_bound(const struct chat_template *c,
                                  const struct chat_message *messages, uint32_t n_messages);

#endif
