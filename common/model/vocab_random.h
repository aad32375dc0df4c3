/* vocab_random.h - the vocabulary of generated models; private to model_random.c.
 *
 * Small but real: every byte has a token, a few merges make common English words, ChatML has its
 * control tokens, and the chat template is SmolLM2's. */
#ifndef OMNI_COMMON_MODEL_VOCAB_RANDOM_H
#define OMNI_COMMON_MODEL_VOCAB_RANDOM_H

#include "common/model/gguf_write.h"

/* Control tokens come first: <|endoftext|> (unknown), <|im_start|> (BOS), <|im_end|> (EOS). */
#define VOCAB_RANDOM_CONTROL 3

/* Tokens without padding. */
uint32_t vocab_random_size(void);

/* Adds all tokenizer.* keys; pattern: of tokenizer.ggml.pre ("smollm"); chat: the chat template, or NULL: SmolLM2's; n_vocab >= vocab_random_size(), the rest are words " x0", " x1", ...
 * 0 or -ENOMEM. */
int vocab_random_add(struct gguf_writer *w, const char *pattern, const char *chat,
                     uint32_t n_vocab);

#endif
