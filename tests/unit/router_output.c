#include "router_output.h"

#include <stdio.h>
#include <string.h>

#include "cmocka_all.h"
#include "common/base/clock.h"

struct request_id id_of(uint8_t n)
{
    struct request_id id = {{0}};

    memset(id.bytes, n, sizeof id.bytes);
    return id;
}

struct message generate(uint8_t n, const char *class, uint32_t max_tokens)
{
    return (struct message){.type = MESSAGE_GENERATE,
                            .generate = {.id = id_of(n),
                                         .class = str_of(class),
                                         .has_prompt = true,
                                         .prompt = str_of("Once upon a time"),
                                         .has_max_tokens = true,
                                         .max_tokens = max_tokens}};
}

struct message resume(uint8_t n, uint32_t from)
{
    return (struct message){
        .type = MESSAGE_GENERATE,
        .generate = {
            .id = id_of(n), .class = str_of("ls"), .has_resume_from = true, .resume_from = from}};
}

static void add_item(struct output *o, const struct token_item *item)
{
    if (o->n == 0)
        o->first = item->index;
    assert_int_equal(item->index, o->first + o->n);
    assert_true(o->n + item->ids.n <= FAKE_SCRIPT_MAX && o->n_text + item->text.n < sizeof o->text);
    if (item->ids.n > 0)
        memcpy(o->ids + o->n, item->ids.data, item->ids.n * sizeof *o->ids);
    o->n += item->ids.n;
    memcpy(o->text + o->n_text, item->text.data, item->text.n);
    o->n_text += item->text.n;
    o->text[o->n_text] = '\0';
}

void add_message(struct output *o, const struct message *m, const struct request_id *id)
{
    if (m->type == MESSAGE_TOKENS) {
        for (uint32_t i = 0; i < m->tokens.items.n; i++) {
            if (request_id_equal(&m->tokens.items.data[i].id, id))
                add_item(o, &m->tokens.items.data[i]);
        }
    } else if (m->type == MESSAGE_DONE && request_id_equal(&m->done.id, id)) {
        o->done = true;
        o->end = m->done;
    } else if (m->type == MESSAGE_ERROR && m->error.has_id && request_id_equal(&m->error.id, id)) {
        o->failed = true;
        o->code = m->error.code;
        o->retryable = m->error.retryable;
        o->retry_after_ms = m->error.retry_after_ms;
        snprintf(o->field, sizeof o->field, "%.*s", m->error.has_field ? (int)m->error.field.n : 0,
                 m->error.has_field ? m->error.field.data : "");
        snprintf(o->message, sizeof o->message, "%.*s", (int)m->error.message.n,
                 m->error.message.data);
    }
}

void collect(struct bare *b, uint8_t n, struct output *o, uint32_t at_least)
{
    const struct request_id id = id_of(n);
    const uint64_t until_ns = clock_now_ns() + 2 * FIXTURE_LOST_MS * NS_PER_MS;

    memset(o, 0, sizeof *o);
    while (!o->done && !o->failed && (at_least == 0 || o->n < at_least)) {
        assert_true(clock_now_ns() < until_ns);
        bare_ping(b);
        if (bare_receive(b, 100))
            add_message(o, &b->message, &id);
    }
}
