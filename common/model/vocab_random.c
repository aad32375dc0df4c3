#include "common/model/vocab_random.h"

#include "common/base/invariant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 24

static const char *const control[VOCAB_RANDOM_CONTROL] = {"<|endoftext|>", "<|im_start|>",
                                                          "<|im_end|>"};

/* In order of rank; the result of each is a token.  \xc4\xa0 is U+0120, which stands for a space.
 */
#define SP "\xc4\xa0"
static const char *const merges[] = {
    SP " t", SP " a",  "h e",    "i n",   "r e",   SP " s", "o n",   "e r",     SP "t he", "a t",
    SP " w", SP " o",  "n d",    "o u",   "i t",   "e s",   "in g",  SP "a nd", SP " c",   SP " i",
    "i s",   "l l",    SP "o f", "t o",   SP " b", "l e",   SP " p", "e n",     SP "i n",  "y ou",
    "a n",   SP "t o", "o r",    SP " h", "h i",   "hi s",  SP " m", "he r",    SP "s o",  "v er",
};
#define N_MERGES (sizeof(merges) / sizeof(merges[0]))

static const char chat_template[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}";

uint32_t vocab_random_size(void)
{
    return VOCAB_RANDOM_CONTROL + 256 + N_MERGES;
}

static bool stands_for_itself(int c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

/* A code point below U+0800. */
static void put_code_point(char *out, int c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        out[1] = 0;
        return;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    out[2] = 0;
}

static void put_bytes(char (*texts)[TEXT_MAX])
{
    int shifted = 0x100;

    for (int c = 0; c < 256; c++)
        put_code_point(texts[c], stands_for_itself(c) ? c : shifted++);
}

static void put_merged(char *out, const char *merge)
{
    const char *space = strchr(merge, ' ');

    invariant(space && strlen(merge) < TEXT_MAX);
    (void)snprintf(out, TEXT_MAX, "%.*s%s", (int)(space - merge), merge, space + 1);
}

static void fill_texts(char (*texts)[TEXT_MAX], uint32_t n_vocab)
{
    uint32_t n = 0;

    for (; n < VOCAB_RANDOM_CONTROL; n++)
        (void)snprintf(texts[n], TEXT_MAX, "%s", control[n]);
    put_bytes(texts + n);
    n += 256;
    for (size_t i = 0; i < N_MERGES; i++)
        put_merged(texts[n++], merges[i]);
    for (uint32_t i = 0; n < n_vocab; i++)
        (void)snprintf(texts[n++], TEXT_MAX, SP "x%u", i);
}

static void add_keys(struct gguf_writer *w, const char *pattern, const char *chat)
{
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", pattern);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    gguf_writer_string(w, "tokenizer.chat_template", chat ? chat : chat_template);
}

static void add_strings(struct gguf_writer *w, const char *key, const char *const *texts,
                        uint64_t n)
{
    struct gguf_string strings[N_MERGES];

    for (uint64_t i = 0; i < n; i++)
        strings[i] = (struct gguf_string){texts[i], strlen(texts[i])};
    gguf_writer_strings(w, key, strings, n);
}

int vocab_random_add(struct gguf_writer *w, const char *pattern, const char *chat, uint32_t n_vocab)
{
    char(*texts)[TEXT_MAX] = calloc(n_vocab, sizeof(*texts));
    struct gguf_string *strings = calloc(n_vocab, sizeof(*strings));
    int32_t *types = calloc(n_vocab, sizeof(*types));
    const int rc = texts && strings && types ? 0 : -ENOMEM;

    invariant(n_vocab >= vocab_random_size());
    if (!rc) {
        fill_texts(texts, n_vocab);
        for (uint32_t i = 0; i < n_vocab; i++) {
            strings[i] = (struct gguf_string){texts[i], strlen(texts[i])};
            types[i] = i < VOCAB_RANDOM_CONTROL ? 3 : 1; /* control, normal */
        }
        add_keys(w, pattern, chat);
        gguf_writer_strings(w, "tokenizer.ggml.tokens", strings, n_vocab);
        gguf_writer_i32s(w, "tokenizer.ggml.token_type", types, n_vocab);
        add_strings(w, "tokenizer.ggml.merges", merges, N_MERGES);
    }
    free(texts);
    free(strings);
    free(types);
    return rc;
}
