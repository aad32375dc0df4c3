/* pretokenizer.h - cuts text into words before BPE, by the pattern that a vocabulary was made with.
 *
 * A scheme is a list of PCRE2 patterns, each applied to the pieces that the one before left: what
 * matches becomes a piece, and what lies between matches becomes one too.  Every byte of the text
 * is in exactly one piece, in order.  Ill-formed UTF-8 never reaches PCRE2: each run of it is a
 * piece. Immutable after open (compiled and, where the system allows, translated to machine code);
 * the scratch is per call of cut, so any number of threads may cut at once. */
#ifndef OMNI_COMMON_MODEL_PRETOKENIZER_H
#define OMNI_COMMON_MODEL_PRETOKENIZER_H

#include "common/model/gguf.h"

struct pretokenizer;

/* Called for each piece; anything but 0 ends the cutting and is returned. */
typedef int (*pretokenizer_fn)(void *context, const char *piece, size_t len);

/* name: the value of tokenizer.ggml.pre.  0, -ENOTSUP (not known; err lists the known ones),
 * -ENOMEM. */
int pretokenizer_open(struct gguf_string name, struct pretokenizer **out, struct gguf_error *err);
void pretokenizer_close(struct pretokenizer *p);

/* Is a piece that is a token taken whole, whatever the merges would make of it?  Vocabularies of
 * this scheme have tokens that no merge leads to; they were made with one beside. */
bool pretokenizer_whole_words(const struct pretokenizer *p);

/* 0, -ENOMEM, -EIO (PCRE2 gave up), or what the callback returned. */
int pretokenizer_cut(const struct pretokenizer *p, const char *text, size_t len, pretokenizer_fn fn,
                     void *context);

#endif
