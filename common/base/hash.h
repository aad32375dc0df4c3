/* hash.h - FNV-1a, 64 bits: geometry and prefix-block hashes.  Not for untrusted key sets. */
#ifndef OMNI_COMMON_BASE_HASH_H
#define OMNI_COMMON_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_SEED UINT64_C(0xcbf29ce484222325)

/* Continues hash h over n bytes; start with HASH_SEED. */
static inline uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;

    /* The analyser sees only the first byte of an integer that was set as a whole. */
    for (size_t i = 0; i < n; i++) /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinary*) */
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif
