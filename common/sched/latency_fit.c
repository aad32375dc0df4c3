#include "common/sched/latency_fit.h"

#include <math.h>
#include <string.h>

enum { N = LATENCY_FIT_TERMS };

/* ---- Least squares --------------------------------------------------------------------------- */

struct normal {
    double a[N][N], b[N];
};

static void normal_add(struct normal *e, const struct latency_sample *s)
{
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            e->a[i][j] += s->x[i] * s->x[j] / (s->ns * s->ns);
        e->b[i] += s->x[i] / s->ns;
    }
}

/* A pivot this much smaller than its term's own square is noise: the term repeats others. */
static const double pivot_min = 1e-9;

/* Eliminates term p from the rows of the others; drops it if it tells nothing new. */
static void eliminate(struct normal *e, bool used[N], int p, double scale)
{
    if (!(e->a[p][p] > pivot_min * scale)) {
        used[p] = false;
        return;
    }
    for (int r = 0; r < N; r++) {
        double f = e->a[r][p] / e->a[p][p];
        if (r == p || !used[r])
            continue;
        for (int c = 0; c < N; c++)
            e->a[r][c] -= f * e->a[p][c];
        e->b[r] -= f * e->b[p];
    }
}

/* Gauss-Jordan over the terms in use; the matrix is symmetric and positive, so the diagonal serves
 * as pivots. */
static void solve(struct normal e, bool used[N], double coef[N])
{
    double scale[N];

    for (int i = 0; i < N; i++)
        scale[i] = e.a[i][i];
    for (int p = 0; p < N; p++) {
        if (used[p])
            eliminate(&e, used, p, scale[p]);
    }
    for (int i = 0; i < N; i++)
        coef[i] = used[i] ? e.b[i] / e.a[i][i] : 0;
}

void latency_fit(const struct latency_sample *samples, uint32_t n, double coef[N])
{
    struct normal e = {{{0}}, {0}};
    bool used[N] = {true, true, true};
    int worst;

    for (uint32_t i = 0; i < n; i++)
        normal_add(&e, &samples[i]);
    do {
        solve(e, used, coef);
        worst = 0;
        for (int i = 1; i < N; i++)
            worst = coef[i] * sqrt(e.a[i][i]) < coef[worst] * sqrt(e.a[worst][worst]) ? i : worst;
        used[worst] = used[worst] && !(coef[worst] < 0);
    } while (coef[worst] < 0);
}

/* ---- Staircases ------------------------------------------------------------------------------ */

bool latency_stairs_add(struct latency_stairs *s, uint32_t rows, double ns)
{
    uint32_t at = 0;

    while (at < s->n && s->rows[at] < rows)
        at++;
    if (at < s->n && s->rows[at] == rows) {
        s->ns[at] = ns;
        return true;
    }
    if (s->n == LATENCY_STEPS_MAX)
        return false;
    memmove(&s->rows[at + 1], &s->rows[at], (s->n - at) * sizeof *s->rows);
    memmove(&s->ns[at + 1], &s->ns[at], (s->n - at) * sizeof *s->ns);
    s->rows[at] = rows;
    s->ns[at] = ns;
    s->n++;
    return true;
}

void latency_stairs_smooth(struct latency_stairs *s)
{
    double mean[LATENCY_STEPS_MAX];
    uint32_t weight[LATENCY_STEPS_MAX], n = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        mean[n] = s->ns[i];
        weight[n++] = 1;
        for (; n > 1 && mean[n - 2] > mean[n - 1]; n--) {
            uint32_t both = weight[n - 2] + weight[n - 1];
            mean[n - 2] = (mean[n - 2] * weight[n - 2] + mean[n - 1] * weight[n - 1]) / both;
            weight[n - 2] = both;
        }
    }
    for (uint32_t i = 0, pool = 0; pool < n; pool++) {
        for (uint32_t end = i + weight[pool]; i < end; i++)
            s->ns[i] = mean[pool];
    }
}

/* Closer than a sixteenth of the rows a difference is noise, or a tile's edge that is worth less
 * than the time to find it. */
enum { GAP_SHARE = 16 };

uint32_t latency_stairs_next(const struct latency_stairs *s, double tolerance_ns)
{
    double largest = tolerance_ns;
    uint32_t rows = 0;

    for (uint32_t i = 0; i + 1 < s->n; i++) {
        double step = fabs(s->ns[i + 1] - s->ns[i]);
        uint32_t apart = s->rows[i + 1] - s->rows[i];
        if (apart < 2 || apart * GAP_SHARE < s->rows[i] || step <= largest)
            continue;
        largest = step;
        rows = s->rows[i] + (s->rows[i + 1] - s->rows[i]) / 2;
    }
    return s->n < LATENCY_STEPS_MAX ? rows : 0;
}
