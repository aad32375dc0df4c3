/* Sequences: checked transitions, what is asked of them, order of arrival; and the control thread
 * beside the engine thread (to be run under tsan too). */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "gpu-engine/sequence.h"

enum { N = 6, N_REQUESTS = 3000 };

static struct request_id id_of(uint32_t i)
{
    struct request_id id = {.bytes = {0}};

    memcpy(id.bytes, &i, sizeof i);
    return id;
}

static void open_table(struct sequence_table *t)
{
    assert_int_equal(sequence_table_init(t, N, 1, 4, 64), 0);
}

static struct sequence *arrive(struct sequence_table *t, uint32_t i)
{
    struct sequence *s = sequence_take(t);

    if (s == NULL)
        return NULL;
    s->id = id_of(i);
    s->n_prompt = s->n_tokens = 1;
    s->tokens[0] = i;
    sequence_arrive(t, s);
    return s;
}

/* ---- Transitions ----------------------------------------------------------------------------- */

/* As drawn in sequence.h; of the changes that sequence_set_state makes. */
static bool may_follow(enum sequence_state from, enum sequence_state to)
{
    static const enum sequence_state pairs[][2] = {
        {SEQUENCE_FREE, SEQUENCE_ARRIVED},       {SEQUENCE_ARRIVED, SEQUENCE_WAITING},
        {SEQUENCE_WAITING, SEQUENCE_COMPUTING},  {SEQUENCE_WAITING, SEQUENCE_ENDED},
        {SEQUENCE_COMPUTING, SEQUENCE_COPY_OUT}, {SEQUENCE_COMPUTING, SEQUENCE_WAITING},
        {SEQUENCE_COMPUTING, SEQUENCE_ENDED},    {SEQUENCE_COPY_OUT, SEQUENCE_RESIDENT},
        {SEQUENCE_COPY_OUT, SEQUENCE_ENDED},     {SEQUENCE_RESIDENT, SEQUENCE_COPY_IN},
        {SEQUENCE_RESIDENT, SEQUENCE_ENDED},     {SEQUENCE_COPY_IN, SEQUENCE_COMPUTING},
        {SEQUENCE_COPY_IN, SEQUENCE_ENDED},      {SEQUENCE_ENDED, SEQUENCE_FREE}};

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i][0] == from && pairs[i][1] == to)
            return true;
    }
    return false;
}

/* Does the change abort?  In a child, with its complaint thrown away. */
static bool aborts(struct sequence_table *t, enum sequence_state from, enum sequence_state to)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on */
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(2);
        t->all[0].state = from;
        sequence_set_state(t, &t->all[0], to);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static void test_every_transition_is_checked(void **state)
{
    (void)state;
    struct sequence_table t;

    open_table(&t);
    for (int from = 0; from < SEQUENCE_STATES; from++) {
        for (int to = 0; to < SEQUENCE_STATES; to++)
            assert_int_equal(aborts(&t, from, to), !may_follow(from, to));
    }
    sequence_table_fini(&t);
}

static void test_states_are_counted(void **state)
{
    (void)state;
    static const enum sequence_state life[] = {
        SEQUENCE_COMPUTING, SEQUENCE_COPY_OUT, SEQUENCE_RESIDENT,  SEQUENCE_COPY_IN,
        SEQUENCE_COMPUTING, SEQUENCE_WAITING,  SEQUENCE_COMPUTING, SEQUENCE_ENDED};
    struct sequence_table t;

    open_table(&t);
    arrive(&t, 1);
    struct sequence *s = sequence_next_arrival(&t);
    assert_int_equal(t.n_in_state[SEQUENCE_WAITING], 1);
    for (size_t i = 0; i < sizeof life / sizeof *life; i++) {
        sequence_set_state(&t, s, life[i]);
        for (int k = SEQUENCE_WAITING; k < SEQUENCE_STATES; k++)
            assert_int_equal(t.n_in_state[k], k == (int)life[i]);
    }
    assert_int_equal(t.n_free, N - 1);
    sequence_give_back(&t, s);
    assert_int_equal(t.n_in_state[SEQUENCE_ENDED], 0);
    assert_int_equal(t.n_free, N);
    sequence_table_fini(&t);
}

/* ---- Arrivals -------------------------------------------------------------------------------- */

static void test_arrivals_keep_their_order(void **state)
{
    (void)state;
    struct sequence_table t;
    uint64_t order = 0;

    open_table(&t);
    assert_null(sequence_next_arrival(&t));
    for (uint32_t i = 0; i < N; i++)
        assert_non_null(arrive(&t, i));
    assert_null(sequence_take(&t));
    for (uint32_t i = 0; i < N; i++) {
        struct sequence *s = sequence_next_arrival(&t);
        assert_int_equal(s->tokens[0], i);
        assert_true(s->order > order);
        order = s->order;
    }
    assert_null(sequence_next_arrival(&t));
    sequence_table_fini(&t);
}

