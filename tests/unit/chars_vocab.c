#include "chars_vocab.h"

#include <stdio.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

static const struct {
    const char *text;
    float score;
    int32_t type;
} words[] = {
    [ID_SPACE] = {SPACE, -10, 1},
    [ID_A] = {"a", -11, 1},
    [ID_B] = {"b", -12, 1},
    [ID_AB] = {"ab", -2, 1},
    [ID_SPACE_AB] = {SPACE "ab", -3, 1},
    [ID_ABA] = {"aba", -1, 1},
    [ID_BC] = {"bc", -1.5f, 1},
    [ID_SPACES] = {SPACE SPACE, -2, 1},
    [ID_E_ACUTE] = {"\xc3\xa9", -13, 1},
    [ID_USER] = {"[T]", 0, 4},
    [ID_STRIP] = {"<|end|>", 0, 3},
};

void chars_vocab_add(struct gguf_writer *w, const float *scores)
{
    struct gguf_string texts[CHARS_VOCAB_TOKENS];
    int32_t types[CHARS_VOCAB_TOKENS];
    float own[CHARS_VOCAB_TOKENS] = {0};
    char names[256][8];

    texts[ID_UNK] = (struct gguf_string){"<unk>", 5};
    texts[ID_BOS] = (struct gguf_string){"<s>", 3};
    texts[ID_EOS] = (struct gguf_string){"</s>", 4};
    types[ID_UNK] = 2;
    types[ID_BOS] = types[ID_EOS] = 3;
    for (int i = 0; i < 256; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "<0x%02X>", i);
        texts[ID_BYTES + i] = (struct gguf_string){names[i], 6};
        types[ID_BYTES + i] = 6;
    }
    for (int i = ID_SPACE; i < CHARS_VOCAB_TOKENS; i++) {
        texts[i] = (struct gguf_string){words[i].text, strlen(words[i].text)};
        types[i] = words[i].type;
        own[i] = words[i].score;
    }
    gguf_writer_string(w, "tokenizer.ggml.model", "llama");
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", ID_BOS);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", ID_EOS);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", texts, CHARS_VOCAB_TOKENS);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", types, CHARS_VOCAB_TOKENS);
    gguf_writer_f32s(w, "tokenizer.ggml.scores", scores ? scores : own, CHARS_VOCAB_TOKENS);
}
