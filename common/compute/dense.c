/* DESIGN
 *
 * Unit of work: a few neighbouring panels (32 outputs each) of one product, over all rows and all
 * of k.  Threads take units from one cursor.  Nothing is shared but x, and no sum crosses units.
 *
 * Few rows (<= rows_few): the weights are expanded in registers on their way to the multiply-add;
 * the time is that of reading the panels.
 * More rows: a piece of K_BLOCK inputs of one panel is expanded into 32 KiB of stack, and all rows
 * run over it in register tiles of rows_tile.  Between pieces the accumulators rest in y, as the
 * floats that they are, so the chain over k is the one of the first case.
 *
 * The last panel of a matrix may have fewer than 32 outputs: its tiles go through a small copy of
 * y, so that kernels know whole panels only. */
#include "common/compute/dense.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/invariant.h"
#include "common/compute/dense_pack.h"
#include "common/compute/kernels.h"

enum {
    K_BLOCK = 256,       /* x 32 outputs x 4 bytes = 32 KiB: stays in the first or second cache */
    UNIT_PANELS_MAX = 4, /* panels that share one reading of x from the outer caches */
    ROWS_MAX = 16,       /* at least rows_tile and rows_few of every instruction set */
    HUGE_BYTES = 2 << 20,
};

struct dense_matrix {
    const struct kernels *kernels;
    enum weight_type type;
    uint32_t n, k;
    uint32_t n_panels;
    size_t panel_bytes;
    uint8_t *panels;
};

static int view_check(const struct weight_view *v)
{
    uint64_t panel_max = UINT64_C(1) << 31; /* bytes; also keeps k within 32 bits */

    if ((unsigned)v->type >= WEIGHT_TYPES || v->n_rows == 0 || v->n_cols == 0)
        return -EINVAL;
    if (v->n_rows > INT32_MAX || v->n_cols > panel_max / (DENSE_PANEL * 4))
        return -EINVAL;
    if (v->n_cols % weight_block_values(v->type) != 0)
        return -EINVAL;
    return v->row_bytes < weight_row_bytes(v->type, v->n_cols) ? -EINVAL : 0;
}

/* Large matrices lie on huge pages where the system has them: one row reads all of it. */
static uint8_t *panels_alloc(size_t bytes)
{
    size_t align = bytes >= HUGE_BYTES ? HUGE_BYTES : 64;
    uint8_t *p = aligned_alloc(align, (bytes + align - 1) / align * align);

    if (p != NULL && align == HUGE_BYTES)
        (void)madvise(p, bytes / align * align, MADV_HUGEPAGE); /* a wish; refusal is harmless */
    return p;
}

int dense_matrix_create(struct dense_matrix **out, enum isa isa, const struct weight_view *view)
{
    struct dense_matrix *m;
    size_t bytes;

    *out = NULL;
    if (isa >= ISA_COUNT || view_check(view) != 0)
        return -EINVAL;
    m = malloc(sizeof *m);
    if (m == NULL)
        return -ENOMEM;
    m->kernels = kernels_of(isa);
    m->type = view->type;
    m->n = (uint32_t)view->n_rows;
    m->k = (uint32_t)view->n_cols;
    m->n_panels = m->n / DENSE_PANEL + (m->n % DENSE_PANEL != 0);
    m->panel_bytes = dense_pack_panel_bytes(m->type, m->k);
    m->panels = NULL;
    if (!__builtin_mul_overflow(m->panel_bytes, m->n_panels, &bytes) && bytes <= SIZE_MAX / 2)
        m->panels = panels_alloc(bytes);
    if (m->panels == NULL) {
        free(m);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < m->n_panels; i++)
        dense_pack_panel(view, i, m->panels + i * m->panel_bytes);
    *out = m;
    return 0;
}

void dense_matrix_destroy(struct dense_matrix *m)
{
    if (m != NULL)
        free(m->panels);
    free(m);
}

uint32_t dense_matrix_outputs(const struct dense_matrix *m)
{
    return m->n;
}

uint32_t dense_matrix_inputs(const struct dense_matrix *m)
{
    return m->k;
}

uint64_t dense_matrix_bytes(const struct dense_matrix *m)
{
    return (uint64_t)m->panel_bytes * m->n_panels;
}

struct run {
    const struct dense_job *jobs;
    uint32_t n_jobs;
    uint32_t unit_panels[DENSE_JOBS_MAX];
    uint32_t n_units[DENSE_JOBS_MAX];
    _Alignas(64) _Atomic uint32_t next; /* units of all jobs, one after the other */
};

static void copy_rows(float *to, size_t ld_to, const float *from, size_t ld_from, uint32_t n_rows,
                      uint32_t n)
{
    for (uint32_t r = 0; r < n_rows; r++)
        memcpy(to + r * ld_to, from + r * ld_from, n * sizeof *to);
}

/* Outputs of panel p that exist. */
static uint32_t panel_outputs(const struct dense_matrix *m, uint32_t p)
{
    uint32_t left = m->n - p * DENSE_PANEL;

    return left < DENSE_PANEL ? left : DENSE_PANEL;
}

static const uint8_t *panel_at(const struct dense_matrix *m, uint32_t p)
{
    return m->panels + p * m->panel_bytes;
}

