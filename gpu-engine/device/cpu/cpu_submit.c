/* Copying a sweep's input, so that submit keeps no pointer of the caller's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/device/cpu/cpu_device.h"

int cpu_sweep_alloc(struct device *d, struct cpu_sweep *s)
{
    const struct device_config *c = &d->config;
    size_t table = (size_t)d->geometry->n_groups * d->table_max;
    size_t picked = (size_t)d->n_layers * c->returned_rows_max + 1;

    s->seqs = calloc(c->seqs_max, sizeof *s->seqs);
    s->tokens = calloc(c->rows_max, sizeof *s->tokens);
    s->tables = calloc(c->seqs_max * table, sizeof *s->tables);
    s->enters = calloc(c->returned_rows_max + 1, sizeof *s->enters);
    s->enter_tables = calloc(c->returned_rows_max * table + 1, sizeof *s->enter_tables);
    s->leaves = calloc(d->n_slots + 1, sizeof *s->leaves);
    s->picks = calloc(d->n_layers, sizeof *s->picks);
    s->arrivals = calloc(d->n_layers, sizeof *s->arrivals);
    s->arrivals_b = calloc(d->n_layers, sizeof *s->arrivals_b);
    s->pace = calloc((c->exchange != NULL ? c->exchange->n_workers : 0) + 1, sizeof *s->pace);
    s->layers = calloc(d->n_layers, sizeof *s->layers);
    s->picked = calloc(picked, sizeof *s->picked);
    s->out = calloc(c->seqs_max + d->n_slots + 1, sizeof *s->out);
    s->top = calloc(c->seqs_max + d->n_slots + 1, DEVICE_TOP_MAX * sizeof *s->top);
    if (s->seqs == NULL || s->tokens == NULL || s->tables == NULL || s->enters == NULL ||
        s->enter_tables == NULL || s->leaves == NULL || s->picks == NULL || s->arrivals == NULL ||
        s->arrivals_b == NULL || s->pace == NULL || s->layers == NULL || s->picked == NULL ||
        s->out == NULL || s->top == NULL)
        return -ENOMEM;
    return 0;
}

void cpu_sweep_free(struct cpu_sweep *s)
{
    free(s->seqs);
    free(s->tokens);
    free(s->tables);
    free(s->enters);
    free(s->enter_tables);
    free(s->leaves);
    free(s->picks);
    free(s->arrivals);
    free(s->arrivals_b);
    free(s->pace);
    free(s->layers);
    free(s->picked);
    free(s->out);
    free(s->top);
    memset(s, 0, sizeof *s);
}

/* Tables are copied with the stride of a full context, whatever the caller's is. */
static void tables_copy(const struct device *d, uint32_t *to, const uint32_t *from, uint32_t stride)
{
    for (uint32_t g = 0; from != NULL && g < d->geometry->n_groups; g++)
        memcpy(to + (size_t)g * d->table_max, from + (size_t)g * stride, stride * sizeof *to);
}

static bool seq_fits(const struct device *d, const struct device_seq *q)
{
    return q->n_rows > 0 && q->table_stride <= d->table_max &&
           (uint64_t)q->pos + q->n_rows <= (uint64_t)q->table_stride * d->geometry->block_tokens &&
           (uint64_t)q->pos + q->n_rows <= d->config.context_max;
}

static void copy_seq(struct device *d, struct cpu_sweep *to, uint32_t at, uint32_t n_rows,
                     const struct device_seq *q)
{
    uint32_t *tables = to->tables + (size_t)at * d->geometry->n_groups * d->table_max;

    to->seqs[at] = *q;
    memcpy(to->tokens + n_rows, q->tokens, q->n_rows * sizeof *to->tokens);
    tables_copy(d, tables, q->tables, q->table_stride);
    to->seqs[at].tokens = to->tokens + n_rows;
    to->seqs[at].tables = tables;
    to->seqs[at].table_stride = d->table_max;
}

