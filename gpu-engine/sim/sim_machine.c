#include "gpu-engine/sim/sim_machine.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "gpu-engine/profile_file.h"

enum { VALUE_BYTES = 2 };

static const double tile_small = 64, tile = 128; /* rows; small below 256 rows */
static const double sweep_ns = 150e3;            /* the host's part of a sweep */
static const double attention_start_ns = 9e3;    /* LLMServingSim: one short decode */
static const double decode_ns = 200, chunk_ns = 10e3;
static const double job_fixed_ns = 10e3; /* spinning team: wake, barriers, publish */
static const double row_ns = 190;        /* q, k, v, or an output, through pinned memory
                                            (published: 75 us for 400 rows) */
static const double copy_start_ns = 20e3;
static const double kv_share = 0.92, work_bytes = 1e9; /* of a GPU's memory */

/* Arithmetic of the sockets: 24 cores with AVX-512 (the piggybacking paper has prefill 185 to 394
 * times slower there than on the four A100s); 96 cores of a newer host, assumed. */
/* clang-format off */
static const struct sim_gpu a100 = {"A100-80GB", 80e9, 2.039e3, 312e3, 0.80, 0.76, 0.77, 0.45, 15e3, 24};
static const struct sim_gpu h200 = {"H200", 141e9, 4.8e3, 989e3, 0.80, 0.69, 0.75, 0.45, 12e3, 50};
static const struct sim_gpu rtx4090 = {"RTX4090", 24e9, 1.008e3, 165e3, 0.88, 0.85, 0.74, 0.50, 12e3, 24};
/* One core of a shared server: copies are memcpy, nothing is launched. */
static const struct sim_gpu core = {"core", 2e9, 10, 60, 0.9, 0.8, 0.6, 0.3, 2e3, 4};

static const struct sim_machine machines[] = {
    {.name = "a100x4-nvlink", .doc = "4x A100-80GB, NVLink; one host of 200 GB/s", .gpu = &a100, .n_gpus = 4,
     .collective_ns = 12e3, .collective_bytes_per_ns = 200, .n_sockets = 1, .socket_bytes_per_ns = 200, .socket_flops_per_ns = 3.3e3,
     .host_bytes = 300e9, .remote_bytes_per_ns = 200, .remote_bytes = 300e9, .net_bytes_per_ns = 12.5, .hop_ns = 15e3},
    {.name = "a100x4-pcie", .doc = "4x A100-80GB, PCIe; one host of 200 GB/s", .gpu = &a100, .n_gpus = 4,
     .collective_ns = 25e3, .collective_bytes_per_ns = 20, .n_sockets = 1, .socket_bytes_per_ns = 200, .socket_flops_per_ns = 3.3e3,
     .host_bytes = 300e9, .remote_bytes_per_ns = 200, .remote_bytes = 300e9, .net_bytes_per_ns = 12.5, .hop_ns = 15e3},
    {.name = "a100x2-nvlink", .doc = "2x A100-80GB, NVLink; one host of 200 GB/s", .gpu = &a100, .n_gpus = 2,
     .collective_ns = 8e3, .collective_bytes_per_ns = 200, .n_sockets = 1, .socket_bytes_per_ns = 200, .socket_flops_per_ns = 3.3e3,
     .host_bytes = 300e9, .remote_bytes_per_ns = 200, .remote_bytes = 300e9, .net_bytes_per_ns = 12.5, .hop_ns = 15e3},
    {.name = "a100x2-pcie", .doc = "2x A100-80GB, PCIe; one host of 200 GB/s", .gpu = &a100, .n_gpus = 2,
     .collective_ns = 15e3, .collective_bytes_per_ns = 20, .n_sockets = 1, .socket_bytes_per_ns = 200, .socket_flops_per_ns = 3.3e3,
     .host_bytes = 300e9, .remote_bytes_per_ns = 200, .remote_bytes = 300e9, .net_bytes_per_ns = 12.5, .hop_ns = 15e3},
    {.name = "h200", .doc = "one H200; a host of 2 x 400 GB/s", .gpu = &h200, .n_gpus = 1,
     .n_sockets = 2, .socket_bytes_per_ns = 400, .socket_flops_per_ns = 8e3, .host_bytes = 800e9,
     .remote_bytes_per_ns = 400, .remote_bytes = 400e9, .net_bytes_per_ns = 12.5, .hop_ns = 15e3},
    {.name = "rtx4090", .doc = "one 24 GB card of 1 TB/s; a host of 200 GB/s", .gpu = &rtx4090, .n_gpus = 1,
     .n_sockets = 1, .socket_bytes_per_ns = 200, .socket_flops_per_ns = 3.3e3, .host_bytes = 200e9,
     .remote_bytes_per_ns = 200, .remote_bytes = 200e9, .net_bytes_per_ns = 1.25, .hop_ns = 25e3},
    {.name = "cpu-here", .doc = "the cpu device on one core, a worker on another", .gpu = &core, .n_gpus = 1,
     .n_sockets = 1, .socket_bytes_per_ns = 8, .socket_flops_per_ns = 50, .host_bytes = 2e9,
     .remote_bytes_per_ns = 8, .remote_bytes = 2e9, .net_bytes_per_ns = 0.125, .hop_ns = 50e3},
};
static const char known_names[] =
    "a100x4-nvlink, a100x4-pcie, a100x2-nvlink, a100x2-pcie, h200, rtx4090, cpu-here";
