#include "common/model/vocab.h"

#include "common/model/vocab_build.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_MAX (1u << 24)

static uint64_t hash_two(struct gguf_string a, struct gguf_string b)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < a.len; i++)
        h = (h ^ (unsigned char)a.data[i]) * UINT64_C(1099511628211);
    for (size_t i = 0; i < b.len; i++)
        h = (h ^ (unsigned char)b.data[i]) * UINT64_C(1099511628211);
    return h ^ h >> 29;
}

uint64_t vocab_table_size(uint64_t n)
{
    uint64_t size = 16;

    while (size < 2 * n)
        size *= 2;
    return size;
}

/* Does token id's text equal a followed by b? */
static bool text_is(const struct vocab_builder *s, uint32_t id, struct gguf_string a,
                    struct gguf_string b)
{
    const struct gguf_string t = s->texts[id];

    return t.len == a.len + b.len && memcmp(t.data, a.data, a.len) == 0 &&
           (b.len == 0 || memcmp(t.data + a.len, b.data, b.len) == 0);
}

/* The slot of the token whose text is a followed by b, or the empty slot where it would be. */
static uint64_t find_slot(const struct vocab_builder *s, struct gguf_string a, struct gguf_string b)
{
    uint64_t i = hash_two(a, b) & s->slots_mask;

    while (s->slots[i] && !text_is(s, s->slots[i] - 1, a, b))
        i = (i + 1) & s->slots_mask;
    return i;
}

uint32_t vocab_build_find(const struct vocab_builder *s, struct gguf_string a, struct gguf_string b)
{
    const uint32_t slot = s->slots[find_slot(s, a, b)];

    return slot ? slot - 1 : TOKENIZER_NONE;
}

static int read_texts(struct vocab_builder *s)
{
    struct gguf_array a;
    struct gguf_cursor cursor = {0};
    const int rc = gguf_get_array(s->g, "tokenizer.ggml.tokens", &a, s->err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    if (a.type != GGUF_STRING || a.n == 0 || a.n > TOKENS_MAX) {
        gguf_error_set(s->err,
                       "tokenizer.ggml.tokens at offset %" PRIu64 ": expected 1 to %u strings",
                       a.file_off, TOKENS_MAX);
        return -EINVAL;
    }
    s->v->n_tokens = (uint32_t)a.n;
    s->texts = calloc(a.n, sizeof(*s->texts));
    s->v->tokens = calloc(a.n, sizeof(*s->v->tokens));
    if (!s->texts || !s->v->tokens)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->v->n_tokens; i++)
        gguf_array_next(&a, &cursor, &s->texts[i]);
    return 0;
}

static int read_types(struct vocab_builder *s)
{
    struct gguf_array a;
    const int rc = gguf_get_array(s->g, "tokenizer.ggml.token_type", &a, s->err);

    for (uint32_t i = 0; i < s->v->n_tokens; i++)
        s->v->tokens[i].type = TOKEN_NORMAL;
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    if (a.n != s->v->n_tokens) {
        gguf_error_set(
            s->err, "tokenizer.ggml.token_type at offset %" PRIu64 ": expected %u, found %" PRIu64,
            a.file_off, s->v->n_tokens, a.n);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < s->v->n_tokens; i++) {
        uint64_t type;

        if (gguf_array_u64(&a, i, &type) || type < TOKEN_NORMAL || type > TOKEN_BYTE) {
            gguf_error_set(s->err,
                           "tokenizer.ggml.token_type at offset %" PRIu64 ": element %u is no type",
                           a.file_off, i);
            return -EINVAL;
        }
        s->v->tokens[i].type = (uint8_t)type;
    }
    return 0;
}

static size_t decode_token(enum vocab_kind kind, const struct vocab_token *t,
                           struct gguf_string text, char *out)
{
    if (vocab_is_special(t)) {
        memcpy(out, text.data, text.len);
        return text.len;
    }
    if (kind == VOCAB_BYTES)
        return vocab_bytes_decode(text, out);
    return vocab_chars_decode((enum token_type)t->type, text, out);
}

