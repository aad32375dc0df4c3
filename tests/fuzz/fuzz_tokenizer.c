/* libFuzzer target: any bytes as text, in small vocabularies of every kind.  The first byte chooses
 * vocabulary and flags; the text must come back, and what a client would see must be UTF-8. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/model/detokenizer.h"
#include "common/model/gguf_write.h"
#include "common/model/utf8.h"
#include "common/model/vocab_random.h"
#include "tests/unit/chars_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_VOCABULARIES = 7, TEXT_MAX = 1 << 14 };

/* The pattern of each; NULL: SentencePiece's kind. */
static const char *const patterns[N_VOCABULARIES] = {"gpt-2", "smollm", "llama-bpe", "qwen2",
                                                     NULL,    "tekken", "gpt-4o"};
static struct tokenizer *vocabularies[N_VOCABULARIES];

static struct tokenizer *open_vocabulary(const char *pattern)
{
    struct gguf_writer *w = gguf_writer_create();
    struct gguf_error err;
    struct tokenizer *t = NULL;
    struct gguf *g = NULL;
    char path[64];

    invariant(w);
    (void)snprintf(path, sizeof(path), "/tmp/omni-fuzz-%d.gguf", (int)getpid());
    if (pattern)
        invariant(vocab_random_add(w, pattern, NULL, vocab_random_size()) == 0);
    else
        chars_vocab_add(w, NULL);
    invariant(gguf_writer_save(w, path) == 0);
    gguf_writer_destroy(w);
    invariant(gguf_open(path, &g, &err) == 0 && tokenizer_open(g, &t, &err) == 0);
    gguf_close(g);
    (void)unlink(path);
    return t;
}

static void check_stream(const struct tokenizer *t, const uint32_t *ids, int64_t n)
{
    struct detokenizer d;
    char piece[256];

    detokenizer_init(&d, t);
    invariant(detokenizer_push_max(&d) <= sizeof(piece));
    for (int64_t i = 0; i < n; i++) {
        const int64_t len = detokenizer_push(&d, ids[i], piece, sizeof(piece));

        invariant(len >= 0 && utf8_valid_prefix(piece, (size_t)len) == (size_t)len);
    }
    invariant(detokenizer_flush(&d, piece, sizeof(piece)) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint32_t ids[2 * TEXT_MAX + 2];
    static char back[TEXT_MAX];
    const char *text = (const char *)data + 1;

    if (n == 0 || n > TEXT_MAX)
        return 0;
    const size_t len = n - 1;
    const unsigned which = (data[0] & 0x7f) % N_VOCABULARIES;
    const unsigned flags = data[0] & 0x80 ? TOKENIZER_PARSE_SPECIAL : 0;

    if (!vocabularies[which])
        vocabularies[which] = open_vocabulary(patterns[which]);
    const struct tokenizer *t = vocabularies[which];
    const int64_t n_ids = tokenizer_encode(t, text, len, flags, ids, tokenizer_encode_bound(len));

    invariant(n_ids >= 0);
    invariant(tokenizer_decode(t, ids, (size_t)n_ids, back, sizeof(back)) == (int64_t)len);
    invariant(len == 0 || memcmp(back, text, len) == 0);
    check_stream(t, ids, n_ids);
    return 0;
}
