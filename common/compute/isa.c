#include "common/compute/isa.h"

#include <cpuid.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char *const isa_names[ISA_COUNT] = {"ref", "avx2", "avx512", "avx512bf16"};

const char *isa_name(enum isa isa)
{
    return isa < ISA_COUNT ? isa_names[isa] : "?";
}

/* __builtin_cpu_supports does not know f16c everywhere; it was introduced with AVX's saved state,
 * so that the operating system's support is the one that avx2 implies.  The answer is kept: CPUID
 * leaves a virtual machine, for microseconds, and attn_append asks per call. */
static bool cpu_has_f16c(void)
{
    static _Atomic int known; /* 0 not yet, 1 no, 2 yes; any thread may find out */
    int have = atomic_load_explicit(&known, memory_order_relaxed);
    unsigned eax, ebx, ecx, edx;

    if (have == 0) {
        have = 1 + (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0);
        atomic_store_explicit(&known, have, memory_order_relaxed);
    }
    return have == 2;
}

bool isa_supported(enum isa isa)
{
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();

    switch (isa) {
    case ISA_REF:
        return true;
    case ISA_AVX2:
        return avx2;
    case ISA_AVX512BF16:
        return isa_supported(ISA_AVX512) && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("avx512bf16");
    case ISA_AVX512:
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case ISA_COUNT:
        break;
    }
    return false;
}

static enum isa isa_best(void)
{
    int isa = ISA_COUNT - 1;

    while (!isa_supported((enum isa)isa)) /* ref always is */
        isa--;
    return (enum isa)isa;
}

int isa_detect(enum isa *out)
{
    const char *name = getenv("OMNI_ISA");
    int isa = 0;

    *out = isa_best();
    if (name == NULL || name[0] == '\0')
        return 0;
    while (isa < ISA_COUNT && strcmp(name, isa_names[isa]) != 0)
        isa++;
    if (isa == ISA_COUNT)
        return -EINVAL;
    if (!isa_supported((enum isa)isa))
        return -ENOTSUP;
    *out = (enum isa)isa;
    return 0;
}

int isa_explain(int rc, struct error *err)
{
    const char *name = getenv("OMNI_ISA");

    return error_set(err, rc, "OMNI_ISA=%s: %s; the best of this machine is %s", name,
                     rc == -EINVAL ? "expected ref, avx2, avx512 or avx512bf16"
                                   : "this machine does not run it",
                     isa_name(isa_best()));
}

const char *isa_openblas_coretype(enum isa isa)
{
    switch (isa) {
    case ISA_AVX512BF16:
    case ISA_AVX512:
        return "SkylakeX";
    case ISA_AVX2:
        return "Haswell";
    case ISA_REF:
    case ISA_COUNT:
        break;
    }
    return "Prescott";
}