/* clang-format on */

const struct sim_machine *sim_machine_find(const char *name, const char **known)
{
    *known = known_names;
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        if (strcmp(name, machines[i].name) == 0)
            return &machines[i];
    }
    return NULL;
}

double sim_machine_kv_bytes(const struct sim_machine *machine, const struct sim_model *model)
{
    double work = fmin(work_bytes, 0.1 * machine->gpu->memory_bytes);
    double bytes = machine->n_gpus * (kv_share * machine->gpu->memory_bytes - work) -
                   sim_model_weight_bytes(model);

    return fmax(bytes, 0);
}

/* ---- First principles ------------------------------------------------------------------------ */

static double whole_tiles(double rows)
{
    double t = rows <= 256 ? tile_small : tile;

    return t * ceil(rows / t);
}

/* A product of so many weights per rank over the rows. */
static double product_ns(const struct sim_gpu *g, double params, double rows)
{
    double read = VALUE_BYTES * params / (g->bytes_share * g->bytes_per_ns);
    double compute = 2 * params * whole_tiles(rows) / (g->flops_share * g->flops_per_ns);

    return fmax(read, compute);
}

static double all_reduce_ns(const struct sim_machine *m, double bytes)
{
    double share = 2.0 * (m->n_gpus - 1) / m->n_gpus;

    if (m->n_gpus == 1)
        return 0;
    return m->collective_ns + share * bytes / m->collective_bytes_per_ns;
}

/* One layer over the rows: products, what norms, activation and residual read and write, and the
 * two all-reduces behind the output projection and the MLP. */
static double dense_ns(const struct sim_machine *machine, const struct sim_model *m, double rows)
{
    const struct sim_gpu *g = machine->gpu;
    double p = machine->n_gpus;
    double params = (sim_model_pre_params(m) + sim_model_post_params(m)) / p;
    double row_bytes = VALUE_BYTES * (10.0 * m->n_embd + 4.0 * m->n_ff / p);

    return g->layer_ns + product_ns(g, params, rows) +
           rows * row_bytes / (g->bytes_share * g->bytes_per_ns) +
           2 * all_reduce_ns(machine, VALUE_BYTES * rows * m->n_embd);
}

static double head_ns(const struct sim_machine *machine, const struct sim_model *m, double rows)
{
    double params = (double)m->n_vocab * m->n_embd / machine->n_gpus;

    return machine->gpu->layer_ns + product_ns(machine->gpu, params, rows) +
           all_reduce_ns(machine, rows * m->n_vocab * VALUE_BYTES);
}

typedef double time_of_rows(const struct sim_machine *, const struct sim_model *, double rows);

static void add_step(struct latency_stairs *s, uint32_t rows, double ns)
{
    if (s->n == LATENCY_STEPS_MAX || (s->n > 0 && rows <= s->rows[s->n - 1]))
        return;
    s->rows[s->n] = rows;
    s->ns[s->n] = s->n > 0 ? fmax(ns, s->ns[s->n - 1]) : ns;
    s->n++;
}

/* Two steps at the end of each tile, so that the model keeps the edge; where the steps run out, the
 * rest is a line. */
static void make_stairs(struct latency_stairs *s, const struct sim_machine *machine,
                        const struct sim_model *m, time_of_rows *time, uint32_t rows_max)
{
    uint32_t rows = 0;

    s->n = 0;
    add_step(s, 1, time(machine, m, 1));
    while (rows < rows_max && s->n + 4 <= LATENCY_STEPS_MAX) {
        rows += (uint32_t)(rows < 256 ? tile_small : tile);
        add_step(s, rows, time(machine, m, rows));
        add_step(s, rows + 1, time(machine, m, rows + 1));
    }
    add_step(s, rows_max, time(machine, m, rows_max));
}

