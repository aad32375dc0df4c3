#include "common/model/vocab.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_MAX (1u << 24)

/* What is needed while the tables are built: the texts as in the file, and a hash of them. */
struct builder {
    struct vocab *v;
    const struct gguf *g;
    struct gguf_error *err;
    struct gguf_string *texts; /* [n_tokens] */
    uint32_t *slots;           /* id + 1, 0 is empty */
    uint64_t slots_mask;
};

static uint64_t hash_two(struct gguf_string a, struct gguf_string b)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < a.len; i++)
        h = (h ^ (unsigned char)a.data[i]) * UINT64_C(1099511628211);
    for (size_t i = 0; i < b.len; i++)
        h = (h ^ (unsigned char)b.data[i]) * UINT64_C(1099511628211);
    return h ^ h >> 29;
}

static uint64_t table_size(uint64_t n)
{
    uint64_t size = 16;

    while (size < 2 * n)
        size *= 2;
    return size;
}

/* Does token id's text equal a followed by b? */
static bool text_is(const struct builder *s, uint32_t id, struct gguf_string a,
                    struct gguf_string b)
{
    const struct gguf_string t = s->texts[id];

    return t.len == a.len + b.len && memcmp(t.data, a.data, a.len) == 0 &&
           (b.len == 0 || memcmp(t.data + a.len, b.data, b.len) == 0);
}

/* The slot of the token whose text is a followed by b, or the empty slot where it would be. */
static uint64_t find_slot(const struct builder *s, struct gguf_string a, struct gguf_string b)
{
    uint64_t i = hash_two(a, b) & s->slots_mask;

    while (s->slots[i] && !text_is(s, s->slots[i] - 1, a, b))
        i = (i + 1) & s->slots_mask;
    return i;
}

static uint32_t find_id(const struct builder *s, struct gguf_string a, struct gguf_string b)
{
    const uint32_t slot = s->slots[find_slot(s, a, b)];

    return slot ? slot - 1 : TOKENIZER_NONE;
}

static const struct gguf_string nothing = {"", 0};

/* GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up. */
static bool stands_for_itself(unsigned c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

/* code point -> byte, -1 for none; built once per vocabulary. */
static void fill_alphabet(int16_t byte_of[0x144])
{
    int16_t next = 0x100;

    memset(byte_of, 0xff, 0x144 * sizeof(*byte_of));
    for (int16_t c = 0; c < 256; c++)
        byte_of[stands_for_itself((unsigned)c) ? c : next++] = c;
}

/* Decodes a text of that alphabet (code points below U+0144 take two bytes at most).  Returns the
 * number of bytes written, or -1 if the text has other characters. */
static int64_t decode_text(const int16_t byte_of[0x144], struct gguf_string text, char *out)
{
    int64_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        unsigned c = (unsigned char)text.data[i];

        if (c >= 0x80) {
            if (c < 0xc2 || c > 0xc5 || i + 1 == text.len)
                return -1;
            c = (c & 0x1f) << 6 | ((unsigned char)text.data[++i] & 0x3f);
        }
        if (c >= 0x144 || byte_of[c] < 0)
            return -1;
        out[n++] = (char)byte_of[c];
    }
    return n;
}

static int read_texts(struct builder *s)
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

static int read_types(struct builder *s)
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

static bool is_special(const struct vocab_token *t)
{
    return t->type == TOKEN_CONTROL || t->type == TOKEN_USER_DEFINED || t->type == TOKEN_UNKNOWN;
}

static int64_t decode_token(const int16_t byte_of[0x144], const struct vocab_token *t,
                            struct gguf_string text, char *out)
{
    const int64_t n = is_special(t) ? -1 : decode_text(byte_of, text, out);

    if (n >= 0)
        return n;
    if (text.len)
        memcpy(out, text.data, text.len);
    return (int64_t)text.len;
}

