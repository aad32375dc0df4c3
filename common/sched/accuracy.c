#include "common/sched/accuracy.h"

#include <math.h>

static const double steps = ACCURACY_STEPS;

void accuracy_add(struct accuracy *a, double value)
{
    uint16_t step = (uint16_t)(fmin(fmax(value, 0), 1) * steps);

    if (a->n == ACCURACY_WINDOW) {
        a->count[a->ring[a->next]]--;
        a->sum -= a->ring[a->next];
    } else {
        a->n++;
    }
    a->ring[a->next] = step;
    a->next = (a->next + 1) % ACCURACY_WINDOW;
    a->count[step]++;
    a->sum += step;
}

double accuracy_mean(const struct accuracy *a)
{
    return a->n > 0 ? (double)a->sum / a->n / steps : 0;
}

double accuracy_reached_by(const struct accuracy *a, double share)
{
    uint32_t n = 0;

    for (uint32_t step = ACCURACY_STEPS; step > 0; step--) {
        n += a->count[step];
        if (n > 0 && n >= share * a->n)
            return step / steps;
    }
    return 0;
}