/* Batch B's sequences lie behind batch A's, so that a token's source is an index of `seqs`. */
static int copy_batches(struct device *d, struct cpu_sweep *to, const struct device_sweep *from)
{
    uint32_t n_rows = 0, at = 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        const struct device_batch *batch = &from->batch[b];

        if (batch->n_seqs > d->config.seqs_max - at)
            return -EINVAL;
        to->in.batch[b] = (struct device_batch){.n_seqs = batch->n_seqs, .seqs = to->seqs + at};
        for (uint32_t i = 0; i < batch->n_seqs; i++) {
            const struct device_seq *q = &batch->seqs[i];

            if (!seq_fits(d, q) || q->n_rows > d->config.rows_max - n_rows)
                return -EINVAL;
            if (q->in_host)
                return -ENOTSUP; /* its attention reads its own memory: caps.host_bytes_per_ns */
            copy_seq(d, to, at++, n_rows, q);
            n_rows += q->n_rows;
        }
    }
    return 0;
}

static bool enter_fits(const struct device *d, const struct device_enter *e, uint32_t n_rows)
{
    return e->slot < d->n_slots && e->n_q >= 1 && e->n_q <= d->n_q_max &&
           e->n_q <= DEVICE_N_Q_MAX && e->n_q <= d->config.returned_rows_max - n_rows &&
           e->table_stride <= d->table_max;
}

static int copy_enters(struct device *d, struct cpu_sweep *to, const struct device_sweep *from)
{
    size_t table = (size_t)d->geometry->n_groups * d->table_max;
    uint32_t n_rows = 0;

    if (from->n_enter_b > from->n_enter)
        return -EINVAL;
    for (uint32_t i = 0; i < from->n_enter; i++) {
        if (!enter_fits(d, &from->enter[i], n_rows))
            return -EINVAL;
        n_rows += from->enter[i].n_q;
        to->enters[i] = from->enter[i];
        if (from->enter[i].tables != NULL) {
            tables_copy(d, to->enter_tables + i * table, from->enter[i].tables,
                        from->enter[i].table_stride);
            to->enters[i].tables = to->enter_tables + i * table;
            to->enters[i].table_stride = d->table_max;
        }
    }
    to->in.enter = to->enters;
    to->in.n_enter = from->n_enter;
    to->in.n_enter_b = from->n_enter_b;
    return 0;
}

static int copy_leaves(struct device *d, struct cpu_sweep *to, const struct device_sweep *from)
{
    if (from->n_leave > d->n_slots)
        return -EINVAL;
    for (uint32_t i = 0; i < from->n_leave; i++) {
        if (from->leave[i] >= d->n_slots)
            return -EINVAL;
        to->leaves[i] = from->leave[i];
    }
    to->in.leave = to->leaves;
    to->in.n_leave = from->n_leave;
    return 0;
}

/* Per layer and per worker. */
static void copy_plans(struct device *d, struct cpu_sweep *to, const struct device_sweep *from)
{
    size_t n = d->n_layers;
    const uint64_t *b = from->arrival_b_ns != NULL ? from->arrival_b_ns : from->arrival_ns;

    memcpy(to->picks, from->pick, n * sizeof *to->picks);
    memcpy(to->arrivals, from->arrival_ns, n * sizeof *to->arrivals);
    memcpy(to->arrivals_b, b, n * sizeof *to->arrivals_b);
    if (from->pace != NULL && d->config.exchange != NULL) {
        memcpy(to->pace, from->pace, d->config.exchange->n_workers * sizeof *to->pace);
        to->in.pace = to->pace;
    }
}

int cpu_sweep_copy(struct device *d, struct cpu_sweep *to, const struct device_sweep *from)
{
    int rc;

    if (from->checkpoint)
        return -ENOTSUP; /* caps.checkpoints is 0: the engine's copies do that */
    memset(&to->in, 0, sizeof to->in);
    to->in.seq = from->seq;
    to->in.no_riding = from->no_riding;
    to->in.p_total = from->p_total;
    to->in.wait_total_ns = from->wait_total_ns;
    copy_plans(d, to, from);
    rc = copy_batches(d, to, from);
    if (rc == 0)
        rc = copy_enters(d, to, from);
    if (rc == 0)
        rc = copy_leaves(d, to, from);
    return rc;
}
