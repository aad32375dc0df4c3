#include "router/status.h"

#include <jansson.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "router/dispatch.h"

static json_t *worker_json(const struct engine_link *e, uint32_t w)
{
    const struct engine_worker *worker = &e->workers[w];

    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "index", (json_int_t)w,
                     "state", worker_health_name(worker->health), "pid", (json_int_t)worker->pid,
                     "free_blocks", (json_int_t)worker->blocks_free, "total_blocks",
                     (json_int_t)worker->blocks_total, "resident", (json_int_t)worker->resident,
                     "jobs", (json_int_t)worker->jobs, "arena_bytes",
                     (json_int_t)worker->arena_bytes, "huge_bytes", (json_int_t)worker->huge_bytes);
}

static json_t *engine_json(const struct engine_link *e)
{
    json_t *workers = json_array();

    for (uint32_t w = 0; w < e->n_workers; w++)
        json_array_append_new(workers, worker_json(e, w));
    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:o}",
                     "index", (json_int_t)e->index, "state", engine_state_name(e->state), "pid",
                     (json_int_t)e->pid, "epoch", (json_int_t)e->epoch, "outstanding",
                     (json_int_t)e->n_outstanding, "running", (json_int_t)e->running, "waiting",
                     (json_int_t)e->waiting, "offloaded", (json_int_t)e->offloaded, "sweeps",
                     (json_int_t)e->sweeps, "kv", "total", (json_int_t)e->kv_blocks_total, "free",
                     (json_int_t)e->kv_blocks_free, "block_tokens", (json_int_t)e->block_tokens,
                     "workers", workers);
}

static void add_process(json_t *all, const char *program, uint32_t index, const char *state,
                        uint32_t pid)
{
    json_array_append_new(all,
                          json_pack("{s:s, s:I, s:s, s:I}", "program", program, "index",
                                    (json_int_t)index, "state", state, "pid", (json_int_t)pid));
}

/* A worker serves all engines: the first one that knows its process tells. */
static const struct engine_worker *find_worker(const struct router *router, uint32_t index)
{
    const struct engine_worker *known = NULL;

    for (uint32_t i = 0; i < router->n_engines; i++) {
        const struct engine_link *e = &router->engines[i];

        if (index >= e->n_workers)
            continue;
        if (e->workers[index].pid != 0)
            return &e->workers[index];
        known = known ? known : &e->workers[index];
    }
    return known;
}

/* Programs, as their statistics pages name them.  Workers are not known before some engine is. */
static json_t *processes_json(const struct router *router)
{
    json_t *all = json_array();
    const struct engine_worker *worker;

    add_process(all, "router", 0, "ready", (uint32_t)getpid());
    for (uint32_t i = 0; i < router->n_engines; i++) {
        const struct engine_link *e = &router->engines[i];
        const bool there = e->state == ENGINE_READY || e->state == ENGINE_REFUSED;

        add_process(all, "gpu-engine", i, engine_state_name(e->state), there ? e->pid : 0);
    }
    for (uint32_t w = 0; (worker = find_worker(router, w)) != NULL; w++)
        add_process(all, "cpu-attnd", w, worker_health_name(worker->health), worker->pid);
    return all;
}

static bool engine_is_complete(const struct engine_link *e)
{
    if (e->state != ENGINE_READY)
        return false;
    for (uint32_t w = 0; w < e->n_workers; w++) {
        if (e->workers[w].health != WORKER_READY)
            return false;
    }
    return true;
}

static json_t *engines_json(const struct router *router, bool *ready)
{
    json_t *engines = json_array();

    *ready = true;
    for (uint32_t i = 0; i < router->n_engines; i++) {
        json_array_append_new(engines, engine_json(&router->engines[i]));
        *ready = *ready && engine_is_complete(&router->engines[i]);
    }
    return engines;
}

static json_int_t ms_since(uint64_t then_ns, uint64_t now_ns)
{
    return (json_int_t)(now_ns > then_ns ? (now_ns - then_ns) / NS_PER_MS : 0);
}

