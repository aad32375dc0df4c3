/* bench_tokenizer.c - encoding speed on English text, and on a run of one letter
 *
 *   bench_tokenizer [--json FILE] [--repeat N] TEXT VOCABULARY.gguf...
 *
 * One thread.  Times are processor time of that thread, medians after one run to warm up; the text
 * is encoded in one call, and the run of 1 MB in another.  MB are 10^6 bytes.  The last line has
 * the slowest vocabulary of each column.  `tests/bench/run tokenizer` brings text and vocabularies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/invariant.h"
#include "common/model/tokenizer.h"
#include "tests/bench/median.h"

enum { RUN_BYTES = 1000000, REPEAT_DEFAULT = 5, REPEAT_MAX = 101, VOCABULARIES_MAX = 16 };

struct result {
    const char *name;
    double mb_s, run_mb_s, bytes_per_token;
};

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;

    if (!f || fseek(f, 0, SEEK_END) != 0)
        return NULL;
    *len = (size_t)ftell(f);
    rewind(f);
    text = malloc(*len + 1);
    if (text && fread(text, 1, *len, f) != *len) {
        free(text);
        text = NULL;
    }
    fclose(f);
    return text;
}

/* Median seconds of one encoding; *n_ids: its tokens. */
static double measure(const struct tokenizer *t, const char *text, size_t len, int repeat,
                      int64_t *n_ids)
{
    const size_t cap = tokenizer_encode_bound(len);
    uint32_t *ids = malloc(cap * sizeof(*ids));
    double seconds[REPEAT_MAX];

    invariant(ids);
    *n_ids = tokenizer_encode(t, text, len, 0, ids, cap);
    invariant(*n_ids > 0);
    for (int i = 0; i < repeat; i++) {
        const double start = thread_seconds();

        invariant(tokenizer_encode(t, text, len, 0, ids, cap) == *n_ids);
        seconds[i] = thread_seconds() - start;
    }
    free(ids);
    return median_of(seconds, (size_t)repeat);
}

static int run_vocabulary(struct result *r, const char *text, size_t len, int repeat)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct gguf_error err;
    char *letters = malloc(RUN_BYTES);
    int64_t n, n_run;

    invariant(letters);
    if (gguf_open(r->name, &g, &err) || tokenizer_open(g, &t, &err)) {
        fprintf(stderr, "bench_tokenizer: %s: %s\n", r->name, err.text);
        free(letters);
        return 1;
    }
    gguf_close(g);
    memset(letters, 'a', RUN_BYTES);
    r->mb_s = (double)len * 1e-6 / measure(t, text, len, repeat, &n);
    r->run_mb_s = RUN_BYTES * 1e-6 / measure(t, letters, RUN_BYTES, repeat, &n_run);
    r->bytes_per_token = (double)len / (double)n;
    printf("%-44s %6.1f MB/s  run of one letter %5.1f MB/s  %.2f bytes a token\n", r->name, r->mb_s,
           r->run_mb_s, r->bytes_per_token);
    tokenizer_close(t);
    free(letters);
    return 0;
}

static void put_series(FILE *f, const char *name, const struct result *r, int n, bool run)
{
    fprintf(f, "{\"name\": \"%s\", \"x\": [", name);
    for (int i = 0; i < n; i++)
        fprintf(f, "%s\"%s\"", i ? ", " : "", r[i].name);
    fprintf(f, "], \"y\": [");
    for (int i = 0; i < n; i++)
        fprintf(f, "%s%.3f", i ? ", " : "", run ? r[i].run_mb_s : r[i].mb_s);
    fprintf(f, "]}");
}

static int write_json(const char *path, const struct result *r, int n)
{
    FILE *f = fopen(path, "w");

    if (!f)
        return 1;
    fprintf(f, "{\"title\": \"tokenizer\", \"x_label\": \"vocabulary\", \"y_label\": \"MB/s\",\n"
               " \"series\": [");
    put_series(f, "English text", r, n, false);
    fprintf(f, ",\n  ");
    put_series(f, "1 MB of one letter", r, n, true);
    fprintf(f, "]}\n");
    return fclose(f) != 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: bench_tokenizer [--json FILE] [--repeat 1..%d] TEXT VOCABULARY.gguf...\n",
            REPEAT_MAX);
    return 2;
}

int main(int argc, char **argv)
{
    struct result results[VOCABULARIES_MAX];
    const char *json = NULL;
    int repeat = REPEAT_DEFAULT, i = 1, n = 0, rc = 0;
    double mb_s = 1e9, run_mb_s = 1e9;
    size_t len = 0;

    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        if (strcmp(argv[i], "--json") == 0)
            json = argv[i + 1];
        else if (strcmp(argv[i], "--repeat") == 0)
            repeat = atoi(argv[i + 1]);
        else
            return usage();
    }
    if (repeat < 1 || repeat > REPEAT_MAX || i + 2 > argc || argc - i - 1 > VOCABULARIES_MAX)
        return usage();
    char *text = read_file(argv[i++], &len);

    if (!text || len == 0) {
        fprintf(stderr, "bench_tokenizer: %s cannot be read\n", argv[i - 1]);
        return 1;
    }
    for (; !rc && i < argc; i++, n++) {
        results[n].name = argv[i];
        rc = run_vocabulary(&results[n], text, len, repeat);
        mb_s = results[n].mb_s < mb_s ? results[n].mb_s : mb_s;
        run_mb_s = results[n].run_mb_s < run_mb_s ? results[n].run_mb_s : run_mb_s;
    }
    free(text);
    if (rc || (json && write_json(json, results, n)))
        return 1;
    printf("mb_s=%.1f run_mb_s=%.1f\n", mb_s, run_mb_s);
    return 0;
}
