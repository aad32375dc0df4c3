/* bpe.h - merges the symbols of one word; private to the tokenizer.
 *
 * The first symbols are bytes or characters, as the vocabulary's kind has it.  Symbols are a doubly
 * linked list in an array, each in the place of its first byte, candidate merges a heap ordered by rank, then by
 * place, so a word of n bytes takes O(n log n): a megabyte without a space is no attack.
 * The scratch belongs to one encode call and grows to its longest word. */
#ifndef OMNI_COMMON_MODEL_BPE_H
#define OMNI_COMMON_MODEL_BPE_H

#include "common/model/vocab.h"

struct bpe_symbol {
    uint32_t id; /* TOKENIZER_NONE: merged to the left, or a byte or character without a token;
                    from n_tokens on: a character that is only part of tokens */
    uint32_t prev, next; /* indices; UINT32_MAX at the ends */
};

struct bpe_candidate {
    uint32_t rank, place;     /* place: index of the left symbol */
    uint32_t left, right, id; /* ids when it was found: if they differ now, it is stale */
};

struct bpe {
    const struct vocab *vocab;
    size_t cap; /* bytes of the longest word so far */
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap; /* 3 * cap: one per neighbouring pair, two more per merge */
    size_t n_heap;
};

void bpe_init(struct bpe *b, const struct vocab *v);
void bpe_fini(struct bpe *b);

/* Encodes len bytes; writes ids (room for len is always enough).  Returns the number of
 * ids, or -ENOMEM. */
int64_t bpe_encode(struct bpe *b, const char *word, size_t len, uint32_t *ids);

#endif
