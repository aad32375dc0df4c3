/* stream.h - the output of one request as text: token by token, never a part of a stop string.
 *
 * Tokens go through a detokenizer (whole UTF-8 sequences only) and a stop scanner (what may be the
 * beginning of a stop string is held back); what may be given out gathers here until it is sent.
 * The text is a function of the tokens alone, so a stream that is replayed from the first token
 * gives the same text at the same tokens: that is how a request is resumed.
 * Memory: the text not yet sent; bounded by the output's length.  One thread. */
#ifndef OMNI_ROUTER_STREAM_H
#define OMNI_ROUTER_STREAM_H

#include "common/model/detokenizer.h"
#include "common/model/stop_scanner.h"
#include "router/text.h"

struct stream {
    const struct text *text; /* outlives this */
    struct detokenizer detokenizer;
    struct stop_scanner scanner;
    char *pending; /* owned: text to be sent */
    size_t n_pending, cap_pending;
    uint32_t n_tokens;   /* pushed so far */
    uint32_t min_tokens; /* the text of the first so many ends no output */
};

enum stream_result {
    STREAM_MORE,
    STREAM_STOPPED, /* this token completed a stop string */
    STREAM_BAD_TOKEN /* beyond the vocabulary */,
    STREAM_NO_MEMORY,
};

/* 0, -EINVAL (an empty or malformed stop string), -E2BIG, -ENOMEM; fini is safe after each. */
int stream_init(struct stream *s, const struct text *text, const struct str_array *stops,
                uint32_t min_tokens);
void stream_fini(struct stream *s);

/* Adds a token; its text is dropped unless wanted.  Not after STREAM_STOPPED. */
enum stream_result stream_push(struct stream *s, uint32_t token, bool wanted);

/* The output ends without a stop string: what was held back is given out. */
enum stream_result stream_end(struct stream *s, bool wanted);

/* The first n bytes of the pending text have been sent. */
void stream_consume(struct stream *s, size_t n);

/* Back to the first token, with nothing pending.  0 or -ENOMEM. */
int stream_restart(struct stream *s);

#endif
