/* attention_fixture.h - what the tests of attention share: a sequence's KV in scattered blocks, runs
 * over it, and the float64 reference of one query.
 *
 * Tests are compiled a second time with OMNI_EMULATED, beside kernels_emulated_*.c: then the
 * instruction sets that those emulate run, and no others. */
#ifndef OMNI_TESTS_UNIT_ATTENTION_FIXTURE_H
#define OMNI_TESTS_UNIT_ATTENTION_FIXTURE_H

#include <stdbool.h>

#include "common/compute/attention.h"
#include "tests/unit/compute_common.h"

#ifdef OMNI_EMULATED
enum { EVERY = 5 }; /* shapes: emulated registers are slow */
#define RAN "emulated"
#else
enum { EVERY = 1 };
#define RAN "ran"
#endif

static inline bool runs(enum isa isa)
{
#ifdef OMNI_EMULATED
    return isa == ISA_AVX512FP16 || isa == ISA_AMX;
#else
    return isa_supported(isa);
#endif
}

/* Does it multiply as nobody else does?  Then its bits are its own. */
static inline bool has_own_bits(enum isa isa, enum kv_type type)
{
    return (type == KV_TYPE_BF16 && isa >= ISA_AVX512BF16) ||
           (type == KV_TYPE_F16 && isa == ISA_AVX512FP16);
}

enum { BLOCK_TOKENS = 64 };

struct variant {
    const char *name;
    enum kv_type type;
    struct kv_layer_spec layer;
    uint32_t n_tokens;
};

#define FULL(heads, kv_heads, dk_, dv_)                                                            \
    {                                                                                              \
        .attention = KV_ATTENTION_FULL, .n_heads = heads, .n_kv_heads = kv_heads, .dk = dk_,       \
        .dv = dv_, .scale = 0.2f                                                                   \
    }
/* One sequence's KV and queries. */
struct sequence {
    struct kv_geometry geometry;
    struct kv_view view;
    uint32_t *table;
    uint32_t n_tokens;
    uint32_t q_width, out_width;
    float *q, *k, *v;
};

/* Blocks in scattered order; everything not written is 0xff: NaN in every float type. */
struct sequence *sequence_make(const struct variant *var, uint64_t seed);
void sequence_append(struct sequence *s, uint32_t pos, uint32_t n);
void sequence_free(struct sequence *s);

struct attn_job job_of(const struct sequence *s, uint32_t pos, uint32_t n_q, float *out);

/* A team and its scratch. */
struct setup {
    struct team *team;
    struct attn_scratch *scratch;
};

struct setup setup_make(enum isa isa, uint32_t n_threads);
void setup_free(struct setup *s);

/* All tokens' outputs (malloc), computed one query at a time while the sequence grows: what lies
 * behind a token when it is computed is 0xff. */
float *decode_all(const struct variant *var, enum isa isa, uint64_t seed);

/* The same, with all KV there already, in chunks. */
float *prefill_all(const struct variant *var, enum isa isa, uint32_t n_threads, uint32_t chunk,
                   uint64_t seed);

/* Element e of a head of K or V as stored, in the definition's words. */
double stored(const struct kv_view *kv, bool value, uint32_t head, uint32_t pos, uint32_t e);

/* The output of head h of the query at pos, over KV as stored and the query as a kernel takes it. */
void attention64(const struct sequence *s, enum isa isa, uint32_t pos, uint32_t h, double *out);

/* How far an output may be from it. */
double tolerance(const struct variant *var, enum isa isa);

/* Every output against the reference, at positions 0, 1, 3, 7, ... */
void check_against_float64(const struct variant *var, enum isa isa, uint32_t n_threads);

#endif