/* The raw bytes of all tokens, one after the other: never longer than the texts. */
static int fill_pool(struct vocab_builder *s)
{
    struct vocab *v = s->v;
    uint64_t total = 0, used = 0;

    for (uint32_t i = 0; i < v->n_tokens; i++)
        total += s->texts[i].len;
    if (total > UINT32_MAX) {
        gguf_error_at_key(s->err, s->g, "tokenizer.ggml.tokens",
                          "%" PRIu64 " bytes of text are too many", total);
        return -EINVAL;
    }
    v->pool = malloc(total + 1);
    if (!v->pool)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        struct vocab_token *t = &v->tokens[i];

        t->off = (uint32_t)used;
        t->len = (uint32_t)decode_token(v->kind, t, s->texts[i], v->pool + used);
        used += t->len;
        if (t->len > v->piece_bytes_max)
            v->piece_bytes_max = t->len;
    }
    return 0;
}

/* Of two tokens with the same text the first counts. */
static int fill_slots(struct vocab_builder *s)
{
    const uint64_t size = vocab_table_size(s->v->n_tokens);

    s->slots = calloc(size, sizeof(*s->slots));
    if (!s->slots)
        return -ENOMEM;
    s->slots_mask = size - 1;
    for (uint32_t i = 0; i < s->v->n_tokens; i++) {
        const uint64_t slot = find_slot(s, s->texts[i], (struct gguf_string){"", 0});

        if (!s->slots[slot])
            s->slots[slot] = i + 1;
    }
    return 0;
}

/* Tokens of one byte; SentencePiece has some for bytes as such, beside those of characters. */
static void fill_byte_ids(struct vocab *v)
{
    for (int c = 0; c < 256; c++)
        v->byte_id[c] = TOKENIZER_NONE;
    for (uint32_t i = v->n_tokens; i-- > 0;) {
        const struct vocab_token *t = &v->tokens[i];
        const bool is_byte = v->kind == VOCAB_BYTES ? !vocab_is_special(t) : t->type == TOKEN_BYTE;

        if (t->len == 1 && is_byte)
            v->byte_id[(unsigned char)*vocab_bytes(v, i)] = i;
    }
}

static uint64_t merge_key(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 32 | right) + 1;
}

static uint64_t merge_slot(const struct vocab *v, uint64_t key)
{
    uint64_t h = key * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t i = (h ^ h >> 32) & v->merges_mask;

    while (v->merges[i].key && v->merges[i].key != key)
        i = (i + 1) & v->merges_mask;
    return i;
}

const struct vocab_merge *vocab_find_merge(const struct vocab *v, uint32_t left, uint32_t right)
{
    const struct vocab_merge *m;

    if (left == TOKENIZER_NONE || right == TOKENIZER_NONE)
        return NULL;
    m = &v->merges[merge_slot(v, merge_key(left, right))];
    return m->key ? m : NULL;
}

int vocab_build_merges(struct vocab *v, uint64_t n)
{
    v->merges_mask = vocab_table_size(n) - 1;
    v->merges = calloc(v->merges_mask + 1, sizeof(*v->merges));
    return v->merges ? 0 : -ENOMEM;
}

void vocab_build_add_merge(struct vocab *v, uint32_t left, uint32_t right, uint32_t rank,
                           uint32_t id)
{
    struct vocab_merge *m = &v->merges[merge_slot(v, merge_key(left, right))];

    if (!m->key)
        *m = (struct vocab_merge){.key = merge_key(left, right), .rank = rank, .id = id};
}

uint64_t vocab_hash(const char *bytes, size_t len)
{
    return hash_two((struct gguf_string){bytes, len}, (struct gguf_string){"", 0});
}

static uint64_t word_slot(const struct vocab *v, const char *bytes, size_t len)
{
    uint64_t i = vocab_hash(bytes, len) & v->words_mask;

    while (v->words[i] && !(v->tokens[v->words[i] - 1].len == len &&
                            memcmp(vocab_bytes(v, v->words[i] - 1), bytes, len) == 0))
        i = (i + 1) & v->words_mask;
    return i;
}

