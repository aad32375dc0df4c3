/* ref_model.h - the forward pass, written plainly: the reference of tests.
 *
 * One sequence, one token at a time, everything in fp32 with sums in double, KV unrounded.  It
 * walks the model's lists of dense operations, so it also shows that the lists are complete.  Slow.
 */
#ifndef OMNI_TESTS_UNIT_REF_MODEL_H
#define OMNI_TESTS_UNIT_REF_MODEL_H

#include "common/model/model.h"

struct ref_model;

/* Aborts the test program when there is no memory. */
struct ref_model *ref_model_create(const struct model *m, uint32_t n_ctx);
void ref_model_destroy(struct ref_model *r);

/* Runs the next token (positions count from 0); logits [n_vocab] stay valid until the next step. */
const float *ref_model_step(struct ref_model *r, uint32_t token);

/* Index of the largest logit; the lowest one among equals. */
uint32_t ref_model_argmax(const float *logits, uint32_t n);

#endif
