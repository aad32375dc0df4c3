/* vocab.h - the tokens and merges of a vocabulary; private to the tokenizer.
 *
 * Two kinds.  BYTES: byte-level BPE; token texts in the file are in GPT-2's alphabet (each byte is
 * one printable character), symbols are single bytes, and merges are listed in order of rank.
 * CHARS: SentencePiece's BPE; in token texts U+2581 stands for a space and <0xNN> for a byte,
 * symbols are characters, and two symbols merge where their texts together are a token, the best
 * score first.  Here every token has its raw bytes, and merges are a hash table from a pair of
 * symbols to rank and result: after loading the two kinds differ in where a word starts and in its
 * first symbols, nowhere else.
 * Immutable after open. */
#ifndef OMNI_COMMON_MODEL_VOCAB_H
#define OMNI_COMMON_MODEL_VOCAB_H

#include "common/model/tokenizer.h"

enum vocab_kind { VOCAB_BYTES, VOCAB_CHARS };

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

/* A character and its symbol: a token, or, from n_tokens on, a character that is only a part of
 * tokens.  key: its bytes, the first lowest; 0 is empty (a NUL has no symbol). */
struct vocab_char {
    uint32_t key, symbol;
};

struct vocab {
    enum vocab_kind kind;
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
    /* CHARS */
    struct vocab_char *chars;
    uint64_t chars_mask;
    bool words_start_with_space; /* no token has a space behind another character */
    /* Whole words that are tokens, merges or not (vocab_index_words); NULL: not asked for. */
    uint32_t *words; /* id + 1, 0 is empty */
    uint64_t words_mask;
};

/* On failure *v is as after vocab_fini. */
int vocab_init(struct vocab *v, enum vocab_kind kind, const struct gguf *g, struct gguf_error *err);
void vocab_fini(struct vocab *v);

/* Makes vocab_find_word work.  0 or -ENOMEM. */
int vocab_index_words(struct vocab *v);

/* The token with these bytes (len > 0) that is not special, or TOKENIZER_NONE. */
uint32_t vocab_find_word(const struct vocab *v, const char *bytes, size_t len);

/* The merge of two symbols, or NULL. */
const struct vocab_merge *vocab_find_merge(const struct vocab *v, uint32_t left, uint32_t right);

/* CHARS: the symbol of a character of len bytes, or TOKENIZER_NONE. */
uint32_t vocab_char_symbol(const struct vocab *v, const char *bytes, size_t len);

static inline const char *vocab_bytes(const struct vocab *v, uint32_t id)
{
    return v->pool + v->tokens[id].off;
}

/* Not text: what is matched as a whole or not at all. */
static inline bool vocab_is_special(const struct vocab_token *t)
{
    return t->type == TOKEN_CONTROL || t->type == TOKEN_USER_DEFINED || t->type == TOKEN_UNKNOWN;
}

#endif
