/* The door to a group's router.  A message of the router may speak of many requests; it is handed
 * on item by item, and stays valid until the client library is asked for another. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config.h"
#include "proto/client.h"
#include "proto/wire.h"
#include "tests/bench/load_door.h"

enum { OPEN_MS = 5000, ID_RANDOM_BYTES = 12 };

struct door_omni {
    struct load_door base;
    struct client *client;
    struct request_id id; /* its last bytes are a request's number, the others this load's */
    const struct message *message;
    uint32_t n_taken; /* of the message's items */
};

static struct request_id id_of(const struct door_omni *d, uint32_t number)
{
    struct request_id id = d->id;

    memcpy(id.bytes + ID_RANDOM_BYTES, &number, sizeof number);
    return id;
}

static uint32_t number_of(const struct request_id *id)
{
    uint32_t number;

    memcpy(&number, id->bytes + ID_RANDOM_BYTES, sizeof number);
    return number;
}

static int omni_send(struct load_door *door, const struct load_send *ask, struct error *error)
{
    struct door_omni *d = (struct door_omni *)door;
    struct message_generate m = {.id = id_of(d, ask->number),
                                 .class = str_of(ask->class_name),
                                 .tokens = {.data = ask->prompt, .n = ask->n_prompt},
                                 .has_tokens = true,
                                 .max_tokens = ask->n_output,
                                 .has_max_tokens = true,
                                 .ignore_eos = true,
                                 .has_ignore_eos = true,
                                 .ttft_slo_ms = ask->ttft_slo_ms,
                                 .has_ttft_slo_ms = ask->ttft_slo_ms > 0,
                                 .tpot_slo_ms = ask->tpot_slo_ms,
                                 .has_tpot_slo_ms = ask->tpot_slo_ms > 0};

    return client_generate(d->client, &m, error);
}

static void omni_cancel(struct load_door *door, uint32_t number)
{
    struct door_omni *d = (struct door_omni *)door;
    struct request_id id = id_of(d, number);

    client_cancel(d->client, &id);
}

static bool next_item(struct door_omni *d, struct load_event *event)
{
    if (d->message == NULL || d->n_taken == d->message->tokens.items.n) {
        d->message = NULL;
        return false;
    }
    const struct token_item *item = &d->message->tokens.items.data[d->n_taken++];
    *event = (struct load_event){
        .kind = LOAD_TOKENS, .number = number_of(&item->id), .n_tokens = item->ids.n};
    return true;
}

static void on_done(const struct message_done *done, struct load_event *event)
{
    *event =
        (struct load_event){.kind = done->reason == FINISH_CANCELLED ? LOAD_CANCELLED : LOAD_DONE,
                            .number = number_of(&done->id),
                            .places = {.device_tokens = done->device_tokens,
                                       .worker_tokens = done->worker_tokens,
                                       .ridealong_jobs = done->ridealong_jobs,
                                       .parked_jobs = done->parked_jobs}};
}

/* A refusal is the group's word that it is full; all else is a failure. */
static bool is_refusal(enum error_code code)
{
    return code == ERROR_QUEUE_FULL || code == ERROR_NO_CAPACITY || code == ERROR_OVERLOADED;
}

static void set_text(struct load_event *event, const struct message_error *e)
{
    snprintf(event->text, sizeof event->text, "%s: %.*s", error_code_name(e->code),
             (int)(e->message.n < 120 ? e->message.n : 120), e->message.data);
}

static void on_error(const struct message_error *e, struct load_event *event)
{
    enum load_event_kind kind = !e->has_id            ? LOAD_GONE
                                : is_refusal(e->code) ? LOAD_REFUSED
                                                      : LOAD_FAILED;

    *event = (struct load_event){.kind = kind,
                                 .number = e->has_id ? number_of(&e->id) : 0,
                                 .retry_after_ms = e->has_retry_after_ms ? e->retry_after_ms : 0};
    set_text(event, e);
}

/* False: the event says nothing to the load. */
static bool on_message(struct door_omni *d, const struct message *m, struct load_event *event)
{
    switch (m->type) {
    case MESSAGE_TOKENS:
        d->message = m;
        d->n_taken = 0;
        return next_item(d, event);
    case MESSAGE_DONE:
        on_done(&m->done, event);
        return true;
    case MESSAGE_ERROR:
        if (m->error.has_id && m->error.code == ERROR_NOT_FOUND)
            return false; /* a cancel that came too late */
        on_error(&m->error, event);
        return true;
    default:
        return false;
    }
}

static bool omni_next(struct load_door *door, uint32_t wait_ms, struct load_event *event)
{
    struct door_omni *d = (struct door_omni *)door;
    struct client_event e;

    if (next_item(d, event))
        return true;
    if (client_next_event(d->client, wait_ms, &e) != 0)
        return false;
    if (e.kind == CLIENT_LOST) {
        *event = (struct load_event){.kind = LOAD_GONE};
        snprintf(event->text, sizeof event->text, "%.150s", e.text);
        return true;
    }
    return on_message(d, e.message, event);
}

static void omni_close(struct load_door *door)
{
    struct door_omni *d = (struct door_omni *)door;

    client_close(d->client);
    free(d);
}

static const struct load_door_ops OMNI_OPS = {
    .send = omni_send, .cancel = omni_cancel, .next = omni_next, .close = omni_close};

static int open_session(struct client **out, const char *config_path, struct error *error)
{
    static struct omni_config config; /* too large for a stack */
    char run_dir[CONFIG_STRING_MAX], url[WIRE_URL_BYTES];
    struct client_options options = {.url = url, .name = "bench", .open_timeout_ms = OPEN_MS};

    config_defaults(&config);
    int rc = config_load(&config, config_path, error);
    if (rc != 0)
        return rc;
    if (wire_run_dir(config.run_dir, run_dir, sizeof run_dir) != 0 ||
        wire_url_router(url, run_dir, config.group_name) != 0)
        return error_set(error, -ENAMETOOLONG, "run.dir is too long");
    return client_open(out, &options, error);
}

int door_omni_open(struct load_door **out, const char *config_path, struct error *error)
{
    struct door_omni *d = calloc(1, sizeof *d);

    if (d == NULL)
        return error_set(error, -ENOMEM, "no memory");
    d->base.ops = &OMNI_OPS;
    client_id_new(&d->id);
    int rc = open_session(&d->client, config_path, error);
    if (rc != 0)
        free(d);
    else
        *out = &d->base;
    return rc;
}
