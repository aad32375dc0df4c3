/* text.h - what the router knows of the model: vocabulary, chat template, limits.  No weights.
 *
 * Turns the prompt, chat or token ids of a generate message into token ids, and holds what the
 * streams need to turn tokens back into text.  Opened once, read only; the router's one thread
 * (the scratch memory is shared). */
#ifndef OMNI_ROUTER_TEXT_H
#define OMNI_ROUTER_TEXT_H

#include "common/base/error.h"
#include "common/model/chat_template.h"
#include "proto/messages.h"

enum { TEXT_STOP_TOKENS_MAX = 16 };

struct text {
    struct tokenizer *tokenizer; /* owned */
    struct chat_template chat;
    bool has_chat;
    char model_name[128], model_path[256];
    uint64_t model_hash;
    uint32_t n_ctx; /* most tokens of one request, prompt and output */
    uint32_t n_stop_tokens;
    uint32_t stop_tokens[TEXT_STOP_TOKENS_MAX]; /* every token that ends a generation */
    char *piece; /* owned: room for the text of one token, see stream.c */
    size_t piece_bytes;
};

/* Why a prompt was refused: the field at fault, and a sentence. */
struct text_error {
    enum error_code code;
    char field[32];
    char message[160];
};

/* n_ctx_max bounds the model's own context length; 0: a default of 8192.  0 or -errno with err;
 * close is safe after a failed open. */
int text_open(struct text *t, const char *path, uint32_t n_ctx_max, struct error *err);
void text_close(struct text *t);

/* The prompt of g, of which exactly one form must be there, as token ids; at least one, at most
 * n_ctx - 1. 0 and *ids (to be freed by the caller) with *n_ids, -EINVAL with err, or -ENOMEM. */
int text_encode(const struct text *t, const struct message_generate *g, uint32_t **ids,
                uint32_t *n_ids, struct text_error *err);

/* The ids that sampling names (logit_bias, stop_tokens): in the vocabulary, a bias once per token.
 * NULL, or the field at fault, with a sentence in `why`. */
const char *text_check_ids(const struct text *t, const struct message_generate *g, char *why,
                           size_t cap);

/* The well-formed UTF-8 at the beginning of s (NULL: empty): what a message may carry of words that
 * were cut to a size, or came from a file. */
struct str text_clean(const char *s);

#endif
