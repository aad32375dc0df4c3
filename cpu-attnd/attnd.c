#include "cpu-attnd/attnd.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/topology/claim.h"

enum {
    LOOK_MS = 100, /* for segments that appear or are replaced */
    BEATS_PER_LATE = 4,
};

/* clang-format off */
#define ROW(NAME, name, kind, doc) {name, STATS_##kind, doc},
static const struct stats_row stats_rows[] = {ATTND_STATS(ROW)};
/* clang-format on */

/* ---- Start ----------------------------------------------------------------------------------- */

static int plan_topology(struct attnd *a, struct error *err)
{
    struct topology_request request = topology_request_of(a->config);
    int rc = topology_load(&a->topology, NULL, err);

    if (rc == 0)
        rc = topology_plan(&a->topology, &request, &a->plan, err);
    if (rc == 0)
        a->n_claimed = claim_place(&a->plan.worker[a->index], "worker.cpus");
    return rc;
}

static int start_team(struct attnd *a, struct error *err)
{
    const struct topology_place *place = &a->plan.worker[a->index];
    int cpus[TOPOLOGY_CPUS_MAX];

    a->n_threads = place->n_threads;
    for (uint32_t i = 0; i < a->n_threads && i < TOPOLOGY_CPUS_MAX; i++)
        cpus[i] = cpu_set_nth(&place->cpus, i % cpu_set_count(&place->cpus));
    if (!place->exclusive && setpriority(PRIO_PROCESS, 0, (int)a->config->worker_nice) != 0)
        log_warn("nice", "errno=%d", errno);
    int rc = team_create(&a->team, a->n_threads, place->pinned ? cpus : NULL,
                         place->exclusive ? a->config->worker_spin_us : 0);
    return rc == 0 ? 0 : error_set(err, rc, "worker.threads = %u: %s", a->n_threads, strerror(-rc));
}

static int init_order(struct attnd *a)
{
    uint32_t shares[ATTND_ENGINES_MAX];

    for (uint32_t i = 0; i < a->n_links; i++)
        shares[i] = config_engine_share(a->config, i);
    return job_order_init_shared(&a->order, a->n_links * a->config->worker_slots, shares,
                                 a->n_links);
}

static int open_pages(struct attnd *a, struct error *err)
{
    int rc = segment_dir_resolve(a->config->shm_dir, a->config->group_name, a->dir, sizeof a->dir);

    if (rc != 0)
        return error_set(err, rc, "shm.dir is too long");
    rc = segment_dir_prepare(a->dir, err);
    if (rc == 0)
        rc = stats_create(&a->stats, a->dir, "cpu-attnd", a->index, stats_rows, ATTND_N_STATS, err);
    return rc;
}

static void set_gauges(struct attnd *a)
{
    const struct topology_place *place = &a->plan.worker[a->index];

    stats_set(&a->stats, ATTND_STAT_THREADS, a->n_threads);
    stats_set(&a->stats, ATTND_STAT_CPUS_OWN, place->exclusive ? cpu_set_count(&place->cpus) : 0);
    stats_set(&a->stats, ATTND_STAT_CPUS_CLAIMED, a->n_claimed);
}

int attnd_init(struct attnd *a, const struct omni_config *config, uint32_t index, struct error *err)
{
    memset(a, 0, sizeof *a);
    a->stats = STATS_NONE;
    a->config = config;
    a->index = index;
    if (index >= config->group_n_workers)
        return error_set(err, -EINVAL, "--index %u: group.n_workers is %u", index,
                         config->group_n_workers);
    a->n_links = config->group_n_engines;
    int rc = isa_detect(&a->isa);
    if (rc != 0)
        return isa_explain(rc, err);
    rc = plan_topology(a, err);
    if (rc == 0)
        rc = start_team(a, err);
    if (rc == 0)
        rc = open_pages(a, err);
    if (rc == 0 && init_order(a) != 0)
        rc = error_set(err, -ENOMEM, "no memory for %u slots", config->worker_slots);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; i < a->n_links; i++)
        link_init(&a->links[i], a->dir, i, index);
    set_gauges(a);
    log_info("worker_ready", "index=%u isa=%s threads=%u pinned=%d node=%d", index,
             isa_name(a->isa), a->n_threads, a->plan.worker[index].pinned,
             a->plan.worker[index].node);
    return 0;
}

/* ---- Attachments ----------------------------------------------------------------------------- */

static void look_at_link(struct attnd *a, uint32_t i)
{
    struct link *l = &a->links[i];

    if (l->attached && !link_is_current(l)) {
        log_info("segments_replaced", "engine=%u", l->engine_idx);
        job_order_drop_link(&a->order, i);
        link_detach(l);
    }
    if (!l->attached && link_attach(l, a->isa, a->n_threads) == 0)
        stats_add(&a->stats, ATTND_STAT_ATTACHES, 1);
}

static void look_at_links(struct attnd *a, uint64_t now)
{
    uint32_t n_attached = 0;

    if (now < a->next_look_ns)
        return;
    a->next_look_ns = now + LOOK_MS * NS_PER_MS;
    for (uint32_t i = 0; i < a->n_links; i++) {
        look_at_link(a, i);
        n_attached += a->links[i].attached;
        if (a->links[i].attached)
            stats_set(&a->stats, ATTND_STAT_BANDWIDTH, (uint64_t)(a->links[i].bytes_per_ns * 1e9));
    }
    stats_set(&a->stats, ATTND_STAT_ENGINES, n_attached);
}

