#include "common/compute/isa.h"

#include <cpuid.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const isa_names[ISA_COUNT] = {"ref",        "avx2",       "avx512",
                                                 "avx512bf16", "avx512fp16", "amx"};

const char *isa_name(enum isa isa)
{
    return isa < ISA_COUNT ? isa_names[isa] : "?";
}

/* An answer that is found out once, by any thread: CPUID leaves a virtual machine, for
 * microseconds, and attn_append asks per call. */
struct answer {
    _Atomic int known; /* 0 not yet, 1 no, 2 yes */
    bool (*find)(void);
};

static bool answer_of(struct answer *a)
{
    int have = atomic_load_explicit(&a->known, memory_order_relaxed);

    if (have == 0) {
        have = 1 + a->find();
        atomic_store_explicit(&a->known, have, memory_order_relaxed);
    }
    return have == 2;
}

/* __builtin_cpu_supports does not know f16c everywhere; it was introduced with AVX's saved state,
 * so that the operating system's support is the one that avx2 implies. */
static bool find_f16c(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

/* Its registers are those of AVX-512. */
static bool find_fp16(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & 1U << 23) != 0;
}

/* Tiles: CPUID 7.0 EDX 24 (tiles) and 22 (bf16), the operating system saves their state (XCR0 17
 * and 18), and the process may use it: 8 KiB of state per thread that the kernel hands out on
 * request (ARCH_REQ_XCOMP_PERM for component 18; Linux 5.16). */
static bool find_amx(void)
{
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    unsigned eax, ebx, ecx, edx, low, high;

    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0 ||
        __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 ||
        (edx & (1U << 24 | 1U << 22)) != (1U << 24 | 1U << 22))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 3U << 17) == 3U << 17 && syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}

static struct answer has_f16c = {.find = find_f16c};
static struct answer has_fp16 = {.find = find_fp16};
static struct answer has_amx = {.find = find_amx};

bool isa_supported(enum isa isa)
{
    bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && answer_of(&has_f16c);

    switch (isa) {
    case ISA_REF:
        return true;
    case ISA_AVX2:
        return avx2;
    case ISA_AVX512BF16:
        return isa_supported(ISA_AVX512) && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("avx512bf16");
    case ISA_AVX512FP16:
        return isa_supported(ISA_AVX512BF16) && answer_of(&has_fp16);
    case ISA_AMX:
        return isa_supported(ISA_AVX512BF16) && answer_of(&has_amx);
    case ISA_AVX512:
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case ISA_COUNT:
        break;
    }
    return false;
}

enum isa isa_best(void)
{
    int isa = ISA_COUNT - 1;

    /* f16 sums are less exact; and tiles have run on emulated registers alone. */
    while (isa == ISA_AVX512FP16 || isa == ISA_AMX || !isa_supported((enum isa)isa)) /* ref is */
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
                     rc == -EINVAL ? "expected ref, avx2, avx512, avx512bf16, avx512fp16 or amx"
                                   : "this machine does not run it",
                     isa_name(isa_best()));
}

const char *isa_openblas_coretype(enum isa isa)
{
    switch (isa) {
    case ISA_AMX:
    case ISA_AVX512FP16:
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