static void make_kind(struct latency_kind *k, const struct sim_machine *machine,
                      const struct sim_model *m, enum kv_type type, uint32_t rows_max)
{
    const struct sim_gpu *g = machine->gpu;
    double p = machine->n_gpus, pre = sim_model_pre_params(m);
    double bytes_per_ns = g->attention_bytes_share * g->bytes_per_ns;
    double token_bytes = sim_model_token_bytes(m, type) / m->n_layers / p;

    make_stairs(&k->dense, machine, m, dense_ns, rows_max);
    k->pre_share = pre / (pre + sim_model_post_params(m));
    k->pa_a = 4.0 * m->n_heads * m->head_width / p / (g->attention_flops_share * g->flops_per_ns);
    k->pa_h = 2 * token_bytes / bytes_per_ns;
    k->pa_b = chunk_ns;
    k->da_a = token_bytes / bytes_per_ns;
    k->da_h = decode_ns;
    k->da_b = attention_start_ns;
}

static void make_workers(const struct sim_machine *machine, struct sim_timing *t)
{
    for (uint32_t i = 0; i < machine->n_sockets && t->n_workers < LATENCY_WORKERS_MAX; i++)
        t->worker[t->n_workers++] = (struct sim_worker_timing){
            .bytes_per_ns = machine->socket_bytes_per_ns,
            .fixed_ns = job_fixed_ns,
            .arena_bytes = (uint64_t)(machine->host_bytes / machine->n_sockets)};
    for (uint32_t i = 0; i < machine->n_hosts && t->n_workers < LATENCY_WORKERS_MAX; i++)
        t->worker[t->n_workers++] = (struct sim_worker_timing){
            .bytes_per_ns = machine->remote_bytes_per_ns,
            .fixed_ns = job_fixed_ns,
            .hop_ns = machine->hop_ns,
            /* the engine's host has one link for all of them */
            .net_bytes_per_ns = machine->net_bytes_per_ns / machine->n_hosts,
            .arena_bytes = (uint64_t)machine->remote_bytes};
    for (uint32_t w = 0; w < t->n_workers; w++)
        t->gpu.worker[w] =
            (struct latency_worker){.bytes_per_ns = t->worker[w].bytes_per_ns,
                                    .fixed_ns = t->worker[w].fixed_ns + 2 * t->worker[w].hop_ns};
}

void sim_machine_timing(const struct sim_machine *machine, const struct sim_model *model,
                        enum kv_type type, uint32_t rows_max, struct sim_timing *t)
{
    memset(t, 0, sizeof *t);
    latency_init(&t->gpu, model->n_layers);
    t->gpu.n_kinds = 1;
    make_kind(&t->gpu.kind[0], machine, model, type, rows_max);
    make_stairs(&t->gpu.head, machine, model, head_ns, 512);
    t->gpu.fixed_ns = sweep_ns;
    t->gpu.row_ns = 10;
    t->post_ns = t->take_ns = row_ns;
    /* A copy reads and writes the host's memory beside the workers: at most half of it. */
    t->copy_bytes_per_ns = fmin(machine->n_gpus * machine->gpu->host_link,
                                machine->n_sockets * machine->socket_bytes_per_ns / 2);
    t->copy_fixed_ns = copy_start_ns;
    t->payload_value_bytes = VALUE_BYTES;
    t->two_batch = true;
    make_workers(machine, t);
}

static void scale_kv_reads(struct latency_model *m, double factor)
{
    for (uint32_t k = 0; k < m->n_kinds; k++) {
        m->kind[k].da_a *= factor;
        m->kind[k].pa_h *= factor;
    }
}

int sim_machine_use_profile(struct sim_timing *t, const struct sim_model *model, enum kv_type type,
                            const char *path, struct error *err)
{
    struct profile profile;
    int rc = profile_file_read(&profile, path, err);

    if (rc != 0)
        return rc;
    if (profile.latency.n_layers != model->n_layers)
        return error_set(err, -EINVAL, "profile %s: %u layers, %s has %u", path,
                         profile.latency.n_layers, model->name, model->n_layers);
    double taken_bytes = geometry_element_bytes((enum kv_type)profile.key.kv_type);
    if (taken_bytes > 0)
        scale_kv_reads(&profile.latency, geometry_element_bytes(type) / taken_bytes);
    memcpy(profile.latency.worker, t->gpu.worker, sizeof t->gpu.worker);
    t->gpu = profile.latency;
    return 0;
}