/* Between jobs no thread touches one: a raised epoch can be acknowledged at once. */
static void acknowledge_epochs(struct attnd *a)
{
    for (uint32_t i = 0; i < a->n_links; i++) {
        struct link *l = &a->links[i];

        if (!l->attached || !job_worker_epoch_raised(&l->table))
            continue;
        if (!link_is_current(l)) { /* acknowledged by attaching to what the new engine made */
            a->next_look_ns = 0;
            continue;
        }
        job_order_drop_link(&a->order, i);
        if (job_worker_ack_epoch(&l->table)) {
            stats_add(&a->stats, ATTND_STAT_EPOCHS, 1);
            log_info("epoch", "engine=%u epoch=%u", l->engine_idx, l->table.epoch);
        }
    }
}

/* Between jobs only: a heartbeat from elsewhere would show a worker that hangs in a job as alive.
 * So a job that takes longer than worker.late_ms (200) makes the worker late: it gets nothing new
 * until the next beat.  One over worker.kill_ms (10 s) has it killed, and the next worker runs it
 * again. The largest jobs stay below: one layer of Llama-3-8B at 128k tokens reads 512 MiB of KV,
 * 35 ms at 15 GB/s, and worker.n_q_max (4) queries cost at most four times that. */
static void beat(struct attnd *a, uint64_t now)
{
    if (now < a->next_beat_ns)
        return;
    a->next_beat_ns = now + a->config->worker_late_ms * NS_PER_MS / BEATS_PER_LATE;
    for (uint32_t i = 0; i < a->n_links; i++) {
        if (a->links[i].attached)
            job_worker_beat(&a->links[i].table, now);
    }
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

static void take_jobs(struct attnd *a)
{
    struct job_order_item item;

    for (uint32_t i = 0; i < a->n_links; i++) {
        struct link *l = &a->links[i];

        item.link = i;
        while (l->attached && a->order.n < a->order.cap && job_worker_next(&l->table, &item.job)) {
            item.predicted_ns = link_predict_ns(l, &item.job);
            job_order_push(&a->order, &item);
            stats_add(&a->stats, ATTND_STAT_JOBS, 1);
        }
    }
    stats_set(&a->stats, ATTND_STAT_QUEUED, a->order.n);
}

static void sleep_until_job(struct attnd *a, uint64_t now)
{
    struct job_table *tables[ATTND_ENGINES_MAX];
    uint64_t spin_until = 0, until = a->next_beat_ns;
    uint32_t n = 0;

    for (uint32_t i = 0; i < a->n_links; i++) {
        if (a->links[i].attached)
            tables[n++] = &a->links[i].table;
    }
    if (n == 0)
        until = a->next_look_ns > now ? a->next_look_ns : now + LOOK_MS * NS_PER_MS;
    if (a->plan.worker[a->index].exclusive)
        spin_until = a->awake_ns + a->config->worker_spin_us * NS_PER_US;
    job_worker_wait(tables, n, spin_until, until);
    for (uint32_t i = 0; i < n; i++) {
        if (job_worker_roused(tables[i]))
            a->awake_ns = clock_now_ns();
    }
}

/* When the job must be done; never, if it is too late for that already. */
static uint64_t due_ns(const struct job_order_item *item, uint64_t now)
{
    uint64_t deadline = item->job.deadline_ns;

    return deadline >= now + item->predicted_ns ? deadline : UINT64_MAX;
}

/* The job and those after it that can be computed with it, in the order that they are due. */
static void run_jobs(struct attnd *a, struct job_order_item *item, uint64_t now)
{
    uint32_t link = item->link;
    uint64_t until = UINT64_MAX;

    do {
        uint64_t due = due_ns(item, now);

        until = due < until ? due : until;
        if (item->link != link ||
            batch_add(&a->links[link], &item->job, now, until) == BATCH_APART) {
            job_order_push(&a->order, item); /* its turn is next */
            break;
        }
    } while (job_order_pop(&a->order, now, item));
    stats_add(&a->stats, ATTND_STAT_RUNS, a->links[link].batch.n > 0);
    stats_add(&a->stats, ATTND_STAT_SHARED, a->links[link].batch.tokens_shared);
    batch_run(&a->links[link], a->team);
    a->awake_ns = clock_now_ns();
    job_order_charge(&a->order, link, now, a->awake_ns);
}

void attnd_tick(struct attnd *a)
{
    struct job_order_item item;
    uint64_t now = clock_now_ns();

    look_at_links(a, now);
    acknowledge_epochs(a);
    beat(a, now);
    take_jobs(a);
    if (job_order_pop(&a->order, now, &item))
        run_jobs(a, &item, now);
    else
        sleep_until_job(a, now);
}

void attnd_shutdown(struct attnd *a)
{
    for (uint32_t i = 0; i < a->n_links; i++)
        link_detach(&a->links[i]);
    job_order_fini(&a->order);
    team_destroy(a->team);
    stats_detach(&a->stats);
}
