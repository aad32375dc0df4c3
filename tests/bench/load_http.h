/* load_http.h - one streamed HTTP/1.1 answer, taken apart as its bytes come.
 *
 * Status line, headers, chunks (or a plain body), and in the body the lines of server-sent events.
 * Bytes go in, lines come out; nothing here reads a socket.  What is kept of an answer is bounded;
 * one that exceeds it is broken (-EMSGSIZE).  The owner frees with http_answer_fini. */
#ifndef OMNI_TESTS_BENCH_LOAD_HTTP_H
#define OMNI_TESTS_BENCH_LOAD_HTTP_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_LINE_BYTES = 512, HTTP_BODY_MAX = 4 << 20 };

enum http_state {
    HTTP_HEAD,      /* in the status line or a header */
    HTTP_SIZE,      /* in the line with a chunk's size */
    HTTP_CHUNK,     /* in a chunk's bytes */
    HTTP_CHUNK_END, /* in the line end behind them */
    HTTP_PLAIN,     /* in a body without chunks: until the connection ends */
    HTTP_END,       /* the answer is complete */
};

struct http_answer {
    enum http_state state;
    int status; /* 0 until the status line has come */
    bool is_chunked;
    char line[HTTP_LINE_BYTES]; /* of the head or a size, cut where longer */
    size_t line_n, chunk_left;
    char *body;
    size_t body_n, body_max, body_taken;
};

/* 0, -EPROTO (no such answer as ours), -EMSGSIZE or -ENOMEM. */
int http_answer_feed(struct http_answer *a, const char *bytes, size_t n);

/* The next complete line of the body, without its end and NUL-terminated in place; NULL: none yet.
 * Valid until the next call with this answer. */
char *http_answer_line(struct http_answer *a);
void http_answer_fini(struct http_answer *a);

#endif
