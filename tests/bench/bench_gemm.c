/* bench_gemm.c - our exact dense products beside OpenBLAS, for 1 to 512 rows
 *
 *   bench_gemm [--json FILE] [--shape NxK] [--repeat N]
 *
 * One thread.  Times are processor time of that thread (so that neighbours on the machine disturb
 * little), medians of at least 5 runs after one to warm up.  GFLOP/s = 2 * rows * outputs * k / t.
 * Columns: our kernels over F32, Q8_0 and Q4_1 weights; plain OpenBLAS sgemm over F32 (whose bits
 * depend on the number of rows); OpenBLAS in fixed tiles of 8 rows (whose bits do not). */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/compute/dense.h"
#include "tests/bench/blas_ref.h"
#include "tests/bench/median.h"

enum { ROWS_MAX = 512, REPEAT_MAX = 101, N_ROW_COUNTS = 10 };
static const uint32_t row_counts[N_ROW_COUNTS] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};

enum column { OURS_F32, OURS_Q8_0, OURS_Q4_1, BLAS_PLAIN, BLAS_TILES, N_COLUMNS };
static const char *const column_names[N_COLUMNS] = {"ours f32", "ours q8_0", "ours q4_1",
                                                    "openblas", "openblas 8-row tiles"};

struct shape {
    uint32_t n, k;
};
/* SmolLM2-135M: attention output, gate/up, down, LM head; then one of a larger model. */
static const struct shape default_shapes[] = {
    {576, 576}, {1536, 576}, {576, 1536}, {49152, 576}, {4096, 4096}};
enum { N_SHAPES_MAX = 5 };

struct bench {
    enum isa isa;
    struct team *team;
    struct blas_ref blas;
    bool have_blas;
    uint32_t repeat;
    const char *json;
    struct shape shapes[N_SHAPES_MAX];
    uint32_t n_shapes;
    double gflops[N_SHAPES_MAX][N_ROW_COUNTS][N_COLUMNS];
};

