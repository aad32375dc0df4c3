/* Encoding and decoding: text is cut at special tokens, the gaps into words, the words by merges. */
#include "common/model/bpe.h"
#include "common/model/tokenizer_private.h"
#include "common/model/word_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* From here on a cache of words pays for being cleared. */
#define CACHED_TEXT_BYTES 2048

/* One call of encode. */
struct encoder {
    const struct tokenizer *t;
    struct bpe bpe;
    struct word_cache *cache; /* or NULL */
    uint32_t *ids;
    size_t cap, n;
    uint32_t *word_ids; /* scratch for a word that might not fit into what is left of ids */
    size_t word_cap;
    char *first; /* VOCAB_CHARS: the first word of a gap with its space in front */
    size_t first_cap;
    bool text_begins; /* nothing but special tokens before: a space goes in front */
};

static int emit(struct encoder *e, uint32_t id)
{
    if (e->n == e->cap)
        return -ENOSPC;
    e->ids[e->n++] = id;
    return 0;
}

static int emit_all(struct encoder *e, const uint32_t *ids, size_t n)
{
    if (n > e->cap - e->n)
        return -ENOSPC;
    memcpy(e->ids + e->n, ids, n * sizeof(*ids));
    e->n += n;
    return 0;
}

static int reserve_word(struct encoder *e, size_t len)
{
    uint32_t *grown;

    if (len <= e->word_cap)
        return 0;
    grown = realloc(e->word_ids, 2 * len * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    e->word_ids = grown;
    e->word_cap = 2 * len;
    return 0;
}

static int merge_word(struct encoder *e, const char *word, size_t len, size_t *n_ids)
{
    const int rc = reserve_word(e, len);
    int64_t n = rc;

    if (!rc)
        n = bpe_encode(&e->bpe, word, len, e->word_ids);
    if (n < 0)
        return (int)n;
    *n_ids = (size_t)n;
    return emit_all(e, e->word_ids, *n_ids);
}

static int merge_cached(struct encoder *e, const char *word, size_t len)
{
    int hit, rc;
    size_t n = 0;
    struct word_cache_entry *entry = word_cache_find(e->cache, word, len, &hit);

    if (hit)
        return emit_all(e, entry->ids, entry->n_ids);
    rc = merge_word(e, word, len, &n);
    if (!rc)
        word_cache_put(entry, word, len, e->word_ids, n);
    return rc;
}

static int encode_word(void *context, const char *word, size_t len)
{
    struct encoder *e = context;
    size_t n = 0;

    if (len == 0)
        return 0;
    if (e->t->vocab.words) {
        const uint32_t id = vocab_find_word(&e->t->vocab, word, len);

        if (id != TOKENIZER_NONE)
            return emit(e, id);
    }
    if (e->cache && len <= WORD_CACHE_BYTES)
        return merge_cached(e, word, len);
    return merge_word(e, word, len, &n);
}

/* ---- VOCAB_CHARS: words begin at a space behind something else ------------------------------- */

/* Bytes up to the next place where no merge can reach across. */
static size_t chars_word(const struct vocab *v, const char *text, size_t len)
{
    size_t i = 1;

    if (!v->words_start_with_space)
        return len;
    while (i < len && !(text[i] == ' ' && text[i - 1] != ' '))
        i++;
    return i;
}

static int encode_first(struct encoder *e, const char *word, size_t len)
{
    if (len + 1 > e->first_cap) {
        free(e->first);
        e->first_cap = 2 * (len + 1);
        e->first = malloc(e->first_cap);
        if (!e->first) {
            e->first_cap = 0;
            return -ENOMEM;
        }
    }
    e->first[0] = ' ';
    memcpy(e->first + 1, word, len);
    return encode_word(e, e->first, len + 1);
}

static int encode_chars(struct encoder *e, const char *text, size_t len)
{
    const struct vocab *v = &e->t->vocab;
    size_t off = 0;
    int rc = 0;

    if (e->t->add_space && e->text_begins) {
        off = chars_word(v, text, len);
        rc = encode_first(e, text, off);
    }
    while (!rc && off < len) {
        const size_t n = chars_word(v, text + off, len - off);

        rc = encode_word(e, text + off, n);
        off += n;
    }
    return rc;
}

/* ---- Special tokens, and the text between ---------------------------------------------------- */

static int encode_gap(struct encoder *e, const char *text, size_t len)
{
    int rc;

    if (len == 0)
        return 0;
    rc = e->t->pretokenizer ? pretokenizer_cut(e->t->pretokenizer, text, len, encode_word, e)
                            : encode_chars(e, text, len);
    e->text_begins = false;
    return rc;
}

/* The longest special token at the beginning of text, or TOKENIZER_NONE.  User-defined ones are
 * always looked for: they are text that the vocabulary keeps whole. */
static uint32_t match_special(const struct vocab *v, const char *text, size_t len, unsigned flags)
{
    const unsigned char first = (unsigned char)*text;

    for (uint32_t i = v->special_from[first]; i < v->special_from[first + 1]; i++) {
        const uint32_t id = v->special[i];
        const struct vocab_token *t = &v->tokens[id];

        if (!(flags & TOKENIZER_PARSE_SPECIAL) && t->type != TOKEN_USER_DEFINED)
            continue;
        if (t->len <= len && memcmp(vocab_bytes(v, id), text, t->len) == 0)
            return id;
    }
    return TOKENIZER_NONE;
}

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode_text(struct encoder *e, const char *text, size_t len, unsigned flags)
{
    const struct vocab *v = &e->t->vocab;
    size_t done = 0, off = 0;
    int rc = 0;

    while (!rc && off < len) {
        const uint32_t id = match_special(v, text + off, len - off, flags);

        if (id == TOKENIZER_NONE) {
            off++;
            continue;
        }
        rc = encode_gap(e, text + done, off - done);
        if (!rc)
            rc = emit(e, id);
        e->text_begins = true;
        off += v->tokens[id].len;
        while (off < len && is_white(text[off]) && tokenizer_strips_after(e->t, id))
            off++;
        done = off;
    }
    return rc ? rc : encode_gap(e, text + done, len - done);
}

int64_t tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                         uint32_t *ids, size_t cap)
{
    struct encoder e = {.t = t, .ids = ids, .cap = cap, .text_begins = true};
    int rc = 0;

    if (len > TOKENIZER_TEXT_MAX)
        return -E2BIG;
    bpe_init(&e.bpe, &t->vocab);
    if (len >= CACHED_TEXT_BYTES)
        e.cache = word_cache_create(); /* or none: slower, not wrong */
    if ((flags & TOKENIZER_ADD_SPECIAL) && t->add_bos)
        rc = emit(&e, t->bos);
    if (!rc)
        rc = encode_text(&e, text, len, flags);
    if (!rc && (flags & TOKENIZER_ADD_SPECIAL) && t->add_eos)
        rc = emit(&e, t->eos);
    bpe_fini(&e.bpe);
    word_cache_destroy(e.cache);
    free(e.word_ids);
    free(e.first);
    return rc ? rc : (int64_t)e.n;
}

/* ---- Decoding -------------------------------------------------------------------------------- */

int64_t tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n_ids, char *out,
                         size_t cap)
{
    bool text_begins = true;
    size_t n = 0;

    for (size_t i = 0; i < n_ids; i++) {
        const char *bytes;
        size_t len;

        if (tokenizer_piece(t, ids[i], &bytes, &len))
            return -EINVAL;
        const bool special = vocab_is_special(&t->vocab.tokens[ids[i]]);
        const bool skip = t->add_space && text_begins && !special && len && *bytes == ' ';

        len -= skip;
        if (n < cap && len)
            memcpy(out + n, bytes + skip, len < cap - n ? len : cap - n);
        n += len;
        text_begins = special;
    }
    return (int64_t)n;
}
