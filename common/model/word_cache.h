/* word_cache.h - the encodings of the words seen lately; private to the tokenizer.
 *
 * Text repeats its words: most of them need no merging when the last encoding is kept.  A table
 * with one place per hash, for short words with few tokens; a miss costs a comparison, and a wrong
 * answer is impossible, because the word itself is compared.  It belongs to one encode call, and
 * only calls that are long enough to pay for it have one. */
#ifndef OMNI_COMMON_MODEL_WORD_CACHE_H
#define OMNI_COMMON_MODEL_WORD_CACHE_H

#include <stddef.h>
#include <stdint.h>

enum {
    WORD_CACHE_ENTRIES = 8192, /* x 48 bytes: stays in the second cache */
    WORD_CACHE_BYTES = 16,     /* longest word */
    WORD_CACHE_IDS = 7,        /* most tokens of one */
};

struct word_cache_entry {
    uint64_t word[WORD_CACHE_BYTES / 8]; /* padded with zeros */
    uint8_t len, n_ids;                  /* len 0: empty */
    uint32_t ids[WORD_CACHE_IDS];
};

struct word_cache {
    struct word_cache_entry entries[WORD_CACHE_ENTRIES];
};

/* All zeros, or NULL. */
struct word_cache *word_cache_create(void);
void word_cache_destroy(struct word_cache *c);

/* The entry where a word of 1 to WORD_CACHE_BYTES bytes is or would be; *hit says which. */
struct word_cache_entry *word_cache_find(struct word_cache *c, const char *word, size_t len,
                                         int *hit);

/* Makes the entry that of this word, if it has few enough tokens. */
void word_cache_put(struct word_cache_entry *e, const char *word, size_t len, const uint32_t *ids,
                    size_t n_ids);

#endif