/* How long the first of a queue has waited; 0: the queue is empty. */
static json_int_t oldest_ms(const struct router *router, uint32_t class_idx, uint64_t now_ns)
{
    json_int_t oldest = 0;

    for (uint32_t t = 0; t < router->tenants.n; t++) {
        const uint32_t item = class_queue_head(&router->queue, class_idx, t);
        const json_int_t ms = item == CLASS_QUEUE_NONE
                                  ? 0
                                  : ms_since(router->requests.requests[item].arrival_ns, now_ns);

        oldest = ms > oldest ? ms : oldest;
    }
    return oldest;
}

static json_t *queues_json(const struct router *router, uint64_t now_ns)
{
    json_t *queues = json_array();

    for (uint32_t c = 0; c < router->n_classes; c++)
        json_array_append_new(queues,
                              json_pack("{s:s, s:I, s:I, s:I}", "class", router->class_names[c],
                                        "length", (json_int_t)class_queue_length(&router->queue, c),
                                        "max", (json_int_t)router->queue.lists[c].length_max,
                                        "oldest_ms", oldest_ms(router, c, now_ns)));
    return queues;
}

/* Whoever waits in a queue waits for an engine while this is not 0. */
static json_int_t no_engine_ms(const struct router *router, uint64_t now_ns)
{
    for (uint32_t i = 0; i < router->n_engines; i++) {
        if (router->engines[i].state == ENGINE_READY)
            return 0;
    }
    return ms_since(router->served_ns, now_ns);
}

static json_t *requests_json(const struct router *router)
{
    json_t *states = json_object();

    for (enum request_state s = REQUEST_QUEUED; s < N_REQUEST_STATES; s++)
        json_object_set_new(states, request_state_name(s),
                            json_integer(router->requests.n_in_state[s]));
    return states;
}

static json_t *counters_json(const struct router *router)
{
    json_t *counters = json_object();

    for (enum counter i = 0; i < N_COUNTERS; i++)
        json_object_set_new(counters, counter_name(i),
                            json_integer((json_int_t)router->counters.values[i]));
    return counters;
}

/* Of those that were admitted and have ended, and of all that asked and were not cancelled; absent while
 * there is none. */
static void add_attainment(json_t *counts, const uint64_t *n)
{
    const double met = (double)n[CLASS_SLO_MET], ended = met + (double)n[CLASS_SLO_MISSED];
    const double offered = ended + (double)n[CLASS_REFUSED];

    if (ended > 0)
        json_object_set_new(counts, "attainment_pct", json_real(100 * met / ended));
    if (offered > 0)
        json_object_set_new(counts, "attainment_offered_pct", json_real(100 * met / offered));
}

static json_t *classes_json(const struct router *router)
{
    json_t *classes = json_object();

    for (uint32_t c = 0; c < router->n_classes; c++) {
        json_t *counts = json_object();

        for (enum class_counter i = 0; i < N_CLASS_COUNTERS; i++)
            json_object_set_new(counts, class_counter_name(i),
                                json_integer((json_int_t)router->counters.of_class[c][i]));
        if (!dispatch_class_waits(c))
            add_attainment(counts, router->counters.of_class[c]);
        json_object_set_new(classes, router->class_names[c], counts);
    }
    return classes;
}

char *status_json(const struct router *router, uint64_t now_ns)
{
    const double uptime_s = (double)(now_ns - router->started_ns) / (double)NS_PER_S;
    bool ready;
    json_t *engines = engines_json(router, &ready);
    json_t *all = json_pack(
        "{s:b, s:s, s:I, s:{s:I, s:I, s:f}, s:{s:s, s:s, s:I}, s:o, s:{s:I, s:I}, s:o, s:o, s:o, "
        "s:o, s:o}",
        "ready", ready, "group", router->config.group_name, "no_engine_ms",
        no_engine_ms(router, now_ns), "router", "pid", (json_int_t)getpid(), "epoch",
        (json_int_t)router->epoch, "uptime_s", uptime_s, "model", "name", router->text.model_name,
        "path", router->text.model_path, "n_ctx", (json_int_t)router->text.n_ctx, "processes",
        processes_json(router), "sessions", "n", (json_int_t)router->sessions.n, "max",
        (json_int_t)router->sessions.config.sessions_max, "queues", queues_json(router, now_ns),
        "requests", requests_json(router), "engines", engines, "counters", counters_json(router),
        "classes", classes_json(router));
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;

    json_decref(all);
    return text;
}