/* One shape's operands. */
struct operands {
    struct shape shape;
    float *w, *x, *y;
    struct dense_matrix *matrix[3];
};

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float *floats(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    uint32_t state = 12345;

    invariant(p != NULL);
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U;
        p[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    return p;
}

static struct dense_matrix *matrix_make(enum isa isa, enum weight_type type, struct shape s,
                                        const float *w)
{
    struct weight_view v = {.type = type,
                            .n_slices = 1,
                            .n_rows = s.n,
                            .n_cols = s.k,
                            .row_bytes = weight_row_bytes(type, s.k),
                            .name = "bench"};
    uint8_t *data = malloc(v.row_bytes * s.n);
    struct dense_matrix *m;

    invariant(data != NULL);
    for (uint32_t i = 0; i < s.n; i++)
        weight_quantize_row(type, w + (size_t)i * s.k, s.k, data + i * v.row_bytes);
    v.data = data;
    invariant(dense_matrix_create(&m, isa, &v) == 0);
    free(data);
    return m;
}

static void operands_init(struct operands *o, const struct bench *b, struct shape s)
{
    const enum weight_type types[3] = {WEIGHT_F32, WEIGHT_Q8_0, WEIGHT_Q4_1};

    o->shape = s;
    o->w = floats((size_t)s.n * s.k);
    o->x = floats((size_t)ROWS_MAX * s.k);
    o->y = floats((size_t)ROWS_MAX * s.n);
    for (int i = 0; i < 3; i++)
        o->matrix[i] = matrix_make(b->isa, types[i], s, o->w);
}

static void operands_fini(struct operands *o)
{
    free(o->w);
    free(o->x);
    free(o->y);
    for (int i = 0; i < 3; i++)
        dense_matrix_destroy(o->matrix[i]);
}

static void product(const struct bench *b, const struct operands *o, enum column c, uint32_t rows)
{
    uint32_t n = o->shape.n, k = o->shape.k;

    if (c == BLAS_PLAIN)
        blas_ref_plain(&b->blas, o->w, n, k, o->x, rows, o->y);
    else if (c == BLAS_TILES)
        blas_ref_tiles(&b->blas, o->w, n, k, o->x, rows, o->y);
    else
        dense_apply(b->team, o->matrix[c], o->x, k, rows, o->y, n, false);
}

/* Median seconds of one product; short ones are timed in groups of at least 2 ms. */
static double measure(const struct bench *b, const struct operands *o, enum column c, uint32_t rows)
{
    double times[REPEAT_MAX], once;
    uint32_t group = 1;

    product(b, o, c, rows);
    once = thread_seconds();
    product(b, o, c, rows);
    once = thread_seconds() - once;
    if (once < 2e-3)
        group = (uint32_t)(2e-3 / (once > 1e-7 ? once : 1e-7)) + 1;
    for (uint32_t i = 0; i < b->repeat; i++) {
        double start = thread_seconds();

        for (uint32_t j = 0; j < group; j++)
            product(b, o, c, rows);
        times[i] = (thread_seconds() - start) / group;
    }
    return median_of(times, b->repeat);
}

static void bench_shape(struct bench *b, uint32_t s)
{
    struct operands o;
    double flops = 2.0 * b->shapes[s].n * b->shapes[s].k;

    operands_init(&o, b, b->shapes[s]);
    printf("\n%u outputs x %u inputs, GFLOP/s (and GB/s of weights at one row)\n", b->shapes[s].n,
           b->shapes[s].k);
    printf("%6s %14s %14s %14s %10s %10s\n", "rows", column_names[0], column_names[1],
           column_names[2], "openblas", "tiles");
    for (uint32_t i = 0; i < N_ROW_COUNTS; i++) {
        printf("%6u", row_counts[i]);
        for (enum column c = OURS_F32; c < N_COLUMNS; c++) {
            double t = c >= BLAS_PLAIN && !b->have_blas ? NAN : measure(b, &o, c, row_counts[i]);

            b->gflops[s][i][c] = flops * row_counts[i] / t * 1e-9;
            printf(c < BLAS_PLAIN ? " %7.1f" : " %10.1f", b->gflops[s][i][c]);
            if (c < BLAS_PLAIN && i == 0)
                printf(" (%4.1f)", (double)dense_matrix_bytes(o.matrix[c]) / t * 1e-9);
            else if (c < BLAS_PLAIN)
                printf("       ");
        }
        printf("\n");
        fflush(stdout);
    }
    operands_fini(&o);
}

/* Geometric mean over the shapes of column a / column b. */
static double ratio(const struct bench *b, uint32_t rows, enum column over, enum column under)
{
    double sum = 0;
    uint32_t i = 0;

    while (row_counts[i] != rows)
        i++;
    for (uint32_t s = 0; s < b->n_shapes; s++)
        sum += log(b->gflops[s][i][over] / b->gflops[s][i][under]);
    return exp(sum / b->n_shapes);
}

static int write_json(const struct bench *b)
{
    FILE *f = fopen(b->json, "w");
    const char *separator = "";

    if (f == NULL)
        return -errno;
    fprintf(f,
            "{\"title\": \"dense products, one thread, %s\", \"x_label\": \"rows\", "
            "\"y_label\": \"GFLOP/s\", \"log_x\": true, \"series\": [",
            isa_name(b->isa));
    for (uint32_t s = 0; s < b->n_shapes; s++) {
        for (enum column c = OURS_F32; c < (b->have_blas ? N_COLUMNS : BLAS_PLAIN); c++) {
            fprintf(f, "%s\n  {\"name\": \"%ux%u %s\", \"x\": [", separator, b->shapes[s].n,
                    b->shapes[s].k, column_names[c]);
            for (uint32_t i = 0; i < N_ROW_COUNTS; i++)
                fprintf(f, "%s%u", i ? ", " : "", row_counts[i]);
            fprintf(f, "], \"y\": [");
            for (uint32_t i = 0; i < N_ROW_COUNTS; i++)
                fprintf(f, "%s%.2f", i ? ", " : "", b->gflops[s][i][c]);
            fprintf(f, "]}");
            separator = ",";
        }
    }
    fprintf(f, "]}\n");
    return fclose(f) == 0 ? 0 : -errno;
}

static void summary(const struct bench *b)
{
    if (!b->have_blas) {
        printf("gemm: OpenBLAS is not installed, no comparison\n");
        return;
    }
    printf("\nratios of GFLOP/s, geometric mean over the shapes\n");
    printf("gemm_vs_blas_512=%.2f gemm_vs_blas_64=%.2f gemm_vs_blas_1=%.2f gemm_vs_tiles_64=%.2f "
           "gemm_vs_tiles_1=%.2f gemm_q4_1_vs_blas_512=%.2f gemm_q4_1_vs_blas_1=%.2f\n",
           ratio(b, 512, OURS_F32, BLAS_PLAIN), ratio(b, 64, OURS_F32, BLAS_PLAIN),
           ratio(b, 1, OURS_F32, BLAS_PLAIN), ratio(b, 64, OURS_F32, BLAS_TILES),
           ratio(b, 1, OURS_F32, BLAS_TILES), ratio(b, 512, OURS_Q4_1, BLAS_PLAIN),
           ratio(b, 1, OURS_Q4_1, BLAS_PLAIN));
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return false;
        if (strcmp(argv[i], "--json") == 0) {
            b->json = argv[i + 1];
        } else if (strcmp(argv[i], "--repeat") == 0) {
            int n = atoi(argv[i + 1]);

            if (n < 5 || n > REPEAT_MAX)
                return false;
            b->repeat = (uint32_t)n;
        } else if (strcmp(argv[i], "--shape") == 0) {
            b->n_shapes = 1;
            if (sscanf(argv[i + 1], "%ux%u", &b->shapes[0].n, &b->shapes[0].k) != 2 ||
                b->shapes[0].n == 0 || b->shapes[0].k == 0 || b->shapes[0].k % WEIGHT_BLOCK != 0)
                return false;
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct bench b = {.repeat = 7, .n_shapes = N_SHAPES_MAX};

    memcpy(b.shapes, default_shapes, sizeof default_shapes);
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "usage: bench_gemm [--json FILE] [--shape OUTPUTSxK] [--repeat 5..%d]\n"
                "K is a multiple of 32\n",
                REPEAT_MAX);
        return 2;
    }
    if (isa_detect(&b.isa) != 0)
        return 1;
    invariant(team_create(&b.team, 1, NULL, 0) == 0);
    b.have_blas = blas_ref_open(&b.blas, b.isa) == 0;
    printf("instruction set %s; one thread; medians of %u; %s\n", isa_name(b.isa), b.repeat,
           b.have_blas ? b.blas.config : "no OpenBLAS");
    for (uint32_t s = 0; s < b.n_shapes; s++)
        bench_shape(&b, s);
    if (b.json != NULL && write_json(&b) != 0)
        fprintf(stderr, "cannot write %s\n", b.json);
    summary(&b);
    blas_ref_close(&b.blas);
    team_destroy(b.team);
    return 0;
}
