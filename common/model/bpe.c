#include "common/model/bpe.h"

#include "common/model/utf8.h"

#include <errno.h>
#include <stdlib.h>

#define NO_SYMBOL UINT32_MAX

/* Longest words usual in text: the first allocation. */
#define WORD_BYTES_FIRST 256

void bpe_init(struct bpe *b, const struct vocab *v)
{
    *b = (struct bpe){.vocab = v};
}

void bpe_fini(struct bpe *b)
{
    free(b->symbols);
    free(b->heap);
}

static int reserve(struct bpe *b, size_t len)
{
    size_t cap = b->cap ? b->cap : WORD_BYTES_FIRST;

    if (len <= b->cap)
        return 0;
    while (cap < len)
        cap *= 2;
    bpe_fini(b);
    b->cap = 0;
    b->symbols = malloc(cap * sizeof(*b->symbols));
    b->heap = malloc(3 * cap * sizeof(*b->heap));
    if (!b->symbols || !b->heap)
        return -ENOMEM;
    b->cap = cap;
    return 0;
}

static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->place < b->place);
}

static void heap_push(struct bpe *b, struct bpe_candidate c)
{
    size_t i = b->n_heap++;

    while (i > 0 && before(&c, &b->heap[(i - 1) / 2])) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = c;
}

static struct bpe_candidate heap_pop(struct bpe *b)
{
    const struct bpe_candidate top = b->heap[0];
    const struct bpe_candidate last = b->heap[--b->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= b->n_heap)
            break;
        if (child + 1 < b->n_heap && before(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!before(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    b->heap[i] = last;
    return top;
}

/* Makes the pair (place, its right neighbour) a candidate if a merge exists. */
static void consider(struct bpe *b, uint32_t place)
{
    const struct bpe_symbol *s = b->symbols;
    const struct vocab_merge *m;

    if (place == NO_SYMBOL || s[place].next == NO_SYMBOL)
        return;
    m = vocab_find_merge(b->vocab, s[place].id, s[s[place].next].id);
    if (m)
        heap_push(b, (struct bpe_candidate){.rank = m->rank,
                                            .place = place,
                                            .left = s[place].id,
                                            .right = s[s[place].next].id,
                                            .id = m->id});
}

static bool is_current(const struct bpe *b, const struct bpe_candidate *c)
{
    const struct bpe_symbol *s = &b->symbols[c->place];

    return s->id == c->left && s->next != NO_SYMBOL && b->symbols[s->next].id == c->right;
}

static void merge(struct bpe *b, const struct bpe_candidate *c)
{
    struct bpe_symbol *left = &b->symbols[c->place];
    struct bpe_symbol *right = &b->symbols[left->next];

    left->id = c->id;
    left->next = right->next;
    right->id = TOKENIZER_NONE;
    if (left->next != NO_SYMBOL)
        b->symbols[left->next].prev = c->place;
    consider(b, left->prev);
    consider(b, c->place);
}

static void start_bytes(struct bpe *b, const char *word, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        b->symbols[i] = (struct bpe_symbol){.id = b->vocab->byte_id[(unsigned char)word[i]],
                                            .prev = i ? i - 1 : NO_SYMBOL,
                                            .next = i + 1 < len ? i + 1 : NO_SYMBOL};
}

/* A byte that is no UTF-8 is a symbol without a token. */
static void start_chars(struct bpe *b, const char *word, uint32_t len)
{
    uint32_t prev = NO_SYMBOL;

    for (uint32_t i = 0, next; i < len; prev = i, i = next) {
        size_t n = 1;
        const bool is_char =
            (unsigned char)word[i] < 0x80 || utf8_next(word + i, len - i, &n) == UTF8_COMPLETE;

        n = is_char ? n : 1;
        next = i + (uint32_t)n;
        b->symbols[i] = (struct bpe_symbol){.id = is_char ? vocab_char_symbol(b->vocab, word + i, n)
                                                          : TOKENIZER_NONE,
                                            .prev = prev,
                                            .next = next < len ? next : NO_SYMBOL};
    }
}

static void start(struct bpe *b, const char *word, uint32_t len)
{
    b->n_heap = 0;
    if (b->vocab->kind == VOCAB_BYTES)
        start_bytes(b, word, len);
    else
        start_chars(b, word, len);
    for (uint32_t i = 0; i != NO_SYMBOL; i = b->symbols[i].next)
        consider(b, i);
}

/* Bytes [from, to) of the word, token by token; those that have none give nothing. */
static int64_t put_bytes(const struct vocab *v, const char *word, uint32_t from, uint32_t to,
                         uint32_t *ids)
{
    int64_t n = 0;

    for (uint32_t i = from; i < to; i++)
        if (v->byte_id[(unsigned char)word[i]] != TOKENIZER_NONE)
            ids[n++] = v->byte_id[(unsigned char)word[i]];
    return n;
}

int64_t bpe_encode(struct bpe *b, const char *word, size_t len, uint32_t *ids)
{
    int64_t n = 0;
    const int rc = reserve(b, len);

    if (rc)
        return rc;
    if (len == 0)
        return 0;
    start(b, word, (uint32_t)len);
    while (b->n_heap) {
        const struct bpe_candidate c = heap_pop(b);

        if (is_current(b, &c))
            merge(b, &c);
    }
    /* The first symbol is never merged into another, so the list starts at 0. */
    for (uint32_t i = 0, next; i != NO_SYMBOL; i = next) {
        next = b->symbols[i].next;
        if (b->symbols[i].id < b->vocab->n_tokens)
            ids[n++] = b->symbols[i].id;
        else
            n += put_bytes(b->vocab, word, i, next == NO_SYMBOL ? (uint32_t)len : next, ids + n);
    }
    return n;
}
