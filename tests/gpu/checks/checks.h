/* checks.h - the checks, one or more per operation; listed in checks.c. */
#ifndef OMNI_TESTS_GPU_CHECKS_CHECKS_H
#define OMNI_TESTS_GPU_CHECKS_CHECKS_H
#include "tests/gpu/checks/check.h"

int check_decode_attention(struct check_run *r);
int check_embedding(struct check_run *r);
int check_gather(struct check_run *r);
int check_sweep_begin(struct check_run *r);
int check_sweep_outputs(struct check_run *r);
int check_gemv(struct check_run *r);
int check_pick_step(struct check_run *r);
int check_prefill_attention(struct check_run *r);
int check_rms_norm(struct check_run *r);
int check_rotary_write(struct check_run *r);
int check_sampling(struct check_run *r);
int check_sampling_wide(struct check_run *r);
int check_swiglu(struct check_run *r);
int check_weight_convert(struct check_run *r);
int check_weight_fill(struct check_run *r);

#endif
