/* isa.h - which instruction set the CPU kernels use.
 *
 * The kernels are compiled once per instruction set and chosen at run time.  ref, avx2 and avx512
 * perform the same operations in the same order, so the choice among them changes the speed and not
 * the bits; tests check that.  The others give those bits too, except for attention, where their
 * products round otherwise: avx512bf16 and amx over bf16 KV (queries and weights to bf16),
 * avx512fp16 over f16 KV as well (queries, weights and short sums to f16).  Objects (matrices,
 * attention scratch) are told their instruction set at creation.
 *
 * The environment variable OMNI_ISA = ref | avx2 | avx512 | avx512bf16 | avx512fp16 | amx overrides
 * the choice.  Any thread. */
#ifndef OMNI_COMMON_COMPUTE_ISA_H
#define OMNI_COMMON_COMPUTE_ISA_H

#include <stdbool.h>

#include "common/base/error.h"

enum isa {
    ISA_REF,        /* plain C, any x86-64; slow, the reference */
    ISA_AVX2,       /* AVX2, FMA, F16C */
    ISA_AVX512,     /* AVX-512 F, BW, VL, DQ */
    ISA_AVX512BF16, /* and the dot products of BF16 and VNNI */
    ISA_AVX512FP16, /* and arithmetic in f16; never chosen unasked: it is less exact */
    ISA_AMX, /* AVX512BF16, and matrix tiles of bf16; unasked not yet either: no processor ran it */
    ISA_COUNT
};

/* As in OMNI_ISA. */
const char *isa_name(enum isa isa);

/* Can this CPU (and the operating system: saved register state) run it?  For amx the kernel is asked
 * for permission, once, for the whole process. */
bool isa_supported(enum isa isa);

/* isa_best, or the one that OMNI_ISA names.  0; -EINVAL if OMNI_ISA is no
 * known name, -ENOTSUP if this CPU cannot run it (*out is the best then). */
int isa_detect(enum isa *out);

/* The best that the processor has, of those that are taken unasked: AMX and AVX512FP16 are not. */
enum isa isa_best(void);

/* What isa_detect's rc < 0 means, with what would be possible; returns rc. */
int isa_explain(int rc, struct error *err);

/* OpenBLAS's name (OPENBLAS_CORETYPE) for the same instruction set; set it before the library is
 * loaded.  Used where OpenBLAS serves as a reference. */
const char *isa_openblas_coretype(enum isa isa);

#endif
