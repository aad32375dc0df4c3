/* The books of KV blocks: references, seals, look-ups; and a random walk beside a plain model. */
#include <errno.h>
#include <stdlib.h>

#include "cmocka_all.h"
#include "gpu-engine/kv_pool.h"

enum { N_BLOCKS = 12, N_STEPS = 100000, N_HASHES = 8 };

static void test_all_blocks_once_and_back(void **state)
{
    (void)state;
    struct kv_pool p;
    uint32_t seen = 0;

    assert_int_equal(kv_pool_init(&p, N_BLOCKS), 0);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        uint32_t b = kv_pool_acquire(&p);
        assert_true(b < N_BLOCKS);
        assert_int_equal(seen >> b & 1, 0);
        seen |= 1U << b;
    }
    assert_int_equal(kv_pool_acquire(&p), KV_BLOCK_NONE);
    assert_int_equal(kv_pool_check(&p), 0);
    kv_pool_release(&p, 5);
    assert_int_equal(p.n_free, 1);
    assert_int_equal(kv_pool_acquire(&p), 5);
    kv_pool_fini(&p);
}

static void test_an_empty_pool(void **state)
{
    (void)state;
    struct kv_pool p;

    assert_int_equal(kv_pool_init(&p, 0), 0);
    assert_int_equal(kv_pool_acquire(&p), KV_BLOCK_NONE);
    assert_int_equal(kv_pool_find(&p, 1), KV_BLOCK_NONE);
    assert_int_equal(kv_pool_check(&p), 0);
    kv_pool_fini(&p);
}

static void test_a_sealed_block_lives_as_long_as_its_last_holder(void **state)
{
    (void)state;
    struct kv_pool p;

    assert_int_equal(kv_pool_init(&p, N_BLOCKS), 0);
    uint32_t b = kv_pool_acquire(&p);
    assert_int_equal(kv_pool_find(&p, 42), KV_BLOCK_NONE);
    kv_pool_seal(&p, b, 42);
    assert_int_equal(kv_pool_find(&p, 42), b);
    kv_pool_share(&p, b);
    kv_pool_release(&p, b);
    assert_int_equal(kv_pool_find(&p, 42), b);
    assert_int_equal(p.n_free, N_BLOCKS - 1);
    kv_pool_release(&p, b);
    assert_int_equal(kv_pool_find(&p, 42), KV_BLOCK_NONE);
    assert_int_equal(p.n_free, N_BLOCKS);
    assert_int_equal(kv_pool_check(&p), 0);
    kv_pool_fini(&p);
}

/* The second block of the same content stays without a seal, and frees without harming the first;
 * the third hash lies in the same bucket. */
static void test_a_hash_belongs_to_one_block(void **state)
{
    (void)state;
    struct kv_pool p;

    assert_int_equal(kv_pool_init(&p, N_BLOCKS), 0);
    uint32_t a = kv_pool_acquire(&p), b = kv_pool_acquire(&p), c = kv_pool_acquire(&p);
    kv_pool_seal(&p, a, 3);
    kv_pool_seal(&p, b, 3);
    kv_pool_seal(&p, c, 3 + 16);
    assert_int_equal(p.blocks[b].hash, 0);
    assert_int_equal(kv_pool_find(&p, 3), a);
    assert_int_equal(kv_pool_find(&p, 3 + 16), c);
    kv_pool_release(&p, b);
    assert_int_equal(kv_pool_find(&p, 3), a);
    kv_pool_release(&p, a);
    assert_int_equal(kv_pool_find(&p, 3), KV_BLOCK_NONE);
    assert_int_equal(kv_pool_find(&p, 3 + 16), c);
    kv_pool_fini(&p);
}

static void test_check_finds_wrong_books(void **state)
{
    (void)state;
    struct kv_pool p;

    assert_int_equal(kv_pool_init(&p, N_BLOCKS), 0);
    uint32_t b = kv_pool_acquire(&p);
    p.blocks[b].refs = 0; /* forgotten, not released */
    assert_int_equal(kv_pool_check(&p), -EUCLEAN);
    p.blocks[b].refs = 1;
    assert_int_equal(kv_pool_check(&p), 0);
    p.n_free++;
    assert_int_equal(kv_pool_check(&p), -EUCLEAN);
    kv_pool_fini(&p);
}

