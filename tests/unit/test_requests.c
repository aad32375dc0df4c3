/* The request table and the id map by themselves: lookups against a plain model, transitions,
 * results that are forgotten in order, and streams that are rewound. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "common/model/model_random.h"
#include "router/request.h"

enum { N_IDS = 300, N_SLOTS = 4 };

static const struct request_lists no_lists = {.stops = {.n = 0}};
static struct text text;

static struct request_id id_of(uint32_t n)
{
    struct request_id id = {{0}};

    memcpy(id.bytes, &n, sizeof n);
    return id;
}

static void test_id_map_equals_model(void **state)
{
    (void)state;
    static bool there[N_IDS];
    struct id_map m;
    uint32_t seed = 3, n = 0;

    memset(there, 0, sizeof there);
    assert_int_equal(id_map_init(&m, N_IDS), 0);
    for (int step = 0; step < 100000; step++) {
        seed = seed * 1664525u + 1013904223u;
        const uint32_t i = (seed >> 8) % N_IDS;
        const struct request_id id = id_of(i);

        assert_int_equal(id_map_find(&m, &id), there[i] ? i : ID_MAP_NONE);
        if (there[i])
            assert_true(id_map_remove(&m, &id));
        else
            id_map_add(&m, &id, i);
        there[i] = !there[i];
        n = there[i] ? n + 1 : n - 1;
        assert_int_equal(m.n, n);
    }
    for (uint32_t i = 0; i < N_IDS; i++) {
        const struct request_id id = id_of(i);

        assert_int_equal(id_map_find(&m, &id), there[i] ? i : ID_MAP_NONE);
        assert_int_equal(id_map_remove(&m, &id), there[i]);
    }
    assert_int_equal(m.n, 0);
    id_map_fini(&m);
    assert_int_equal(id_map_init(&m, 0), -EINVAL);
    id_map_fini(&m);
}

static struct request *create(struct request_table *t, uint32_t n, uint32_t max_tokens)
{
    const struct request_params params = {.max_tokens = max_tokens};
    const struct request_id id = id_of(n);
    uint32_t *prompt = calloc(3, sizeof *prompt);
    struct request *r = NULL;

    assert_int_equal(request_create(t, &id, &params, &no_lists, prompt, 3, n, &r), REQUEST_CREATED);
    assert_int_equal(r->state, REQUEST_QUEUED);
    return r;
}

static void finish(struct request_table *t, struct request *r, uint64_t now_ns)
{
    request_finish(t, r, &(struct request_end){.reason = FINISH_CANCELLED}, now_ns);
}

static void test_slots_are_reused_oldest_result_first(void **state)
{
    (void)state;
    const struct request_params params = {.max_tokens = 1};
    struct request_table t;
    struct request *r[N_SLOTS], *out;
    uint32_t *prompt = calloc(1, sizeof *prompt);
    const struct request_id fifth = id_of(5);

    assert_int_equal(request_table_init(&t, &text, N_SLOTS), 0);
    for (uint32_t i = 0; i < N_SLOTS; i++)
        r[i] = create(&t, i, 10);
    assert_int_equal(request_create(&t, &fifth, &params, &no_lists, prompt, 1, 0, &out),
                     REQUEST_TABLE_FULL);
    free(prompt);
    finish(&t, r[2], 100);
    finish(&t, r[0], 200);
    assert_null(request_oldest_finished(&t, 100));
    assert_ptr_equal(request_oldest_finished(&t, 101), r[2]);
    r[2]->session = 0; /* somebody still waits for it: the next oldest goes */
    assert_ptr_equal(create(&t, 5, 10), r[0]);
    const struct request_id gone = id_of(0), kept = id_of(2);

    assert_null(request_find(&t, &gone));
    assert_ptr_equal(request_find(&t, &kept), r[2]);
    r[2]->session = REQUEST_NONE;
    request_forget(&t, r[2]);
    assert_int_equal(t.n_in_state[REQUEST_QUEUED], 3);
    assert_int_equal(t.n_in_state[REQUEST_FREE], 1);
    assert_int_equal(t.n_free, 1);
    request_table_fini(&t);
}

