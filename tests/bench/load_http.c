#include "tests/bench/load_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void http_answer_fini(struct http_answer *a)
{
    free(a->body);
    *a = (struct http_answer){0};
}

/* Drops what was taken, then makes room for n more and a NUL. */
static int make_room(struct http_answer *a, size_t n)
{
    if (a->body_taken > 0) {
        memmove(a->body, a->body + a->body_taken, a->body_n - a->body_taken);
        a->body_n -= a->body_taken;
        a->body_taken = 0;
    }
    if (a->body_n + n + 1 <= a->body_max)
        return 0;
    size_t max = 2 * (a->body_n + n + 1);
    char *body = max > HTTP_BODY_MAX ? NULL : realloc(a->body, max);
    if (body == NULL)
        return max > HTTP_BODY_MAX ? -EMSGSIZE : -ENOMEM;
    a->body = body;
    a->body_max = max;
    return 0;
}

static int take_body(struct http_answer *a, const char *bytes, size_t n)
{
    int rc = make_room(a, n);

    if (rc != 0)
        return rc;
    memcpy(a->body + a->body_n, bytes, n);
    a->body_n += n;
    a->body[a->body_n] = '\0';
    return 0;
}

/* One line of the head. */
static int on_head_line(struct http_answer *a)
{
    if (a->line_n == 0) {
        a->state = a->is_chunked ? HTTP_SIZE : HTTP_PLAIN;
        return a->status == 0 ? -EPROTO : 0;
    }
    if (a->status == 0)
        return sscanf(a->line, "HTTP/1.%*1d %3d", &a->status) == 1 ? 0 : -EPROTO;
    if (strncasecmp(a->line, "transfer-encoding:", 18) == 0 && strstr(a->line, "chunked") != NULL)
        a->is_chunked = true;
    return 0;
}

static int on_size_line(struct http_answer *a)
{
    char *end;
    unsigned long size = strtoul(a->line, &end, 16);

    if (end == a->line || size > HTTP_BODY_MAX)
        return -EPROTO;
    a->chunk_left = size;
    a->state = size == 0 ? HTTP_END : HTTP_CHUNK;
    return 0;
}

/* A byte of the head, of a size, or of the end of a chunk. */
static int on_line_byte(struct http_answer *a, char byte)
{
    if (byte != '\n') {
        if (byte != '\r' && a->line_n < HTTP_LINE_BYTES - 1)
            a->line[a->line_n++] = byte;
        return 0;
    }
    a->line[a->line_n] = '\0';
    int rc = 0;
    if (a->state == HTTP_HEAD)
        rc = on_head_line(a);
    else if (a->state == HTTP_SIZE)
        rc = on_size_line(a);
    else
        a->state = HTTP_SIZE;
    a->line_n = 0;
    return rc;
}

int http_answer_feed(struct http_answer *a, const char *bytes, size_t n)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0 && a->state != HTTP_END;) {
        if (a->state != HTTP_CHUNK && a->state != HTTP_PLAIN) {
            rc = on_line_byte(a, bytes[i++]);
            continue;
        }
        size_t some = n - i;
        if (a->state == HTTP_CHUNK && some > a->chunk_left)
            some = a->chunk_left;
        rc = take_body(a, bytes + i, some);
        i += some;
        a->chunk_left -= a->state == HTTP_CHUNK ? some : 0;
        if (a->state == HTTP_CHUNK && a->chunk_left == 0)
            a->state = HTTP_CHUNK_END;
    }
    return rc;
}

char *http_answer_line(struct http_answer *a)
{
    char *begin = a->body + a->body_taken;
    size_t n = a->body_n - a->body_taken;
    char *end = n == 0 ? NULL : memchr(begin, '\n', n);

    if (end == NULL)
        return NULL;
    a->body_taken += (size_t)(end - begin) + 1;
    *end = '\0';
    if (end > begin && end[-1] == '\r')
        end[-1] = '\0';
    return begin;
}