static void test_a_forgotten_one_is_free_again_and_clean(void **state)
{
    (void)state;
    struct sequence_table t;

    open_table(&t);
    struct sequence *s = sequence_take(&t);
    s->n_kv = 17;
    s->slot = 3;
    sequence_forget(&t, s);
    assert_int_equal(t.n_free, N);
    assert_ptr_equal(sequence_take(&t), s);
    assert_int_equal(s->n_kv, 0);
    assert_int_equal(s->slot, SEQUENCE_NONE);
    assert_non_null(s->tokens);
    sequence_table_fini(&t);
}

/* ---- What is asked --------------------------------------------------------------------------- */

static void test_the_highest_ask_wins(void **state)
{
    (void)state;
    const struct request_id id = id_of(4), unknown = id_of(5);
    struct sequence_table t;

    open_table(&t);
    struct sequence *s = arrive(&t, 4);
    assert_int_equal(s->ask, SEQUENCE_GO_ON);
    assert_int_equal(sequence_ask(&t, &unknown, SEQUENCE_ASK_STOP), -ENOENT);
    assert_int_equal(sequence_ask(&t, &id, SEQUENCE_ASK_CANCEL), 0);
    assert_int_equal(sequence_ask(&t, &id, SEQUENCE_ASK_STOP), 0);
    assert_int_equal(s->ask, SEQUENCE_ASK_CANCEL);
    sequence_table_fini(&t);
}

static void test_nothing_is_asked_of_the_next_in_the_same_place(void **state)
{
    (void)state;
    const struct request_id id = id_of(4);
    struct sequence_table t;

    open_table(&t);
    arrive(&t, 4);
    struct sequence *s = sequence_next_arrival(&t);
    sequence_ask_all(&t, SEQUENCE_ASK_STOP);
    assert_int_equal(s->ask, SEQUENCE_ASK_STOP);
    sequence_set_state(&t, s, SEQUENCE_ENDED);
    sequence_give_back(&t, s);
    assert_int_equal(sequence_ask(&t, &id, SEQUENCE_ASK_CANCEL), -ENOENT);
    assert_ptr_equal(arrive(&t, 5), s);
    assert_int_equal(s->ask, SEQUENCE_GO_ON);
    sequence_table_fini(&t);
}

/* ---- Two threads ----------------------------------------------------------------------------- */

static void *control_main(void *table)
{
    struct sequence_table *t = table;

    for (uint32_t i = 0; i < N_REQUESTS;) {
        const struct request_id id = id_of(i), before = id_of(i - 2);

        if (arrive(t, i) == NULL) {
            sched_yield();
            continue;
        }
        if (i % 3 == 0)
            sequence_ask(t, &id, SEQUENCE_ASK_STOP);
        if (i % 5 == 0)
            sequence_ask(t, &before, SEQUENCE_ASK_CANCEL);
        i++;
    }
    return NULL;
}

/* One round of the engine: arrivals, then a look at all places, as the engine's loops do it. */
static uint32_t engine_round(struct sequence_table *t, uint32_t *n_arrived)
{
    struct sequence *s;
    uint32_t n_ended = 0;

    while ((s = sequence_next_arrival(t)) != NULL) {
        assert_int_equal(s->tokens[0], *n_arrived);
        ++*n_arrived;
    }
    for (uint32_t i = 0; i < t->n; i++) {
        s = &t->all[i];
        if (s->state == SEQUENCE_COMPUTING && atomic_load(&s->ask) != SEQUENCE_GO_ON)
            sequence_set_state(t, s, SEQUENCE_ENDED);
        else if (s->state == SEQUENCE_COMPUTING && s->n_kv++ == 3)
            sequence_set_state(t, s, SEQUENCE_ENDED);
        else if (s->state == SEQUENCE_WAITING)
            sequence_set_state(t, s, SEQUENCE_COMPUTING);
        else if (s->state == SEQUENCE_ENDED) {
            sequence_give_back(t, s);
            n_ended++;
        }
    }
    return n_ended;
}

static void test_control_thread_beside_engine_thread(void **state)
{
    (void)state;
    struct sequence_table t;
    uint32_t n_arrived = 0, n_ended = 0;
    pthread_t control;

    open_table(&t);
    assert_int_equal(pthread_create(&control, NULL, control_main, &t), 0);
    while (n_ended < N_REQUESTS) {
        n_ended += engine_round(&t, &n_arrived);
        sched_yield();
    }
    pthread_join(control, NULL);
    assert_int_equal(n_arrived, N_REQUESTS);
    assert_int_equal(t.n_free, N);
    for (int i = SEQUENCE_WAITING; i < SEQUENCE_STATES; i++)
        assert_int_equal(t.n_in_state[i], 0);
    sequence_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_transition_is_checked),
        cmocka_unit_test(test_states_are_counted),
        cmocka_unit_test(test_arrivals_keep_their_order),
        cmocka_unit_test(test_a_forgotten_one_is_free_again_and_clean),
        cmocka_unit_test(test_the_highest_ask_wins),
        cmocka_unit_test(test_nothing_is_asked_of_the_next_in_the_same_place),
        cmocka_unit_test(test_control_thread_beside_engine_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