static void test_output_is_bounded_and_timed(void **state)
{
    (void)state;
    struct request_table t;

    assert_int_equal(request_table_init(&t, &text, N_SLOTS), 0);
    struct request *r = create(&t, 1, 3);

    assert_true(request_ttft_ms(r) < 0);
    assert_int_equal(request_add_token(r, tokenizer_n_vocab(text.tokenizer), 0), STREAM_BAD_TOKEN);
    assert_int_equal(r->n_output, 0);
    assert_int_equal(request_add_token(r, 40, 1 + 5 * NS_PER_MS), STREAM_MORE);
    assert_true(request_tpot_ms(r) < 0);
    assert_int_equal(request_add_token(r, 41, 1 + 7 * NS_PER_MS), STREAM_MORE);
    assert_int_equal(request_add_token(r, 42, 1 + 9 * NS_PER_MS), STREAM_MORE);
    assert_int_equal(request_add_token(r, 43, 1 + 9 * NS_PER_MS), STREAM_BAD_TOKEN);
    assert_true(request_ttft_ms(r) > 4.999 && request_ttft_ms(r) < 5.001);
    assert_true(request_tpot_ms(r) > 1.999 && request_tpot_ms(r) < 2.001);
    assert_int_equal(r->n_output, 3);
    request_table_fini(&t);
}

/* Rewound to any token, the pending text is what came with the tokens from there on. */
static void test_rewind(void **state)
{
    (void)state;
    const struct str stops[] = {str_of("dz")};
    const struct request_lists one_stop = {.stops = {.data = stops, .n = 1}};
    const struct request_params params = {.max_tokens = 64};
    const struct request_id id = id_of(1);
    static const char words[] = "a bad \xf0\x9f\x98\x80 dad";
    uint32_t ids[64], *prompt = calloc(1, sizeof *prompt);
    struct request_table t;
    struct request *r;
    char whole[256];

    assert_int_equal(request_table_init(&t, &text, N_SLOTS), 0);
    assert_int_equal(request_create(&t, &id, &params, &one_stop, prompt, 1, 0, &r),
                     REQUEST_CREATED);
    int64_t n = tokenizer_encode(text.tokenizer, words, strlen(words), 0, ids, 64);

    assert_true(n > 3);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(request_add_token(r, ids[i], 1), STREAM_MORE);
    /* The last "d" may begin the stop string: held back. */
    assert_int_equal(r->stream.n_pending, strlen(words) - 1);
    memcpy(whole, r->stream.pending, r->stream.n_pending);
    size_t before = 0;

    for (uint32_t from = 0; from <= r->n_output; from++) {
        assert_int_equal(request_rewind(r, from), 0);
        assert_int_equal(r->stream.n_pending, strlen(words) - 1 - before);
        assert_memory_equal(r->stream.pending, whole + before, r->stream.n_pending);
        before += from < r->n_output ? r->text_bytes[from] : 0;
    }
    finish(&t, r, 5);
    assert_int_equal(request_rewind(r, r->n_output), 0);
    assert_int_equal(r->stream.n_pending, 1); /* the end gives the held one out */
    assert_int_equal(r->stream.pending[0], 'd');
    request_table_fini(&t);
}

static int open_text(void **state)
{
    static char path[] = "/tmp/omni-requests-XXXXXX";
    struct model_random_options o = model_random_defaults();
    struct error err;

    (void)state;
    close(mkstemp(path));
    o.n_layers = 1;
    if (model_random_write(path, &o) != 0 || text_open(&text, path, 0, &err) != 0)
        return -1;
    return unlink(path);
}

static int close_text(void **state)
{
    (void)state;
    text_close(&text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_id_map_equals_model),
        cmocka_unit_test(test_slots_are_reused_oldest_result_first),
        cmocka_unit_test(test_output_is_bounded_and_timed),
        cmocka_unit_test(test_rewind),
    };

    return cmocka_run_group_tests(tests, open_text, close_text);
}
