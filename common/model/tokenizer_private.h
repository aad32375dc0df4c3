/* tokenizer_private.h - what tokenizer.c opens and tokenizer_encode.c reads. */
#ifndef OMNI_COMMON_MODEL_TOKENIZER_PRIVATE_H
#define OMNI_COMMON_MODEL_TOKENIZER_PRIVATE_H

#include "common/model/pretokenizer.h"
#include "common/model/vocab.h"

struct tokenizer {
    struct vocab vocab;
    struct pretokenizer *pretokenizer; /* NULL: VOCAB_CHARS */
    bool add_bos, add_eos;
    bool add_space; /* in front of text, and behind special tokens */
    bool strips;    /* some special tokens swallow the white space behind them */
    uint32_t bos, eos;
};

#endif
