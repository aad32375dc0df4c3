/* vocab.h - the tokens and merges of a byte-level BPE vocabulary; private to the tokenizer.
 *
 * Token texts in the file are in GPT-2's alphabet (each byte is one printable character); here
 * every token has its raw bytes.  Merges are a hash table from a pair of ids to rank and result.
 * Immutable after open. */
#ifndef OMNI_COMMON_MODEL_VOCAB_H
#define OMNI_COMMON_MODEL_VOCAB_H

#include "common/model/tokenizer.h"

/* As in the file. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
};

struct vocab_token {
    uint32_t off, len; /* in the pool */
    uint8_t type;
    bool is_eog;
};

/* An entry of the open-addressed table of merges; key 0 is empty (a pair is stored as key + 1). */
struct vocab_merge {
    uint64_t key;
    uint32_t rank, id;
};

struct vocab {
    uint32_t n_tokens, n_special;
    size_t piece_bytes_max;
    struct vocab_token *tokens;
    char *pool;
    uint32_t byte_id[256]; /* the token of a single byte, or TOKENIZER_NONE */
    struct vocab_merge *merges;
    uint64_t merges_mask; /* table size - 1, a power of two - 1 */
    /* Tokens that are matched in text as a whole, by first byte; within it the longest first. */
    uint32_t *special;
    uint32_t special_from[257];
};

/* On failure *v is as after vocab_fini. */
int vocab_init(struct vocab *v, const struct gguf *g, struct gguf_error *err);
void vocab_fini(struct vocab *v);

/* The merge of two tokens, or NULL. */
const struct vocab_merge *vocab_find_merge(const struct vocab *v, uint32_t left, uint32_t right);

static inline const char *vocab_bytes(const struct vocab *v, uint32_t id)
{
    return v->pool + v->tokens[id].off;
}

#endif
