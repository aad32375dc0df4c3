/* router_output.h - what a client got for one request, gathered from its messages. */
#ifndef OMNI_TESTS_UNIT_ROUTER_OUTPUT_H
#define OMNI_TESTS_UNIT_ROUTER_OUTPUT_H

#include "fake_engine.h"
#include "router_fixture.h"

/* What came for one request until its end. */
struct output {
    uint32_t first, n;
    uint32_t ids[FAKE_SCRIPT_MAX];
    char text[65536];
    size_t n_text;
    bool done, failed;
    struct message_done end;
    enum error_code code;
    bool retryable;
    uint32_t retry_after_ms;
    char field[64], message[256];
};

struct request_id id_of(uint8_t n);

/* A generate with a short prompt, under the id of n; and one that only attaches. */
struct message generate(uint8_t n, const char *class, uint32_t max_tokens);
struct message resume(uint8_t n, uint32_t from);

/* Adds what the message says of the request; tokens must follow each other. */
void add_message(struct output *o, const struct message *m, const struct request_id *id);

/* Reads until request n has ended, or has at_least tokens (0: ended). */
void collect(struct bare *b, uint8_t n, struct output *o, uint32_t at_least);

#endif