/* ---- A random walk --------------------------------------------------------------------------- */

struct plain {
    uint32_t refs[N_BLOCKS];
    uint64_t hash[N_BLOCKS];
};

static uint32_t plain_find(const struct plain *m, uint64_t hash)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        if (m->hash[b] == hash)
            return b;
    }
    return KV_BLOCK_NONE;
}

static void plain_release(struct plain *m, uint32_t b)
{
    if (--m->refs[b] == 0)
        m->hash[b] = 0;
}

static void step(struct kv_pool *p, struct plain *m)
{
    uint32_t b = (uint32_t)rand() % N_BLOCKS;
    uint64_t hash = 1 + (uint64_t)rand() % N_HASHES * 5;

    switch (rand() % 4) {
    case 0:
        b = kv_pool_acquire(p);
        if (b != KV_BLOCK_NONE) {
            assert_int_equal(m->refs[b], 0);
            m->refs[b] = 1;
        }
        break;
    case 1:
        if (m->refs[b] > 0) {
            kv_pool_release(p, b);
            plain_release(m, b);
        }
        break;
    case 2:
        if (m->refs[b] > 0) {
            kv_pool_seal(p, b, hash);
            if (m->hash[b] == 0 && plain_find(m, hash) == KV_BLOCK_NONE)
                m->hash[b] = hash;
        }
        break;
    case 3:
        assert_int_equal(kv_pool_find(p, hash), plain_find(m, hash));
        if (m->hash[b] != 0) {
            kv_pool_share(p, b);
            m->refs[b]++;
        }
        break;
    }
}

static void test_a_random_walk(void **state)
{
    (void)state;
    struct plain m = {.refs = {0}};
    struct kv_pool p;

    srand(2);
    assert_int_equal(kv_pool_init(&p, N_BLOCKS), 0);
    for (uint32_t i = 0; i < N_STEPS; i++) {
        uint32_t n_free = 0;

        step(&p, &m);
        for (uint32_t b = 0; b < N_BLOCKS; b++)
            n_free += m.refs[b] == 0;
        assert_int_equal(p.n_free, n_free);
        assert_int_equal(kv_pool_check(&p), 0);
    }
    kv_pool_fini(&p);
}

static void test_chains_tell_prefixes_apart(void **state)
{
    (void)state;
    const uint32_t a[] = {1, 2, 3, 4}, b[] = {1, 2, 3, 5};
    const struct siphash_key key = {.k = {1, 2}};
    uint64_t start = kv_chain_start(&key, 9, 0), other_model = kv_chain_start(&key, 10, 0);
    uint64_t first = kv_chain_hash(&key, start, a, 4);

    assert_int_equal(first, kv_chain_hash(&key, start, a, 4));
    assert_int_not_equal(first, kv_chain_hash(&key, start, b, 4));
    assert_int_not_equal(first, kv_chain_hash(&key, other_model, a, 4));
    assert_int_not_equal(first, kv_chain_hash(&key, kv_chain_start(&key, 9, 1), a, 4));
    /* The same tokens behind another beginning are another block. */
    assert_int_not_equal(kv_chain_hash(&key, first, a, 4), first);
    assert_int_not_equal(kv_chain_hash(&key, first, a, 4),
                         kv_chain_hash(&key, kv_chain_hash(&key, start, b, 4), a, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_blocks_once_and_back),
        cmocka_unit_test(test_an_empty_pool),
        cmocka_unit_test(test_a_sealed_block_lives_as_long_as_its_last_holder),
        cmocka_unit_test(test_a_hash_belongs_to_one_block),
        cmocka_unit_test(test_check_finds_wrong_books),
        cmocka_unit_test(test_a_random_walk),
        cmocka_unit_test(test_chains_tell_prefixes_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
