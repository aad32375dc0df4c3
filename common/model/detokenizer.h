/* detokenizer.h - tokens to text, as they come, never a broken UTF-8 sequence.
 *
 * A token may end in the middle of a character; the incomplete tail (at most 3 bytes) is kept until
 * the next tokens complete it.  Bytes that can no longer become a character are given out as
 * U+FFFD, one per maximal ill-formed part (as browsers do).  Control tokens give no text. One
 * detokenizer per stream, in memory the caller owns; no allocation; not shared by threads. */
#ifndef OMNI_COMMON_MODEL_DETOKENIZER_H
#define OMNI_COMMON_MODEL_DETOKENIZER_H

#include "common/model/tokenizer.h"

struct detokenizer {
    const struct tokenizer *tokenizer; /* outlives this */
    unsigned n_tail;
    char tail[4]; /* the first n_tail bytes of a character that is not complete */
};

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t);

/* Room that one push can need: every byte may become a replacement character of 3. */
static inline size_t detokenizer_push_max(const struct detokenizer *d)
{
    return 3 * (tokenizer_piece_bytes_max(d->tokenizer) + 3);
}

/* Appends a token; writes the text that is complete now to out.  Returns its length (0 is usual),
 * or -EINVAL (no such token), -ENOSPC (cap < detokenizer_push_max). */
int64_t detokenizer_push(struct detokenizer *d, uint32_t id, char *out, size_t cap);

/* End of the stream: an incomplete tail becomes U+FFFD.  Returns 0 or 3; cap must be >= 3. */
int64_t detokenizer_flush(struct detokenizer *d, char *out, size_t cap);

#endif
