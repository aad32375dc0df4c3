#include "common/sched/lengths.h"

#include <string.h>

/* First place in by_value whose value is above v. */
static uint32_t first_above(const struct lengths *l, uint32_t v)
{
    uint32_t low = 0, high = l->n;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (l->by_value[mid] <= v)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void forget_oldest(struct lengths *l)
{
    uint32_t at = first_above(l, l->by_age[l->next]) - 1;

    memmove(l->by_value + at, l->by_value + at + 1, (l->n - at - 1) * sizeof *l->by_value);
    l->n--;
}

void lengths_add(struct lengths *l, uint32_t n_output)
{
    if (l->n == LENGTHS_MAX)
        forget_oldest(l);
    uint32_t at = first_above(l, n_output);

    memmove(l->by_value + at + 1, l->by_value + at, (l->n - at) * sizeof *l->by_value);
    l->by_value[at] = n_output;
    l->n++;
    l->by_age[l->next] = n_output;
    l->next = (l->next + 1) % LENGTHS_MAX;
}

uint32_t lengths_predict(const struct lengths *l, uint32_t n_made, uint32_t n_max, uint32_t pct)
{
    uint32_t first = first_above(l, n_made), n = l->n - first;

    if (pct == 0 || n < LENGTHS_ENOUGH)
        return n_max;
    uint32_t likely = l->by_value[first + (n * pct + 99) / 100 - 1];

    return likely < n_max ? likely : n_max;
}