/* The raw bytes of all tokens, one after the other: never longer than the texts. */
static int fill_pool(struct builder *s)
{
    int16_t byte_of[0x144];
    struct vocab *v = s->v;
    uint64_t total = 0, used = 0;

    fill_alphabet(byte_of);
    for (uint32_t i = 0; i < v->n_tokens; i++)
        total += s->texts[i].len;
    if (total > UINT32_MAX) {
        gguf_error_set(s->err, "tokenizer.ggml.tokens: %" PRIu64 " bytes of text are too many",
                       total);
        return -EINVAL;
    }
    v->pool = malloc(total + 1);
    if (!v->pool)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        struct vocab_token *t = &v->tokens[i];

        t->off = (uint32_t)used;
        t->len = (uint32_t)decode_token(byte_of, t, s->texts[i], v->pool + used);
        used += t->len;
        if (t->len > v->piece_bytes_max)
            v->piece_bytes_max = t->len;
    }
    return 0;
}

/* Of two tokens with the same text the first counts. */
static int fill_slots(struct builder *s)
{
    const uint64_t size = table_size(s->v->n_tokens);

    s->slots = calloc(size, sizeof(*s->slots));
    if (!s->slots)
        return -ENOMEM;
    s->slots_mask = size - 1;
    for (uint32_t i = 0; i < s->v->n_tokens; i++) {
        const uint64_t slot = find_slot(s, s->texts[i], nothing);

        if (!s->slots[slot])
            s->slots[slot] = i + 1;
    }
    return 0;
}

static void fill_byte_ids(struct vocab *v)
{
    for (int c = 0; c < 256; c++)
        v->byte_id[c] = TOKENIZER_NONE;
    for (uint32_t i = v->n_tokens; i-- > 0;)
        if (v->tokens[i].len == 1 && !is_special(&v->tokens[i]))
            v->byte_id[(unsigned char)*vocab_bytes(v, i)] = i;
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

/* "left right": a merge whose tokens are not all in the vocabulary can never be used. */
static void add_merge(struct builder *s, struct gguf_string text, uint32_t rank)
{
    const char *space = text.len > 1 ? memchr(text.data + 1, ' ', text.len - 1) : NULL;
    struct gguf_string left, right;
    uint32_t l, r, both;

    if (!space)
        return;
    left = (struct gguf_string){text.data, (size_t)(space - text.data)};
    right = (struct gguf_string){space + 1, text.len - left.len - 1};
    l = find_id(s, left, nothing);
    r = find_id(s, right, nothing);
    both = find_id(s, left, right);
    if (l == TOKENIZER_NONE || r == TOKENIZER_NONE || both == TOKENIZER_NONE)
        return;

    struct vocab_merge *m = &s->v->merges[merge_slot(s->v, merge_key(l, r))];

    if (!m->key)
        *m = (struct vocab_merge){.key = merge_key(l, r), .rank = rank, .id = both};
}

static int fill_merges(struct builder *s)
{
    struct gguf_array a;
    struct gguf_cursor cursor = {0};
    struct gguf_string text;
    uint32_t rank = 0;
    const int rc = gguf_get_array(s->g, "tokenizer.ggml.merges", &a, s->err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    if (a.type != GGUF_STRING || a.n > TOKENS_MAX) {
        gguf_error_set(s->err,
                       "tokenizer.ggml.merges at offset %" PRIu64 ": expected at most %u strings",
                       a.file_off, TOKENS_MAX);
        return -EINVAL;
    }
    s->v->merges_mask = table_size(a.n) - 1;
    s->v->merges = calloc(s->v->merges_mask + 1, sizeof(*s->v->merges));
    if (!s->v->merges)
        return -ENOMEM;
    while (gguf_array_next(&a, &cursor, &text))
        add_merge(s, text, rank++);
    return 0;
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
        if (is_special(&v->tokens[id]) && v->tokens[id].len)
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

static int build(struct builder *s)
{
    int rc = read_texts(s);

    if (!rc)
        rc = read_types(s);
    if (!rc)
        rc = fill_pool(s);
    if (!rc)
        rc = fill_slots(s);
    if (!rc)
        rc = fill_merges(s);
    if (!rc)
        rc = fill_special(s->v);
    if (rc)
        return rc;
    fill_byte_ids(s->v);
    mark_eog_names(s->v);
    return 0;
}

int vocab_init(struct vocab *v, const struct gguf *g, struct gguf_error *err)
{
    struct builder s = {.v = v, .g = g, .err = err};
    int rc;

    memset(v, 0, sizeof(*v));
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
    memset(v, 0, sizeof(*v));
}
