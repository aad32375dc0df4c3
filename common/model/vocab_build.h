/* vocab_build.h - what exists while a vocabulary is built; private to vocab*.c. */
#ifndef OMNI_COMMON_MODEL_VOCAB_BUILD_H
#define OMNI_COMMON_MODEL_VOCAB_BUILD_H

#include "common/model/vocab.h"

/* The texts as in the file, and a hash of them. */
struct vocab_builder {
    struct vocab *v;
    const struct gguf *g;
    struct gguf_error *err;
    struct gguf_string *texts; /* [n_tokens] */
    uint32_t *slots;           /* id + 1, 0 is empty */
    uint64_t slots_mask;
};

/* The first token whose text in the file is a followed by b, or TOKENIZER_NONE. */
uint32_t vocab_build_find(const struct vocab_builder *s, struct gguf_string a,
                          struct gguf_string b);

/* Room for n merges, then each of them; of two for one pair the first counts. */
int vocab_build_merges(struct vocab *v, uint64_t n);
void vocab_build_add_merge(struct vocab *v, uint32_t left, uint32_t right, uint32_t rank,
                           uint32_t id);

/* A power of two, at least twice n. */
uint64_t vocab_table_size(uint64_t n);
uint64_t vocab_hash(const char *bytes, size_t len);

/* The kinds.  decode: the raw bytes of a token that is not special, never more than its text;
 * returns their number.  load: merges and first symbols; 0 or -errno with err. */
size_t vocab_bytes_decode(struct gguf_string text, char *out);
int vocab_bytes_load(struct vocab_builder *s);
size_t vocab_chars_decode(enum token_type type, struct gguf_string text, char *out);
int vocab_chars_load(struct vocab_builder *s);

#endif
