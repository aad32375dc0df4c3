/* utf8.h - well-formed UTF-8, as Unicode table 3-7 defines it (no overlong forms, no surrogates).
 *
 * Shared by the tokenizer (which must not show ill-formed bytes to PCRE2) and the detokenizer
 * (which must not show them to a client).  Pure functions, any thread. */
#ifndef OMNI_COMMON_MODEL_UTF8_H
#define OMNI_COMMON_MODEL_UTF8_H

#include <stddef.h>

enum utf8_state {
    UTF8_COMPLETE,   /* *len bytes are one character */
    UTF8_INCOMPLETE, /* all *len = n bytes are the beginning of one */
    UTF8_BROKEN      /* the first *len bytes can never be part of one (maximal subpart) */
};

/* Looks at the first character of s[0..n), n >= 1. */
enum utf8_state utf8_next(const char *s, size_t n, size_t *len);

/* Length of the well-formed text at the beginning of s[0..n). */
size_t utf8_valid_prefix(const char *s, size_t n);

#endif
