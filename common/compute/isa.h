/* isa.h - which instruction set the CPU kernels use.
 *
 * The kernels are compiled once per instruction set and chosen at run time.  ref, avx2 and avx512
 * perform the same operations in the same order, so the choice among them changes the speed and not
 * the bits; tests check that.  avx512bf16 gives those bits too, except for attention over bf16 KV,
 * where its dot products round otherwise.  Objects (matrices, attention scratch) are told their
 * instruction set at creation.
 *
 * The environment variable OMNI_ISA = ref | avx2 | avx512 | avx512bf16 overrides what the CPU
 * offers. Pure functions; any thread. */
#ifndef OMNI_COMMON_COMPUTE_ISA_H
#define OMNI_COMMON_COMPUTE_ISA_H

#include <stdbool.h>

#include "common/base/error.h"

enum isa {
    ISA_REF,        /* plain C, any x86-64; slow, the reference */
    ISA_AVX2,       /* AVX2, FMA, F16C */
    ISA_AVX512,     /* AVX-512 F, BW, VL, DQ */
    ISA_AVX512BF16, /* and the dot products of BF16 and VNNI */
    ISA_COUNT
};

/* "ref", "avx2", "avx512", "avx512bf16". */
const char *isa_name(enum isa isa);

/* Can this CPU (and the operating system: saved register state) run it? */
bool isa_supported(enum isa isa);

/* The best supported instruction set, or the one that OMNI_ISA names.  0; -EINVAL if OMNI_ISA is no
 * known name, -ENOTSUP if this CPU cannot run it (*out is the best then). */
int isa_detect(enum isa *out);

/* What isa_detect's rc < 0 means, with what would be possible; returns rc. */
int isa_explain(int rc, struct error *err);

/* OpenBLAS's name (OPENBLAS_CORETYPE) for the same instruction set; set it before the library is
 * loaded.  Used where OpenBLAS serves as a reference. */
const char *isa_openblas_coretype(enum isa isa);

#endif
