/* planted.h - kernels with a mistake that can be chosen: what the shim must catch. */
#ifndef OMNI_TESTS_GPU_SHIM_PLANTED_H
#define OMNI_TESTS_GPU_SHIM_PLANTED_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum planted {
    PLANTED_NOTHING_BARRIER,   /* neighbours through shared memory */
    PLANTED_NO_BARRIER,        /* read before it is written */
    PLANTED_NO_SECOND_BARRIER, /* written over before it is read */
    PLANTED_DEADLOCK,          /* meetings: a thread ends before the barrier */
    PLANTED_DIVERGED,          /* lanes meet at different instructions */
    PLANTED_ENDLESS,           /* a wait without a deadline */
    PLANTED_NO_WAIT,           /* copies: nothing is waited for */
    PLANTED_SHORT_WAIT,        /* one group too few is waited for */
    PLANTED_EARLY_STAGE,       /* a stage is filled again too early */
    PLANTED_NEVER_WAITED,      /* the kernel ends with copies under way */
    PLANTED_NOTHING_COPY,
    PLANTED_NOTHING_PRODUCT, /* tensor cores */
    PLANTED_LAYOUT,          /* an operand in another register layout */
};

/* 64 threads; in: 512 words, out: 256. */
int planted_words(uint32_t *out, const uint32_t *in, enum planted planted);
/* One warp; a: 16 x 16, b: 8 x 16, bf16; out: 16 x 8. */
int planted_product(float *out, const uint16_t *a, const uint16_t *b, enum planted planted);

#ifdef __cplusplus
}
#endif
#endif