int vocab_index_words(struct vocab *v)
{
    v->words_mask = vocab_table_size(v->n_tokens) - 1;
    v->words = calloc(v->words_mask + 1, sizeof(*v->words));
    if (!v->words)
        return -ENOMEM;
    for (uint32_t i = v->n_tokens; i-- > 0;)
        if (!vocab_is_special(&v->tokens[i]) && v->tokens[i].len)
            v->words[word_slot(v, vocab_bytes(v, i), v->tokens[i].len)] = i + 1;
    return 0;
}

uint32_t vocab_find_word(const struct vocab *v, const char *bytes, size_t len)
{
    const uint32_t slot = v->words[word_slot(v, bytes, len)];

    return slot ? slot - 1 : TOKENIZER_NONE;
}

static int compare_special(const void *a, const void *b, void *context)
{
    const struct vocab *v = context;
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    const struct vocab_token *s = &v->tokens[x], *t = &v->tokens[y];
    const unsigned char first_s = (unsigned char)*vocab_bytes(v, x);
    const unsigned char first_t = (unsigned char)*vocab_bytes(v, y);

    if (first_s != first_t)
        return first_s < first_t ? -1 : 1;
    if (s->len != t->len)
        return s->len > t->len ? -1 : 1;
    return x < y ? -1 : 1;
}

static int fill_special(struct vocab *v)
{
    uint32_t i = 0;

    v->special = malloc((size_t)v->n_tokens * sizeof(*v->special));
    if (!v->special)
        return -ENOMEM;
    for (uint32_t id = 0; id < v->n_tokens; id++)
        if (vocab_is_special(&v->tokens[id]) && v->tokens[id].len)
            v->special[v->n_special++] = id;
    qsort_r(v->special, v->n_special, sizeof(*v->special), compare_special, v);
    for (unsigned c = 0; c <= 256; c++) {
        while (i < v->n_special && (unsigned char)*vocab_bytes(v, v->special[i]) < c)
            i++;
        v->special_from[c] = i;
    }
    return 0;
}

/* Names under which model families end a turn; a file names one of them as EOS and often uses more.
 */
static void mark_eog_names(struct vocab *v)
{
    static const char *const names[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>",
                                        "<|eom_id|>", "<end_of_turn>", "<|end|>",
                                        "<EOT>",      "</s>"};

    for (uint32_t i = 0; i < v->n_special; i++)
        for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
            struct vocab_token *t = &v->tokens[v->special[i]];

            if (t->type == TOKEN_CONTROL && t->len == strlen(names[k]) &&
                memcmp(v->pool + t->off, names[k], t->len) == 0)
                t->is_eog = true;
        }
}

static int build(struct vocab_builder *s)
{
    int rc = read_texts(s);

    if (!rc)
        rc = read_types(s);
    if (!rc)
        rc = fill_pool(s);
    if (!rc)
        rc = fill_slots(s);
    if (!rc)
        rc = s->v->kind == VOCAB_BYTES ? vocab_bytes_load(s) : vocab_chars_load(s);
    if (!rc)
        rc = fill_special(s->v);
    if (rc)
        return rc;
    fill_byte_ids(s->v);
    mark_eog_names(s->v);
    return 0;
}

int vocab_init(struct vocab *v, enum vocab_kind kind, const struct gguf *g, struct gguf_error *err)
{
    struct vocab_builder s = {.v = v, .g = g, .err = err};
    int rc;

    memset(v, 0, sizeof(*v));
    v->kind = kind;
    rc = build(&s);
    free(s.texts);
    free(s.slots);
    if (rc)
        vocab_fini(v);
    return rc;
}

void vocab_fini(struct vocab *v)
{
    free(v->tokens);
    free(v->pool);
    free(v->merges);
    free(v->special);
    free(v->chars);
    free(v->words);
    memset(v, 0, sizeof(*v));
}
