/* bench_kv_quality - what rounding keys and values costs: bf16 and int8 against f16 KV
 *
 *   bench_kv_quality [--json FILE] [--positions N] [--text FILE]...
 *
 * Text is cut into sequences of CONTEXT tokens and fed to the cpu device, teacher forced, once per KV
 * type.  By default kv_quality.txt, a copy of some of this project's pages that stays as it is, so
 * that figures repeat; the text's size and hash are printed.  At every position, against f16: is the likeliest
 * next token the same, and how do the log-probabilities of the token that does come next differ;
 * f32 KV shows what f16 itself costs.  Besides, bytes of KV per token.
 *
 * Needs a model (OMNI_DEMO_MODEL).  Two threads; a minute or two. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/invariant.h"
#include "common/model/gguf.h"
#include "common/model/tokenizer.h"
#include "tests/unit/device_fixture.h"

enum {
    CONTEXT = 1000,
    POSITIONS_MAX = 20000,
    TEXTS_MAX = 16,
    N_TYPES = 4,
    BASE = 0, /* the type that others are compared with */
};

static const struct {
    enum kv_type type;
    const char *name;
} types[N_TYPES] = {
    {KV_TYPE_F16, "f16"}, {KV_TYPE_F32, "f32"}, {KV_TYPE_BF16, "bf16"}, {KV_TYPE_I8, "int8"}};

/* What a position says of its next token. */
struct position {
    uint32_t best;
    double next; /* log-probability of the one that comes */
};

struct summary {
    double agree;   /* of the positions, 0..1 */
    double mean;    /* log-probability, over positions */
    double shift;   /* its mean difference, */
    double spread;  /* and the mean of its magnitude */
    uint32_t bytes; /* of KV per token */
};

struct bench {
    const char *model, *json;
    const char *texts[TEXTS_MAX];
    uint32_t n_texts;
    size_t text_bytes; /* of all texts, and their hash (hash_bytes) */
    uint64_t text_hash;
    uint32_t *ids;
    uint32_t n_positions; /* positions scored: every one of ids but the last of each sequence */
    struct position positions[N_TYPES][POSITIONS_MAX];
    struct summary summaries[N_TYPES];
};

/* ---- Text ------------------------------------------------------------------------------------ */

static char *append_file(char *text, size_t *n, const char *path)
{
    FILE *f = fopen(path, "r");
    long size = -1;

    if (f != NULL && fseek(f, 0, SEEK_END) == 0)
        size = ftell(f);
    if (f == NULL || size < 0 || fseek(f, 0, SEEK_SET) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    text = realloc(text, *n + (size_t)size + 1);
    invariant(text != NULL);
    *n += fread(text + *n, 1, (size_t)size, f);
    fclose(f);
    return text;
}

/* The texts' tokens, as many as are needed. */
static void read_tokens(struct bench *b)
{
    struct gguf_error err;
    struct tokenizer *t;
    struct gguf *g;
    char *text = NULL;
    size_t n = 0;

    for (uint32_t i = 0; i < b->n_texts; i++)
        text = append_file(text, &n, b->texts[i]);
    b->text_bytes = n;
    b->text_hash = hash_bytes(HASH_SEED, text, n);
    if (gguf_open(b->model, &g, &err) != 0 || tokenizer_open(g, &t, &err) != 0) {
        fprintf(stderr, "%s: %s\n", b->model, err.text);
        exit(1);
    }
    gguf_close(g);
    b->ids = malloc(tokenizer_encode_bound(n) * sizeof *b->ids);
    invariant(b->ids != NULL);
    int64_t n_ids = tokenizer_encode(t, text, n, 0, b->ids, tokenizer_encode_bound(n));
    invariant(n_ids >= 0);
    uint32_t n_sequences = (uint32_t)n_ids / (CONTEXT + 1);
    if (n_sequences < (b->n_positions - 1) / CONTEXT + 1) {
        fprintf(stderr, "the texts have %u tokens, too few for %u positions in sequences of %d\n",
                (uint32_t)n_ids, b->n_positions, CONTEXT);
        exit(1);
    }
    tokenizer_close(t);
    free(text);
}

/* ---- Running --------------------------------------------------------------------------------- */

static struct position score(const float *logits, uint32_t n, uint32_t next)
{
    struct position p = {.best = 0};
    double sum = 0;

    for (uint32_t i = 1; i < n; i++)
        p.best = logits[i] > logits[p.best] ? i : p.best;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)logits[p.best]);
    p.next = (double)logits[next] - (double)logits[p.best] - log(sum);
    return p;
}

