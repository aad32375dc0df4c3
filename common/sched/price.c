#include "common/sched/price.h"

#include <math.h>
#include <stddef.h>

/* ---- Layers by kind -------------------------------------------------------------------------- */

void price_init(struct price *p, const struct latency_model *m)
{
    uint32_t at[LATENCY_KINDS_MAX];

    *p = (struct price){.m = m};
    if (m == NULL)
        return;
    for (uint32_t k = 0; k < LATENCY_KINDS_MAX; k++)
        at[k] = LATENCY_KINDS_MAX;
    for (uint32_t l = 0; l < m->n_layers; l++) {
        uint32_t k = m->kind_of[l];
        if (at[k] == LATENCY_KINDS_MAX) {
            at[k] = p->n_kinds++;
            p->layer[at[k]] = l;
        }
        p->count[at[k]]++;
    }
}

/* ---- A sweep --------------------------------------------------------------------------------- */

static double head_and_before_ns(const struct latency_model *m, const struct latency_load *load)
{
    return m->correction[LATENCY_HEAD].factor * latency_stairs_at(&m->head, load->n_out) +
           m->correction[LATENCY_DENSE].factor * (m->fixed_ns + m->row_ns * load->n_rows);
}

double price_attention_ns(const struct price *p, const struct latency_load *load)
{
    double ns = 0;

    for (uint32_t k = 0; k < p->n_kinds; k++)
        ns += p->count[k] * latency_attention_ns(p->m, p->layer[k], load);
    return ns;
}

static double all_layers_dense_ns(const struct price *p, double rows)
{
    double ns = 0;

    for (uint32_t k = 0; k < p->n_kinds; k++)
        ns += p->count[k] * latency_dense_ns(p->m, p->layer[k], rows);
    return ns;
}

/* Of returned rows alone, the layers that have any. */
static double dense_ns(const struct price *p, const struct latency_load *load)
{
    double layers = load->returned_layers, n = p->m->n_layers;

    if (load->n_rows > 0)
        return all_layers_dense_ns(p, load->n_rows + load->returned_rows / n);
    if (layers <= 0)
        return 0;
    return layers / n * all_layers_dense_ns(p, fmax(load->returned_rows / layers, 1));
}

double price_ns(const struct price *p, const struct latency_load *load)
{
    if (p->m == NULL || (load->n_rows == 0 && load->returned_layers <= 0))
        return 0;
    return p->m->correction[LATENCY_STOLEN].factor *
           (dense_ns(p, load) + price_attention_ns(p, load) + head_and_before_ns(p->m, load) +
            p->m->return_ns * load->returned_rows);
}

void price_set_returned(const struct price *p, struct latency_load *load, double per_layer)
{
    double n = p->m != NULL ? p->m->n_layers : 0;

    load->returned_rows = per_layer * n;
    load->returned_layers = -expm1(-per_layer) * n;
}

/* ---- Load ------------------------------------------------------------------------------------ */

void price_add(const struct price *p, struct latency_load *load, uint32_t before, uint32_t n,
               bool sampled)
{
    static const struct latency_model none; /* no kinds: rows are counted alone */
    const struct latency_model *m = p->m != NULL ? p->m : &none;

    if (n == 1)
        latency_load_add_decode(m, load, before + 1, sampled);
    else
        latency_load_add_chunk(m, load, before, n, sampled);
}

static bool fits(const struct price *p, const struct latency_load *load, uint32_t before,
                 uint32_t n, bool sampled, double budget_ns)
{
    struct latency_load with = *load;

    price_add(p, &with, before, n, sampled);
    return price_ns(p, &with) <= budget_ns;
}

uint32_t price_rows_within(const struct price *p, const struct latency_load *load, uint32_t before,
                           uint32_t n, uint32_t todo, double budget_ns)
{
    uint32_t low = 0, high = n;

    if (n == 0 || fits(p, load, before, n, n == todo, budget_ns))
        return n;
    high--;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;

        if (fits(p, load, before, mid, false, budget_ns))
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}