static void run_few(const struct dense_job *job, uint32_t p0, uint32_t p1)
{
    const struct dense_matrix *m = job->matrix;
    uint32_t n_last = panel_outputs(m, p1 - 1);
    uint32_t whole = n_last == DENSE_PANEL ? p1 : p1 - 1;
    float *y = job->y + (size_t)whole * DENSE_PANEL;
    float edge[ROWS_MAX * DENSE_PANEL] = {0};

    m->kernels->few(m->type, panel_at(m, p0), m->panel_bytes, whole - p0, m->k, job->x, job->ldx,
                    job->n_rows, job->y + (size_t)p0 * DENSE_PANEL, job->ldy);
    if (whole == p1)
        return;
    copy_rows(edge, DENSE_PANEL, y, job->ldy, job->n_rows, n_last);
    m->kernels->few(m->type, panel_at(m, whole), m->panel_bytes, 1, m->k, job->x, job->ldx,
                    job->n_rows, edge, DENSE_PANEL);
    copy_rows(y, job->ldy, edge, DENSE_PANEL, job->n_rows, n_last);
}

/* All rows over one expanded piece w[n][32] of panel p that starts at input k0. */
static void run_tiles(const struct dense_job *job, uint32_t p, uint32_t k0, uint32_t n,
                      const float *w)
{
    const struct dense_matrix *m = job->matrix;
    uint32_t n_out = panel_outputs(m, p);
    uint32_t n_tiles = (job->n_rows - 1) / m->kernels->rows_tile + 1;
    float edge[ROWS_MAX * DENSE_PANEL] = {0};

    for (uint32_t t = 0; t < n_tiles; t++) { /* tiles of equal height, as far as possible */
        uint32_t r0 = (uint32_t)((uint64_t)job->n_rows * t / n_tiles);
        uint32_t rows = (uint32_t)((uint64_t)job->n_rows * (t + 1) / n_tiles) - r0;
        const float *x = job->x + r0 * job->ldx + k0;
        float *y = job->y + r0 * job->ldy + (size_t)p * DENSE_PANEL;

        if (n_out == DENSE_PANEL) {
            m->kernels->tile(rows, w, DENSE_PANEL, n, x, job->ldx, y, job->ldy);
            continue;
        }
        copy_rows(edge, DENSE_PANEL, y, job->ldy, rows, n_out);
        m->kernels->tile(rows, w, DENSE_PANEL, n, x, job->ldx, edge, DENSE_PANEL);
        copy_rows(y, job->ldy, edge, DENSE_PANEL, rows, n_out);
    }
}

static void run_many(const struct dense_job *job, uint32_t p0, uint32_t p1)
{
    const struct dense_matrix *m = job->matrix;
    _Alignas(64) float expanded[K_BLOCK * DENSE_PANEL];

    for (uint32_t k0 = 0; k0 < m->k; k0 += K_BLOCK) {
        uint32_t n = m->k - k0 < K_BLOCK ? m->k - k0 : K_BLOCK;

        for (uint32_t p = p0; p < p1; p++) {
            const float *w = expanded;

            if (m->type == WEIGHT_F32)
                w = (const float *)(const void *)panel_at(m, p) + (size_t)k0 * DENSE_PANEL;
            else
                m->kernels->expand(m->type, panel_at(m, p), k0, n, expanded);
            run_tiles(job, p, k0, n, w);
        }
    }
}

static void run_unit(const struct dense_job *job, uint32_t p0, uint32_t p1)
{
    const struct dense_matrix *m = job->matrix;
    uint32_t c0 = p0 * DENSE_PANEL;
    uint32_t n = (p1 - p0 - 1) * DENSE_PANEL + panel_outputs(m, p1 - 1);

    if (!job->accumulate)
        for (uint32_t r = 0; r < job->n_rows; r++)
            memset(job->y + r * job->ldy + c0, 0, n * sizeof(float));
    if (job->n_rows <= m->kernels->rows_few)
        run_few(job, p0, p1);
    else
        run_many(job, p0, p1);
}

/* The cursor only grows, so each thread walks the list of jobs once. */
static void run_thread(void *ctx, uint32_t thread_idx)
{
    struct run *run = ctx;
    uint32_t job = 0, first = 0; /* unit number of job's first unit */

    (void)thread_idx;
    for (;;) {
        uint32_t unit = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);
        uint32_t p0, p1;

        while (job < run->n_jobs && unit - first >= run->n_units[job])
            first += run->n_units[job++];
        if (job == run->n_jobs)
            return;
        p0 = (unit - first) * run->unit_panels[job];
        p1 = p0 + run->unit_panels[job];
        if (p1 > run->jobs[job].matrix->n_panels)
            p1 = run->jobs[job].matrix->n_panels;
        run_unit(&run->jobs[job], p0, p1);
    }
}

void dense_run(struct team *team, const struct dense_job *jobs, uint32_t n_jobs)
{
    struct run run = {.jobs = jobs, .n_jobs = n_jobs};

    invariant(n_jobs <= DENSE_JOBS_MAX);
    for (uint32_t i = 0; i < n_jobs; i++) {
        uint32_t n_panels = jobs[i].matrix->n_panels;
        uint32_t step = n_panels / (4 * team_n_threads(team)); /* enough units to even out */

        step = step < 1 ? 1 : step > UNIT_PANELS_MAX ? UNIT_PANELS_MAX : step;
        run.unit_panels[i] = step;
        run.n_units[i] = jobs[i].n_rows == 0 ? 0 : (n_panels - 1) / step + 1;
        invariant(jobs[i].matrix->kernels->rows_tile <= ROWS_MAX);
    }
    team_run(team, run_thread, &run);
}
