#include "gpu-engine/sim/sim_cpu_engine.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/invariant.h"

enum { RUNNING_MAX = 1024, CHUNK_ROWS = 256, VALUE_BYTES = 2 };

static const double step_ns = 1e6; /* the host's part: scheduling, sampling */

struct running {
    uint32_t request;
    uint32_t n_todo; /* prompt tokens left to compute; 0: decodes */
    uint32_t n_kv, n_rest;
    uint32_t n_reserved; /* KV positions */
};

struct host {
    double bytes_per_ns, flops_per_ns;
    double kv_positions, n_reserved;
    struct running *running; /* oldest first */
    uint32_t n;
    uint64_t end_ns; /* of the step under way; 0: idle */
    uint32_t chunk;  /* rows of its prompt in that step */
    uint64_t busy_ns;
};

struct sim_cpu_engine {
    double params, weight_bytes, token_bytes, pair_flops;
    struct sim_cpu_sink sink;
    struct host *hosts;
    uint32_t n_hosts;
};

/* ---- Life ------------------------------------------------------------------------------------ */

static int init_host(struct sim_cpu_engine *x, struct host *h, double bytes_per_ns,
                     double flops_per_ns, double dram_bytes)
{
    h->bytes_per_ns = bytes_per_ns;
    h->flops_per_ns = flops_per_ns;
    h->kv_positions = fmax(dram_bytes - x->weight_bytes, 0) / x->token_bytes;
    h->running = calloc(RUNNING_MAX, sizeof *h->running);
    return h->running != NULL ? 0 : -ENOMEM;
}

static int init_hosts(struct sim_cpu_engine *x, const struct sim_machine *m)
{
    int rc;

    x->hosts = calloc(m->n_hosts + 1, sizeof *x->hosts);
    if (x->hosts == NULL)
        return -ENOMEM;
    x->n_hosts = m->n_hosts + 1;
    rc = init_host(x, &x->hosts[0], m->n_sockets * m->socket_bytes_per_ns,
                   m->n_sockets * m->socket_flops_per_ns, m->host_bytes);
    for (uint32_t i = 1; i < x->n_hosts && rc == 0; i++)
        rc = init_host(x, &x->hosts[i], m->remote_bytes_per_ns, m->socket_flops_per_ns,
                       m->remote_bytes);
    return rc;
}

int sim_cpu_engine_create(struct sim_cpu_engine **out, const struct sim_machine *machine,
                          const struct sim_model *model, enum kv_type type,
                          const struct sim_cpu_sink *sink)
{
    struct sim_cpu_engine *x = calloc(1, sizeof *x);

    if (x == NULL)
        return -ENOMEM;
    x->weight_bytes = sim_model_weight_bytes(model);
    x->params = x->weight_bytes / VALUE_BYTES;
    x->token_bytes = sim_model_token_bytes(model, type);
    x->pair_flops = 4.0 * model->n_heads * model->head_width * model->n_layers;
    x->sink = *sink;
    int rc = init_hosts(x, machine);
    if (rc != 0)
        sim_cpu_engine_destroy(x);
    else
        *out = x;
    return rc;
}

void sim_cpu_engine_destroy(struct sim_cpu_engine *x)
{
    if (x == NULL)
        return;
    for (uint32_t i = 0; i < x->n_hosts; i++)
        free(x->hosts[i].running);
    free(x->hosts);
    free(x);
}

/* ---- Taking ---------------------------------------------------------------------------------- */

static struct running *prompt_of(struct host *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        if (h->running[i].n_todo > 0)
            return &h->running[i];
    }
    return NULL;
}

static bool has_room(const struct host *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        if (h->running[i].n_todo > 0)
            return false;
    }
    return h->n < RUNNING_MAX && h->n_reserved < h->kv_positions;
}

uint32_t sim_cpu_engine_room(const struct sim_cpu_engine *x)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < x->n_hosts; i++)
        n += has_room(&x->hosts[i]);
    return n;
}

static double step_time(const struct sim_cpu_engine *x, const struct host *h,
                        const struct running *prompt)
{
    double ctx = 0, rows = h->chunk, pairs = 0;

    for (uint32_t i = 0; i < h->n; i++) {
        if (h->running[i].n_todo == 0) {
            ctx += h->running[i].n_kv + 1;
            rows++;
        }
    }
    if (prompt != NULL)
        pairs = h->chunk * (prompt->n_kv + (h->chunk + 1) / 2.0);
    return step_ns +
           fmax(x->weight_bytes / h->bytes_per_ns, 2 * x->params * rows / h->flops_per_ns) +
           ctx * x->token_bytes / h->bytes_per_ns + pairs * x->pair_flops / h->flops_per_ns;
}

