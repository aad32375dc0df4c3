/* stop_scanner.h - finds stop strings in a stream of text, across the borders of its chunks.
 *
 * Text that may be the beginning of a stop string is held back until it is known not to be, so
 * nothing of a stop string is ever given out.  One Knuth-Morris-Pratt automaton per stop string:
 * constant time per byte and stop string, and what is held is the longest partial match.
 * If several stop strings end at the same byte, the longest counts.
 * One scanner per stream; init allocates, push does not; not shared by threads. */
#ifndef OMNI_COMMON_MODEL_STOP_SCANNER_H
#define OMNI_COMMON_MODEL_STOP_SCANNER_H

#include <stddef.h>
#include <stdint.h>

#define STOP_SCANNER_STRINGS_MAX 16
#define STOP_SCANNER_BYTES_MAX   1024 /* of one stop string */

struct stop_string {
    const char *text;
    size_t len;
};

struct stop_scanner {
    uint32_t n_stops;
    uint32_t n_held; /* bytes in held */
    uint32_t len[STOP_SCANNER_STRINGS_MAX];
    uint32_t matched[STOP_SCANNER_STRINGS_MAX]; /* length of the current partial match */
    char *text[STOP_SCANNER_STRINGS_MAX];
    uint16_t *fallback[STOP_SCANNER_STRINGS_MAX]; /* [i]: longest border of the first i + 1 bytes */
    char *held;
    void *storage; /* owns all of the above */
};

enum stop_result { STOP_NONE, STOP_FOUND };

/* Copies the strings (n may be 0).  0, -EINVAL (an empty string, or not UTF-8), -E2BIG, -ENOMEM. */
int stop_scanner_init(struct stop_scanner *s, const struct stop_string *stops, uint32_t n);

/* Also after a failed init. */
void stop_scanner_fini(struct stop_scanner *s);

/* Room that a push of len bytes can need. */
static inline size_t stop_scanner_push_max(const struct stop_scanner *s, size_t len)
{
    return s->n_held + len;
}

/* Reads len bytes; writes what may be given out to out (stop_scanner_push_max bytes of room; may
 * not overlap text) and its length to *n_out.  STOP_FOUND: the stream ends before the stop string;
 * the rest of text is dropped and the scanner is spent. */
enum stop_result stop_scanner_push(struct stop_scanner *s, const char *text, size_t len, char *out,
                                   size_t *n_out);

/* End of the stream without a stop string: gives out what was held (n_held bytes of room).  Returns
 * its length. */
size_t stop_scanner_flush(struct stop_scanner *s, char *out);

#endif
