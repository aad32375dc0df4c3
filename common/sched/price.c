#include "common/sched/price.h"

#include <math.h>
#include <stddef.h>

/* ---- A sweep --------------------------------------------------------------------------------- */

void price_init(struct price *p, const struct latency_model *m)
{
    *p = (struct price){.m = m};
}

double price_attention_ns(const struct price *p, const struct latency_load *load)
{
    return p->m != NULL ? latency_attention_all_ns(p->m, load) : 0;
}

static bool is_nothing(const struct latency_load *load)
{
    return load->n_rows == 0 && load->returned_layers <= 0;
}

double price_ns(const struct price *p, const struct latency_load *load)
{
    return p->m == NULL || is_nothing(load) ? 0 : latency_predict(p->m, load).total_ns;
}

double price_two_ns(const struct price *p, const struct latency_load *a,
                    const struct latency_load *b)
{
    if (p->m == NULL || (is_nothing(a) && is_nothing(b)))
        return 0;
    return latency_predict_two(p->m, a, b).total_ns;
}

void price_set_returned(const struct price *p, struct latency_load *load, double per_layer)
{
    double n = p->m != NULL ? p->m->n_layers : 0;

    load->returned_rows = per_layer * n;
    load->returned_layers = -expm1(-per_layer) * n;
    load->returned_out = n > 0 ? per_layer : 0; /* as many end as begin */
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
