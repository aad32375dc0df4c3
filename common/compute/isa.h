/* isa.h - which instruction set the CPU kernels use.
 *
 * The kernels are compiled once per instruction set and chosen at run time.  All of them perform
 * the same operations in the same order (dense products and attention are chains of fused
 * multiply-adds over 16 virtual lanes), so the choice changes the speed and not the bits; tests
 * check that.  Objects (matrices, attention scratch) are told their instruction set at creation.
 *
 * The environment variable OMNI_ISA = ref | avx2 | avx512 overrides what the CPU offers.
 * Pure functions; any thread. */
#ifndef OMNI_COMMON_COMPUTE_ISA_H
#define OMNI_COMMON_COMPUTE_ISA_H

#include <stdbool.h>

enum isa {
    ISA_REF,    /* plain C, any x86-64; slow, the reference */
    ISA_AVX2,   /* AVX2, FMA, F16C */
    ISA_AVX512, /* AVX-512 F, BW, VL, DQ */
    ISA_COUNT
};

/* "ref", "avx2", "avx512". */
const char *isa_name(enum isa isa);

/* Can this CPU (and the operating system: saved register state) run it? */
bool isa_supported(enum isa isa);

/* The best supported instruction set, or the one that OMNI_ISA names.  0; -EINVAL if OMNI_ISA is no
 * known name, -ENOTSUP if this CPU cannot run it (both logged, with what would be possible). */
int isa_detect(enum isa *out);

/* OpenBLAS's name (OPENBLAS_CORETYPE) for the same instruction set; set it before the library is
 * loaded.  Used where OpenBLAS serves as a reference. */
const char *isa_openblas_coretype(enum isa isa);

#endif
