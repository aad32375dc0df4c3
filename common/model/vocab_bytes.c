/* Byte-level BPE: GPT-2's alphabet, and merges in order of rank. */
#include "common/model/vocab_build.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MERGES_MAX (1u << 24)

/* Printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up. */
static bool stands_for_itself(unsigned c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

/* The byte that code point c stands for, or -1.  U+0100 and up are the others in order: 0x00 to
 * 0x20, 0x7f to 0xa0, 0xad. */
static int byte_of(unsigned c)
{
    if (c < 0x100)
        return stands_for_itself(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)c - 0x100;
    if (c <= 0x142)
        return (int)c - 0x121 + 0x7f;
    return c == 0x143 ? 0xad : -1;
}

/* Code points below U+0144 take two bytes at most.  A text with other characters (a token that
 * should have been marked as special) stays as it is. */
size_t vocab_bytes_decode(struct gguf_string text, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        unsigned c = (unsigned char)text.data[i];
        int byte = -1;

        if (c >= 0xc2 && c <= 0xc5 && i + 1 < text.len)
            byte = byte_of((c & 0x1f) << 6 | ((unsigned char)text.data[++i] & 0x3f));
        else if (c < 0x80)
            byte = byte_of(c);
        if (byte < 0) {
            memcpy(out, text.data, text.len);
            return text.len;
        }
        out[n++] = (char)byte;
    }
    return n;
}

/* Is the result text, and its bytes those of the two?  A file may say otherwise: then text would not
 * come back out of its ids, or would turn into a control token. */
static bool adds_up(const struct vocab *v, uint32_t left, uint32_t right, uint32_t both)
{
    const struct vocab_token *l = &v->tokens[left], *r = &v->tokens[right], *t = &v->tokens[both];

    return !vocab_is_special(l) && !vocab_is_special(r) && !vocab_is_special(t) &&
           t->len == l->len + r->len &&
           memcmp(vocab_bytes(v, both), vocab_bytes(v, left), l->len) == 0 &&
           memcmp(vocab_bytes(v, both) + l->len, vocab_bytes(v, right), r->len) == 0;
}

/* "left right": a merge whose tokens are not all in the vocabulary can never be used. */
static void add_merge(struct vocab_builder *s, struct gguf_string text, uint32_t rank)
{
    const struct gguf_string nothing = {"", 0};
    const char *space = text.len > 1 ? memchr(text.data + 1, ' ', text.len - 1) : NULL;
    struct gguf_string left, right;
    uint32_t l, r, both;

    if (!space)
        return;
    left = (struct gguf_string){text.data, (size_t)(space - text.data)};
    right = (struct gguf_string){space + 1, text.len - left.len - 1};
    l = vocab_build_find(s, left, nothing);
    r = vocab_build_find(s, right, nothing);
    both = vocab_build_find(s, left, right);
    if (l != TOKENIZER_NONE && r != TOKENIZER_NONE && both != TOKENIZER_NONE &&
        adds_up(s->v, l, r, both))
        vocab_build_add_merge(s->v, l, r, rank, both);
}

int vocab_bytes_load(struct vocab_builder *s)
{
    struct gguf_array a;
    struct gguf_cursor cursor = {0};
    struct gguf_string text;
    uint32_t rank = 0;
    int rc = gguf_get_array(s->g, "tokenizer.ggml.merges", &a, s->err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    if (a.type != GGUF_STRING || a.n > MERGES_MAX) {
        gguf_error_set(s->err,
                       "tokenizer.ggml.merges at offset %" PRIu64 ": expected at most %u strings",
                       a.file_off, MERGES_MAX);
        return -EINVAL;
    }
    rc = vocab_build_merges(s->v, a.n);
    while (!rc && gguf_array_next(&a, &cursor, &text))
        add_merge(s, text, rank++);
    return rc;
}