static void begin_step(const struct sim_cpu_engine *x, struct host *h, uint64_t now_ns)
{
    struct running *prompt = prompt_of(h);

    h->end_ns = 0;
    if (h->n == 0)
        return;
    h->chunk = prompt == NULL ? 0 : prompt->n_todo < CHUNK_ROWS ? prompt->n_todo : CHUNK_ROWS;
    uint64_t ns = (uint64_t)step_time(x, h, prompt);
    h->busy_ns += ns;
    h->end_ns = now_ns + ns;
}

void sim_cpu_engine_take(struct sim_cpu_engine *x, uint64_t now_ns, const struct sim_cpu_request *q)
{
    uint32_t at = 0, known = q->lengths.n_in + q->n_done;

    while (at < x->n_hosts && !has_room(&x->hosts[at]))
        at++;
    invariant(at < x->n_hosts && q->n_done < q->lengths.n_out);
    struct host *h = &x->hosts[at];
    h->running[h->n] = (struct running){.request = q->request,
                                        .n_todo = q->computed ? 0 : known,
                                        .n_kv = q->computed ? known - 1 : 0,
                                        .n_rest = q->lengths.n_out - q->n_done,
                                        .n_reserved = q->lengths.n_in + q->lengths.n_out};
    h->n_reserved += h->running[h->n++].n_reserved;
    if (h->end_ns == 0)
        begin_step(x, h, now_ns);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

/* One row of the step, of a decode or the chunk; true: it made a token. */
static bool advance_one(struct host *h, struct running *q)
{
    if (q->n_todo == 0) {
        q->n_kv++;
        return true;
    }
    q->n_todo -= h->chunk;
    q->n_kv += h->chunk;
    h->chunk = 0; /* the oldest prompt had it */
    return q->n_todo == 0;
}

static void end_step(struct sim_cpu_engine *x, struct host *h)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < h->n; i++) {
        struct running *q = &h->running[i];
        bool token = advance_one(h, q);

        q->n_rest -= token;
        if (token)
            x->sink.token(x->sink.arg, q->request, h->end_ns, q->n_rest == 0);
        if (q->n_rest > 0)
            h->running[kept++] = *q;
        else
            h->n_reserved -= q->n_reserved;
    }
    h->n = kept;
}

uint64_t sim_cpu_engine_next_ns(const struct sim_cpu_engine *x)
{
    uint64_t next = SIM_CPU_ENGINE_NEVER;

    for (uint32_t i = 0; i < x->n_hosts; i++) {
        if (x->hosts[i].end_ns != 0 && x->hosts[i].end_ns < next)
            next = x->hosts[i].end_ns;
    }
    return next;
}

void sim_cpu_engine_advance(struct sim_cpu_engine *x, uint64_t now_ns)
{
    for (uint32_t i = 0; i < x->n_hosts; i++) {
        struct host *h = &x->hosts[i];

        while (h->end_ns != 0 && h->end_ns <= now_ns) {
            uint64_t end_ns = h->end_ns;
            end_step(x, h);
            begin_step(x, h, end_ns);
        }
    }
}

/* ---- Looking at it --------------------------------------------------------------------------- */

uint64_t sim_cpu_engine_busy_ns(const struct sim_cpu_engine *x)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < x->n_hosts; i++)
        sum += x->hosts[i].busy_ns;
    return sum;
}

uint32_t sim_cpu_engine_n_hosts(const struct sim_cpu_engine *x)
{
    return x->n_hosts;
}

uint32_t sim_cpu_engine_n_running(const struct sim_cpu_engine *x)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < x->n_hosts; i++)
        n += x->hosts[i].n;
    return n;
}

void sim_cpu_engine_drop_all(struct sim_cpu_engine *x, void (*drop)(void *arg, uint32_t request),
                             void *arg)
{
    for (uint32_t i = 0; i < x->n_hosts; i++) {
        struct host *h = &x->hosts[i];

        for (uint32_t k = 0; k < h->n; k++)
            drop(arg, h->running[k].request);
        h->n = 0;
        h->n_reserved = 0;
        h->end_ns = 0;
    }
}
