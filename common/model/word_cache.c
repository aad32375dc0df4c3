#include "common/model/word_cache.h"

#include <stdlib.h>
#include <string.h>

struct word_cache *word_cache_create(void)
{
    return calloc(1, sizeof(struct word_cache));
}

void word_cache_destroy(struct word_cache *c)
{
    free(c);
}

struct word_cache_entry *word_cache_find(struct word_cache *c, const char *word, size_t len,
                                         int *hit)
{
    uint64_t w[WORD_CACHE_BYTES / 8] = {0}, h;
    struct word_cache_entry *e;

    memcpy(w, word, len);
    h = (w[0] ^ w[1] * UINT64_C(0xff51afd7ed558ccd) ^ len) * UINT64_C(0x9e3779b97f4a7c15);
    e = &c->entries[(h >> 40) % WORD_CACHE_ENTRIES];
    *hit = e->len == len && e->word[0] == w[0] && e->word[1] == w[1];
    return e;
}

void word_cache_put(struct word_cache_entry *e, const char *word, size_t len, const uint32_t *ids,
                    size_t n_ids)
{
    if (n_ids > WORD_CACHE_IDS)
        return;
    memset(e->word, 0, sizeof(e->word));
    memcpy(e->word, word, len);
    memcpy(e->ids, ids, n_ids * sizeof(*ids));
    e->len = (uint8_t)len;
    e->n_ids = (uint8_t)n_ids;
}