/* CONTEXT positions of one sequence. */
static void run_sequence(struct device_fixture *f, const uint32_t *ids, struct position *out)
{
    static struct fixture_request request;

    fixture_request_init(f, &request, ids, CONTEXT, CONTEXT);
    for (uint32_t pos = 0; pos < CONTEXT;) {
        uint32_t rows = CONTEXT - pos < CPU_LOGIT_ROWS ? CONTEXT - pos : (uint32_t)CPU_LOGIT_ROWS;

        fixture_add_each(f, &request, rows);
        fixture_sweep(f);
        for (uint32_t i = 0; i < rows; i++, pos++)
            out[pos] = score(fixture_logits(f, i), f->model->n_vocab, ids[pos + 1]);
    }
    fixture_request_fini(f, &request);
}

static void run_type(struct bench *b, uint32_t i)
{
    static struct device_fixture fixture;
    const struct fixture_options o = {
        .path = b->model,
        .kv = types[i].type,
        .n_groups = 1,
        .n_threads = 2,
        .n_kv_blocks = 4 * FIXTURE_TABLE}; /* the fixture has requests of its own */
    struct summary *s = &b->summaries[i];

    fixture_open(&fixture, &o);
    for (uint32_t at = 0; at < b->n_positions; at += CONTEXT)
        run_sequence(&fixture, b->ids + at / CONTEXT * (CONTEXT + 1), &b->positions[i][at]);
    for (uint32_t l = 0; l < fixture.geometry.n_layers; l++)
        s->bytes += geometry_layer_token_bytes(&fixture.geometry, l);
    fixture_close(&fixture);
    for (uint32_t p = 0; p < b->n_positions; p++) {
        const struct position *base = &b->positions[BASE][p], *own = &b->positions[i][p];

        s->agree += own->best == base->best;
        s->mean += own->next;
        s->shift += own->next - base->next;
        s->spread += fabs(own->next - base->next);
    }
    s->agree /= b->n_positions;
    s->mean /= b->n_positions;
    s->shift /= b->n_positions;
    s->spread /= b->n_positions;
}

/* ---- Output ---------------------------------------------------------------------------------- */

static void print_type(const struct bench *b, uint32_t i)
{
    const struct summary *s = &b->summaries[i];

    printf("%-5s %6u %8.2f %% %12.4f %+14.5f %14.5f %12.3f\n", types[i].name, s->bytes,
           100 * s->agree, s->mean, s->shift, s->spread, exp(-s->mean));
    fflush(stdout);
}

static int write_json(const struct bench *b)
{
    FILE *f = fopen(b->json, "w");

    if (f == NULL) {
        fprintf(stderr, "cannot write %s\n", b->json);
        return 1;
    }
    fprintf(f, "{\"text_bytes\": %zu, \"text_hash\": \"%016" PRIx64 "\", \"positions\": %u",
            b->text_bytes, b->text_hash, b->n_positions);
    for (uint32_t i = 0; i < N_TYPES; i++)
        fprintf(f,
                ",\n\"%s\": {\"bytes\": %u, \"agree\": %.5f, \"mean\": %.6f, \"shift\": %.6f, "
                "\"spread\": %.6f}",
                types[i].name, b->summaries[i].bytes, b->summaries[i].agree, b->summaries[i].mean,
                b->summaries[i].shift, b->summaries[i].spread);
    fprintf(f, "}\n");
    fclose(f);
    return 0;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return false;
        if (strcmp(argv[i], "--json") == 0)
            b->json = argv[i + 1];
        else if (strcmp(argv[i], "--positions") == 0)
            b->n_positions = (uint32_t)strtoul(argv[i + 1], NULL, 10) / CONTEXT * CONTEXT;
        else if (strcmp(argv[i], "--text") == 0 && b->n_texts < TEXTS_MAX)
            b->texts[b->n_texts++] = argv[i + 1];
        else
            return false;
    }
    if (b->n_texts == 0)
        b->texts[b->n_texts++] = OMNI_SOURCE_DIR "/tests/bench/kv_quality.txt";
    return b->n_positions > 0 && b->n_positions <= POSITIONS_MAX;
}

int main(int argc, char **argv)
{
    static struct bench b = {.n_positions = 4 * CONTEXT};

    b.model = getenv("OMNI_DEMO_MODEL");
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "usage: bench_kv_quality [--json FILE] [--positions %d..%d] [--text FILE]...\n",
                CONTEXT, POSITIONS_MAX);
        return 2;
    }
    if (b.model == NULL || b.model[0] == '\0') {
        fprintf(stderr, "OMNI_DEMO_MODEL names no model\n");
        return 1;
    }
    read_tokens(&b);
    printf("text of %zu bytes, hash %016" PRIx64 "; %u positions in sequences of %d\n",
           b.text_bytes, b.text_hash, b.n_positions, CONTEXT);
    printf("%-5s %6s %10s %12s %14s %14s %12s\n", "KV", "bytes", "same top", "mean logp",
           "mean change", "mean |change|", "perplexity");
    for (uint32_t i = 0; i < N_TYPES; i++) {
        run_type(&b, i);
        print_type(&b, i);
    }
    free(b.ids);
    return b.json != NULL ? write_json(&b) : 0;
}
