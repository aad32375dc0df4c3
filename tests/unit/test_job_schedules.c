/* The job protocol under every schedule, within a bound.
 *
 * The real engine and worker code run as two threads of which one at a time may go on; at every
 * labelled step (fault.h) a scheduler decides who is next, or kills one of them there, whose
 * successor then attaches.  All schedules with at most switches_max forced switches and one kill
 * are run, by depth-first search over the decisions.  Checked in each: every answer belongs to its
 * question; a worker writes only while its job is POSTED (nothing is reused early); and the two
 * always come to the end (no job and no announcement is lost). */
#include "shm_test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/invariant.h"
#include "common/shm/job_engine.h"
#include "common/shm/job_worker.h"

enum { STEPS_MAX = 400, ENGINE = 0, WORKER = 1 };

static unsigned switches_max = 1; /* of the command line: 2 takes a minute */

static const struct job_table_config config = {
    .n_slots = 1, .n_q_max = 1, .element = JOB_ELEMENT_F32};

struct actor {
    pthread_t thread;
    bool running;  /* has the turn */
    bool finished; /* its body has ended */
    bool killed;
    bool idle;     /* has nothing to do until the other has done something */
    bool was_idle; /* its last step ended so */
    struct engine_page page;
    struct job_table table;
};

/* One decision: which of the choices that were open was taken. */
struct decision {
    uint8_t n_choices, taken;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static struct actor actors[2];
static _Thread_local struct actor *self;
static struct kv_geometry geometry;
static struct decision decisions[STEPS_MAX];
static unsigned n_decisions, n_replay;
static bool cancel_first; /* scenario: the engine gives the first job up */
static uint64_t n_schedules, n_kills, n_reclaims;

/* Gives the turn back and waits for the next; a killed actor ends here and leaves all as it is. */
static void step(bool idle)
{
    pthread_mutex_lock(&lock);
    self->idle = idle;
    self->running = false;
    pthread_cond_broadcast(&turn);
    while (!self->running)
        pthread_cond_wait(&turn, &lock);
    pthread_mutex_unlock(&lock);
    if (self->killed)
        pthread_exit(NULL);
}

static void on_fault_point(const char *label)
{
    if (self != NULL && strcmp(label, "job_engine.reclaimed") != 0) /* under the role lock */
        step(false);
}

static void compute(struct job_table *t, const struct job *job)
{
    const float *q = job_table_q(t, job->slot);
    float *out = job_table_out(t, job->slot);

    invariant(job_worker_still_posted(t, job));
    out[0] = q[0] * 3;
    step(false);
    invariant(job_worker_still_posted(t, job)); /* the slot cannot have been given away meanwhile */
    out[1] = q[0] + (float)job->generation;
}

static void *worker_body(void *arg)
{
    struct job_table *t = &actors[WORKER].table;
    struct engine_page *page = &actors[WORKER].page;
    struct error err;
    struct job job;

    self = arg;
    step(false);
    while (engine_page_attach(page, shm_test_dir, 0, &err) != 0 ||
           job_table_attach(t, shm_test_dir, 0, 0, &page->shared->done_bell, &err) != 0)
        invariant(false);
    for (;;) {
        bool acked = job_worker_ack_epoch(t);
        if (job_worker_next(t, &job)) {
            compute(t, &job);
            job_worker_complete(t, &job, 1, 2, 0);
        } else if (!acked) {
            step(true);
        }
    }
    return NULL;
}

static void ask(struct job_table *t, float question, uint32_t *generation)
{
    struct job_desc d = {.n_q = 1, .ctx_len = 1};
    int rc;

    ((float *)job_table_q(t, 0))[0] = question;
    rc = job_engine_post(t, 0, &d, generation);
    invariant(rc == 0);
    job_engine_flush(t);
}

static bool taken(struct job_table *t, uint32_t generation, float question)
{
    const float *out = job_table_out(t, 0);
    uint32_t slot;

    /* Only announcements are acted on: a lost one would be a job that never comes back. */
    if (job_engine_poll(t, &slot, 1) == 0 || job_engine_take(t, 0, generation, NULL) != JOB_OK)
        return false;
    invariant(out[0] == question * 3 && out[1] == question + (float)generation);
    return true;
}

static bool reclaimed(struct job_table *t)
{
    if (job_engine_reclaim_begin(t) != 0)
        return false;
    job_engine_reclaim(t, 0);
    job_engine_reclaim_end(t);
    n_reclaims++;
    return true;
}

static void *engine_body(void *arg)
{
    struct actor *a = arg;
    struct job_table *t = &a->table;
    static float question;
    uint32_t generation;
    struct error err;
    int rc;

    self = a;
    step(false);
    rc = engine_page_open(&a->page, shm_test_dir, 0, &err);
    invariant(rc == 0);
    rc = job_table_open(t, shm_test_dir, 0, 0, &config, &geometry, SEGMENT_ANY_NODE, &err);
    invariant(rc == 0 && !t->created);
    job_engine_raise_epoch(t, job_engine_last_epoch(t) + 1);
    while (!job_engine_epoch_settled(t))
        step(true);
    job_engine_free_all(t);
    for (int i = 0; i < 2; i++) {
        question += 1;
        ask(t, question, &generation);
        while (!taken(t, generation, question)) {
            step(true);
            if (i == 0 && cancel_first && reclaimed(t))
                break;
        }
    }
    pthread_mutex_lock(&lock);
    a->finished = true;
    a->running = false;
    pthread_cond_broadcast(&turn);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* ---- scheduler ------------------------------------------------------------------------------- */

static void start(unsigned who)
{
    struct actor *a = &actors[who];

    *a = (struct actor){.running = true, .page.segment.fd = -1, .table.segment.fd = -1};
    invariant(pthread_create(&a->thread, NULL, who == ENGINE ? engine_body : worker_body, a) == 0);
    pthread_mutex_lock(&lock);
    while (a->running)
        pthread_cond_wait(&turn, &lock);
    pthread_mutex_unlock(&lock);
}

static void go_on(struct actor *a)
{
    pthread_mutex_lock(&lock);
    a->running = true;
    pthread_cond_broadcast(&turn);
    while (a->running && !a->killed)
        pthread_cond_wait(&turn, &lock);
    pthread_mutex_unlock(&lock);
}

/* What the kernel does to a killed process: its files are closed, its memory stays as it was. */
static void reap(struct actor *a)
{
    pthread_join(a->thread, NULL);
    free(a->table.started);
    segment_detach(&a->table.segment);
    segment_detach(&a->page.segment);
}

static void end(struct actor *a)
{
    if (!a->finished) {
        a->killed = true;
        go_on(a);
    }
    reap(a);
}

static unsigned decide(unsigned n_choices)
{
    struct decision *d = &decisions[n_decisions];

    invariant(n_decisions < STEPS_MAX);
    if (n_decisions >= n_replay)
        *d = (struct decision){.n_choices = (uint8_t)n_choices};
    invariant(d->n_choices == n_choices); /* the replay is deterministic */
    return decisions[n_decisions++].taken;
}

/* Runs one schedule: the recorded decisions, then the first choice at each step. */
static void run_schedule(void)
{
    unsigned current = ENGINE, switches = 0, kills = 0;

    n_decisions = 0;
    start(ENGINE);
    start(WORKER);
    while (!actors[ENGINE].finished) {
        unsigned other = 1 - current, n = 0, choice;
        enum { GO_ON, SWITCH, KILL } choices[3];

        if (!actors[current].idle)
            choices[n++] = GO_ON;
        if (!actors[other].idle && (actors[current].idle || switches < switches_max))
            choices[n++] = SWITCH;
        invariant(n > 0); /* both wait for each other: something was lost */
        if (kills == 0)
            choices[n++] = KILL;
        choice = choices[n > 1 ? decide(n) : 0];
        if (choice == KILL) {
            end(&actors[current]);
            start(current);
            kills++;
            n_kills++;
        } else {
            if (choice == SWITCH) {
                switches += !actors[current].idle;
                current = other;
            }
            go_on(&actors[current]);
        }
        if (!actors[current].idle || !actors[current].was_idle)
            actors[1 - current].idle = false; /* something may have changed for it */
        actors[current].was_idle = actors[current].idle;
    }
    end(&actors[WORKER]);
    end(&actors[ENGINE]);
    n_schedules++;
}

/* The next schedule in depth-first order; false: all were run. */
static bool next_schedule(void)
{
    while (n_decisions > 0) {
        struct decision *d = &decisions[n_decisions - 1];
        if (d->taken + 1 < d->n_choices) {
            d->taken++;
            n_replay = n_decisions;
            return true;
        }
        n_decisions--;
    }
    return false;
}

static void create_segments(void)
{
    struct engine_page page;
    struct job_table table;
    struct error err;

    shm_test_geometry(&geometry, 1);
    assert_int_equal(engine_page_open(&page, shm_test_dir, 0, &err), 0);
    assert_int_equal(
        job_table_open(&table, shm_test_dir, 0, 0, &config, &geometry, SEGMENT_ANY_NODE, &err), 0);
    job_table_detach(&table);
    engine_page_detach(&page);
}

static void run_all(bool cancel)
{
    cancel_first = cancel;
    n_schedules = n_kills = n_reclaims = n_replay = 0;
    create_segments();
    fault_set_hook(on_fault_point);
    do
        run_schedule();
    while (next_schedule());
    fault_set_hook(NULL);
    print_message("schedules=%llu kills=%llu reclaims=%llu\n", (unsigned long long)n_schedules,
                  (unsigned long long)n_kills, (unsigned long long)n_reclaims);
    assert_true(n_schedules > 500 && n_kills > 400);
    assert_true(n_reclaims > 0 || !cancel);
}

static void every_schedule_ends_with_the_right_answers(void **state)
{
    (void)state;
    run_all(false);
}

static void every_schedule_with_a_cancelled_job(void **state)
{
    (void)state;
    run_all(true);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(every_schedule_ends_with_the_right_answers),
        TEST(every_schedule_with_a_cancelled_job),
    };

    if (argc > 1)
        switches_max = (unsigned)atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
