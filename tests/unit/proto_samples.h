/* proto_samples.h - a sample of every message, made from the list; shared by the codec's tests.
 *
 * All memory is static: one sample at a time, valid until the next is made.  Not thread-safe. */
#ifndef OMNI_TESTS_UNIT_PROTO_SAMPLES_H
#define OMNI_TESTS_UNIT_PROTO_SAMPLES_H

#include "proto/messages.h"

enum sample_kind {
    SAMPLE_SMALLEST, /* required fields alone; zeros, empty strings and lists */
    SAMPLE_TYPICAL,  /* every field, small values, lists of two */
    SAMPLE_LARGEST,  /* every number at its bound, every text 300 bytes of wide characters */
    N_SAMPLE_KINDS,
};

void sample_make(enum message_type type, enum sample_kind kind, struct message *m);

/* Field by field, lists element by element; padding does not count. */
bool sample_equal(const struct message *a, const struct message *b);

#endif
