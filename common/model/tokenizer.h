/* tokenizer.h - text to token ids and back, by the vocabulary in a GGUF file.
 *
 * Two kinds (tokenizer.ggml.model).  gpt2, byte-level BPE: text is cut at special tokens, then into
 * words by the pattern that the file names (tokenizer.ggml.pre), then each word's bytes are merged
 * pair by pair in order of rank.  llama, SentencePiece's BPE: text between special tokens gets a
 * space in front (unless the file says not to), and its characters are merged, the best score
 * first; a character without a token becomes the tokens of its bytes, and so does U+2581, which the
 * vocabulary uses for spaces.
 *
 * Text is any bytes: what is not UTF-8 is encoded byte by byte, and tokenizer_decode gives the text
 * back.  The one exception is a byte for which the vocabulary has no token (SmolLM2's
 * lacks 21: some control characters, and bytes that UTF-8 uses rarely or never): it gives nothing,
 * as in llama.cpp, because the only other token at hand would be one that means the end of a text.
 *
 * Immutable after open: any number of threads may encode at once.  Encoding allocates scratch
 * memory (it is no part of a sweep); time is O(n log n) in the length of the longest word. */
#ifndef OMNI_COMMON_MODEL_TOKENIZER_H
#define OMNI_COMMON_MODEL_TOKENIZER_H

#include "common/model/gguf.h"

/* No such token. */
#define TOKENIZER_NONE UINT32_MAX

enum tokenizer_flags {
    TOKENIZER_PARSE_SPECIAL = 1, /* control tokens in the text become tokens; else they are text */
    TOKENIZER_ADD_SPECIAL = 2    /* BOS and EOS are added if the file says so */
};

struct tokenizer;

/* Copies what it needs: g may be closed afterwards.  0 or -errno (-ENOTSUP: a tokenizer model or
 * pattern that is not known; err names it and the known ones). */
int tokenizer_open(const struct gguf *g, struct tokenizer **out, struct gguf_error *err);

/* NULL is allowed. */
void tokenizer_close(struct tokenizer *t);

/* A capacity that is always enough for len bytes: each is at most a token, and so is a space in
 * front of every piece of text between special tokens. */
static inline size_t tokenizer_encode_bound(size_t len)
{
    return 2 * len + 2;
}

/* Encodes len bytes into at most cap ids.  Returns their number, or -ENOSPC (cap too small),
 * -ENOMEM, -E2BIG (more than TOKENIZER_TEXT_MAX bytes). */
#define TOKENIZER_TEXT_MAX (256u << 20)
int64_t tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                         uint32_t *ids, size_t cap);

/* The inverse: the pieces of the ids put together, special tokens by their names, without the
 * spaces that encoding put in front of text.  Gives back the text of any encoding without
 * TOKENIZER_ADD_SPECIAL.  Writes at most cap bytes (out may be NULL if cap is 0); returns the bytes
 * it takes, or -EINVAL (no such id). */
int64_t tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n_ids, char *out,
                         size_t cap);

/* The bytes of a token (of a control token: its name, such as <|im_end|>); valid until close, not
 * NUL-terminated.  0 or -EINVAL (no such id). */
int tokenizer_piece(const struct tokenizer *t, uint32_t id, const char **bytes, size_t *len);

uint32_t tokenizer_n_vocab(const struct tokenizer *t);
size_t tokenizer_piece_bytes_max(const struct tokenizer *t);

/* Is there a token for this byte alone?  If for all 256, any text survives encode and decode. */
bool tokenizer_has_byte(const struct tokenizer *t, unsigned char byte);

/* Tokens that are not text: a client should not see their names. */
bool tokenizer_is_control(const struct tokenizer *t, uint32_t id);

/* Tokens that end a generation: EOS, and the usual end-of-turn tokens by name. */
bool tokenizer_is_eog(const struct tokenizer *t, uint32_t id);

/* Special tokens that swallow the white space behind them (Phi-3's do). */
bool tokenizer_strips_after(const struct tokenizer *t, uint32_t id);

/* TOKENIZER_NONE where the file names none. */
uint32_t tokenizer_bos(const struct tokenizer *t);
uint32_t tokenizer_eos(const struct tokenizer *t);

/* The control or user-defined token with exactly this name, or TOKENIZER_NONE. */
uint32_t tokenizer_special_id(const struct tokenizer *t, const char *name);

#endif
