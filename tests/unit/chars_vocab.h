/* chars_vocab.h - a SentencePiece vocabulary of a dozen words and all bytes, for tests and fuzzers. */
#ifndef OMNI_TESTS_UNIT_CHARS_VOCAB_H
#define OMNI_TESTS_UNIT_CHARS_VOCAB_H

#include "common/model/gguf_write.h"

enum chars_vocab_id {
    ID_UNK,
    ID_BOS,
    ID_EOS,
    ID_BYTES,
    ID_SPACE = ID_BYTES + 256,
    ID_A,
    ID_B,
    ID_AB,
    ID_SPACE_AB,
    ID_ABA,
    ID_BC, /* c alone is no token */
    ID_SPACES,
    ID_E_ACUTE,
    ID_USER,
    ID_STRIP,
    CHARS_VOCAB_TOKENS
};

/* Adds the tokenizer.* keys; scores: others than the words' own (CHARS_VOCAB_TOKENS), or NULL. */
void chars_vocab_add(struct gguf_writer *w, const float *scores);

#endif
