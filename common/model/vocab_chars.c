/* SentencePiece's BPE: two neighbouring symbols may merge where their texts together are a token,
 * and the merge with the best score goes first.  So every way to cut a token in two whose halves
 * can be symbols is a merge, with the rank of the token's score.  A symbol is a token, or a single
 * character that is part of one. */
#include "common/model/vocab_build.h"

#include "common/model/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* U+2581, which stands for a space. */
#define SPACE "\xe2\x96\x81"

/* Longer tokens are never made by merging: trying all cuts of a token takes the square of its
 * length, and SentencePiece makes none beyond 16 characters unless told to. */
#define MERGED_BYTES_MAX 256

static const struct gguf_string nothing = {"", 0};

static bool is_space(const char *p, size_t len)
{
    return len == 3 && memcmp(p, SPACE, 3) == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" */
static int byte_token(struct gguf_string text)
{
    int high, low;

    if (text.len != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>')
        return -1;
    high = hex_digit(text.data[3]);
    low = hex_digit(text.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

size_t vocab_chars_decode(enum token_type type, struct gguf_string text, char *out)
{
    const int byte = type == TOKEN_BYTE ? byte_token(text) : -1;
    size_t n = 0;

    if (byte >= 0) {
        out[0] = (char)byte;
        return 1;
    }
    for (size_t i = 0; i < text.len; n++)
        if (text.len - i >= 3 && is_space(text.data + i, 3)) {
            out[n] = ' ';
            i += 3;
        } else {
            out[n] = text.data[i++];
        }
    return n;
}

/* ---- Characters ------------------------------------------------------------------------------ */

static uint32_t char_key(const char *bytes, size_t len)
{
    uint32_t key = 0;

    for (size_t i = 0; i < len; i++)
        key |= (uint32_t)(unsigned char)bytes[i] << (8 * i);
    return key;
}

static struct vocab_char *char_slot(const struct vocab *v, uint32_t key)
{
    const uint64_t h = key * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t i = (h ^ h >> 32) & v->chars_mask;

    while (v->chars[i].key && v->chars[i].key != key)
        i = (i + 1) & v->chars_mask;
    return &v->chars[i];
}

uint32_t vocab_char_symbol(const struct vocab *v, const char *bytes, size_t len)
{
    const uint32_t key = char_key(bytes, len);
    const struct vocab_char *c = char_slot(v, key);

    return key && c->key ? c->symbol : TOKENIZER_NONE;
}

/* Bytes of the character at text[at]; a byte that is no UTF-8 counts as one. */
static size_t char_len(struct gguf_string text, size_t at)
{
    size_t len;

    return utf8_next(text.data + at, text.len - at, &len) == UTF8_COMPLETE ? len : 1;
}

/* Can this token be the result of a merge, or a symbol? */
static bool is_text(const struct vocab_token *t)
{
    return t->type == TOKEN_NORMAL || t->type == TOKEN_UNUSED || t->type == TOKEN_USER_DEFINED;
}

static uint32_t find_text(const struct vocab_builder *s, struct gguf_string text)
{
    const uint32_t id = vocab_build_find(s, text, nothing);

    return id != TOKENIZER_NONE && is_text(&s->v->tokens[id]) ? id : TOKENIZER_NONE;
}

/* In raw text a space is a space: that is what the key is made of. */
static void add_char(struct vocab_builder *s, struct gguf_string c, uint32_t *n_symbols)
{
    const uint32_t key = is_space(c.data, c.len) ? ' ' : char_key(c.data, c.len);
    struct vocab_char *slot = char_slot(s->v, key);

    if (!key || slot->key)
        return;
    *slot = (struct vocab_char){.key = key, .symbol = find_text(s, c)};
    if (slot->symbol == TOKENIZER_NONE)
        slot->symbol = (*n_symbols)++;
}

static uint64_t count_chars(const struct vocab_builder *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->v->n_tokens; i++)
        if (s->texts[i].len <= MERGED_BYTES_MAX)
            n += s->texts[i].len;
    return n;
}

/* The table has room for a character per byte of the texts, and is then cut to what it holds. */
static int fill_chars(struct vocab_builder *s)
{
    struct vocab *v = s->v;
    uint32_t n_symbols = v->n_tokens;

    v->chars_mask = vocab_table_size(count_chars(s)) - 1;
    v->chars = calloc(v->chars_mask + 1, sizeof(*v->chars));
    if (!v->chars)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        const struct gguf_string text = s->texts[i];

        if (!is_text(&v->tokens[i]) || text.len > MERGED_BYTES_MAX)
            continue;
        for (size_t at = 0, len; at < text.len; at += len) {
            len = char_len(text, at);
            add_char(s, (struct gguf_string){text.data + at, len}, &n_symbols);
        }
    }
    return 0;
}

/* ---- Merges ---------------------------------------------------------------------------------- */

/* The symbol that a text can be. */
static uint32_t symbol_of(const struct vocab_builder *s, struct gguf_string text)
{
    const uint32_t id = find_text(s, text);

    if (id != TOKENIZER_NONE || char_len(text, 0) != text.len)
        return id;
    return is_space(text.data, text.len) ? vocab_char_symbol(s->v, " ", 1)
                                         : vocab_char_symbol(s->v, text.data, text.len);
}

/* Adds the merges that make token id (rank; s->v->merges NULL: only counts).  Returns their number.
 */
static uint64_t add_cuts(struct vocab_builder *s, uint32_t id, uint32_t rank)
{
    const struct gguf_string text = s->texts[id];
    uint64_t n = 0;

    if (!is_text(&s->v->tokens[id]) || text.len > MERGED_BYTES_MAX)
        return 0;
    if (find_text(s, text) != id) /* the second of two with one text */
        return 0;
    for (size_t at = text.len ? char_len(text, 0) : 0; at < text.len; at += char_len(text, at)) {
        const uint32_t left = symbol_of(s, (struct gguf_string){text.data, at});
        const uint32_t right =
            left == TOKENIZER_NONE
                ? left
                : symbol_of(s, (struct gguf_string){text.data + at, text.len - at});

        if (right == TOKENIZER_NONE)
            continue;
        n++;
        if (s->v->merges)
            vocab_build_add_merge(s->v, left, right, rank, id);
    }
    return n;
}

struct scored {
    float score;
    uint32_t id;
};

static int compare_scores(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    if (x->score > y->score || x->score < y->score)
        return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int read_scores(struct vocab_builder *s, struct scored *out)
{
    struct gguf_array a;
    const int rc = gguf_get_array(s->g, "tokenizer.ggml.scores", &a, s->err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    if (a.n != s->v->n_tokens) {
        gguf_error_set(s->err,
                       "tokenizer.ggml.scores at offset %" PRIu64 ": expected %u, found %" PRIu64,
                       a.file_off, s->v->n_tokens, a.n);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < s->v->n_tokens; i++) {
        out[i].id = i;
        if (gguf_array_f32(&a, i, &out[i].score) || isnan(out[i].score)) {
            gguf_error_set(s->err,
                           "tokenizer.ggml.scores at offset %" PRIu64 ": element %u is no number",
                           a.file_off, i);
            return -EINVAL;
        }
    }
    return 0;
}

/* Equal scores have equal rank: then the leftmost pair goes first. */
static int fill_merges(struct vocab_builder *s, const struct scored *scores)
{
    uint32_t rank = 0;
    uint64_t n = 0;
    int rc;

    for (uint32_t i = 0; i < s->v->n_tokens; i++)
        n += add_cuts(s, i, 0);
    rc = vocab_build_merges(s->v, n);
    for (uint32_t i = 0; !rc && i < s->v->n_tokens; i++) {
        if (i > 0 && scores[i].score < scores[i - 1].score)
            rank = i;
        add_cuts(s, scores[i].id, rank);
    }
    return rc;
}

/* If so, text may be cut before every space that follows something else: no merge reaches across.
 */
static bool words_start_with_space(const struct vocab *v)
{
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        const char *bytes = vocab_bytes(v, i);

        for (uint32_t k = 1; is_text(&v->tokens[i]) && k < v->tokens[i].len; k++)
            if (bytes[k] == ' ' && bytes[k - 1] != ' ')
                return false;
    }
    return true;
}

int vocab_chars_load(struct vocab_builder *s)
{
    struct scored *scores = calloc((size_t)s->v->n_tokens, sizeof(*scores));
    int rc = scores ? read_scores(s, scores) : -ENOMEM;

    if (!rc)
        rc = fill_chars(s);
    if (!rc) {
        qsort(scores, s->v->n_tokens, sizeof(*scores), compare_scores);
        rc = fill_merges(s, scores);
    }
    s->v->words_start_with_space = words_start_with_space(s->v);
    free(scores);
    return rc;
}
