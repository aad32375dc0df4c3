#include "router/router.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "router/deliver.h"
#include "router/dispatch.h"
#include "router/door.h"
#include "router/lifecycle.h"
#include "router/service.h"

enum {
    TICK_MS = 50,        /* how late anything that depends on time may be noticed */
    BACKLOG_TICK_MS = 5, /* while a socket did not take all: nanomsg does not tell when it would */
    STALL_MS = 400,      /* a turn that begins so late: the router itself was stopped */
    SHUTDOWN_MS = 300,   /* for the clients to be told */
    SESSION_FDS = 6,     /* descriptors of one session or engine: 4, with some slack */
    OTHER_FDS = 32,      /* all else: 12, likewise */
};

/* ---- Init ------------------------------------------------------------------------------------ */

static int init_epoch(struct router *r)
{
    /* Random, so that a restart within one tick of the clock differs too; 63 bits fit JSON. */
    if (getrandom(&r->epoch, sizeof r->epoch, 0) != (ssize_t)sizeof r->epoch)
        return -EIO;
    r->epoch >>= 1;
    r->started_ns = r->served_ns = clock_now_ns();
    return 0;
}

static int init_arena(struct router *r)
{
    const size_t bytes = (size_t)CODEC_ARENA_FACTOR * MESSAGE_BYTES_MAX + CODEC_ARENA_BYTES_EXTRA;
    void *data = malloc(bytes); /* pages that no message needs are never touched */

    codec_arena_init(&r->arena, data, data ? bytes : 0);
    return data ? 0 : -ENOMEM;
}

/* Entry c of router.queue_max, the last one for all classes behind it. */
static int queue_bounds(const struct router *r, uint32_t *bounds, struct error *err)
{
    const char *list = r->config.router_queue_max;
    char item[24] = "";

    for (uint32_t c = 0; c < r->n_classes; c++) {
        char *end;

        config_list_item(list, c, item, sizeof item); /* past the end item keeps the last one */
        const unsigned long value = strtoul(item, &end, 10);

        if (item[0] < '0' || item[0] > '9' || *end != '\0' || value > 1u << 20)
            return error_set(err, -EINVAL, "router.queue_max: \"%s\" is no length of a queue",
                             item);
        bounds[c] = (uint32_t)value;
    }
    return 0;
}

static int init_requests(struct router *r, struct error *err)
{
    uint32_t bounds[CONFIG_CLASSES_MAX] = {0};
    uint32_t n_max = ROUTER_RESULTS_MAX + r->n_engines * r->config.engine_max_seqs;
    int rc = queue_bounds(r, bounds, err);

    if (rc < 0)
        return rc;
    rc = config_tenants(&r->config, &r->tenants, err);
    if (rc < 0)
        return rc;
    /* Twice: a queue that is full takes each tenant's share on top. */
    for (uint32_t c = 0; c < r->n_classes; c++)
        n_max += (r->tenants.n > 1 ? 2 : 1) * bounds[c] + r->tenants.n;
    rc = class_queue_init(&r->queue, r->n_classes, bounds, n_max);
    if (rc == 0)
        class_queue_set_tenants(&r->queue, r->tenants.n, r->tenants.weights);
    return rc < 0 ? rc : request_table_init(&r->requests, &r->text, n_max);
}

static int init_sessions(struct router *r, struct error *err)
{
    const struct omni_config *c = &r->config;
    struct session_config config = {.sessions_max = c->router_sessions_max,
                                    .lease_ms = c->router_lease_ms,
                                    .slow_client_ms = c->router_slow_client_ms,
                                    .outbox_bytes = (size_t)c->router_outbox_kb << 10,
                                    .dir = r->dir,
                                    .tcp_listen = c->router_tcp_listen};
    const uint64_t n_other = OTHER_FDS + (uint64_t)r->n_engines * SESSION_FDS;
    const uint64_t n_wanted = (uint64_t)config.sessions_max * SESSION_FDS + n_other;
    const uint64_t n_files = process_raise_files(n_wanted);

    if (n_files < n_wanted) {
        config.sessions_max =
            n_files > n_other + SESSION_FDS ? (uint32_t)((n_files - n_other) / SESSION_FDS) : 1;
        log_warn("sessions_limited", "sessions_max=%u files=%llu remedy=\"ulimit -n\"",
                 config.sessions_max, (unsigned long long)n_files);
    }
    if (config_port_range(c->router_tcp_ports, &config.tcp_port_first, &config.tcp_port_last) < 0)
        return error_set(err, -EINVAL, "router.tcp_ports: \"%s\" is not first-last",
                         c->router_tcp_ports);
    return session_table_init(&r->sessions, &config, &r->poller);
}

static int init_links(struct router *r, struct error *err)
{
    for (uint32_t i = 0; i < r->n_engines; i++) {
        int rc = engine_open(r, i, r->started_ns);

        if (rc < 0)
            return error_set(err, rc, "cannot listen for engine %u in %s: %s", i, r->dir,
                             strerror(-rc));
    }
    int rc = door_open(r, DOOR_TCP, err);

    /* The ipc door last: a client that finds it finds everything else in place. */
    return rc < 0 ? rc : door_open(r, DOOR_IPC, err);
}

static void init_empty(struct router *r, const struct omni_config *config, const char *dir)
{
    memset(r, 0, sizeof *r);
    r->config = *config;
    snprintf(r->dir, sizeof r->dir, "%s", dir);
    r->poller.epoll_fd = -1;
    r->n_engines = config->group_n_engines;
    r->n_classes = config_classes(config, r->class_names);
    for (uint32_t c = 0; c < r->n_classes; c++)
        r->class_strs[c] = str_of(r->class_names[c]);
    for (uint32_t i = 0; i < ENGINES_MAX; i++)
        r->engines[i].pair.socket = -1;
    for (uint32_t i = 0; i < N_DOORS; i++)
        r->doors[i].socket = -1;
    counters_init(&r->counters, r->n_classes);
}

int router_init(struct router *r, const struct omni_config *config, const char *dir,
                const char *stats_dir, struct error *err)
{
    int rc;

    init_empty(r, config, dir);
    error_set(err, 0, "not enough memory or descriptors");
    if (strlen(dir) >= sizeof r->dir)
        return error_set(err, -ENAMETOOLONG, "run directory \"%s\" is too long", dir);
    if ((rc = init_epoch(r)) < 0 || (rc = init_arena(r)) < 0 || (rc = poller_init(&r->poller)) < 0)
        return rc;
    if ((rc = text_open(&r->text, config->model_path, config->engine_ctx_max, err)) < 0 ||
        (rc = init_requests(r, err)) < 0 || (rc = init_sessions(r, err)) < 0)
        return rc;
    if (stats_dir) {
        struct error why;

        /* Serving does not depend on being watched. */
        if (counters_open_page(&r->counters, stats_dir, r->class_names, &why) < 0)
            log_warn("no_statistics_page", "reason=\"%s\"", why.text);
    }
    return init_links(r, err);
}

int router_watch(struct router *r, int fd)
{
    return poller_add(&r->poller, fd, (struct poll_key){.kind = POLL_WAKE});
}

void router_reconfigure(struct router *r, const struct omni_config *config)
{
    r->config.router_result_keep_s = config->router_result_keep_s;
    r->config.router_slow_client_ms = config->router_slow_client_ms;
    r->sessions.config.slow_client_ms = config->router_slow_client_ms;
}

/* ---- Messages -------------------------------------------------------------------------------- */

void router_on_message(struct router *r, struct origin from, const struct message *m)
{
    switch (m->type) {
    case MESSAGE_GENERATE:
        service_on_generate(r, from.session, m);
        break;
    case MESSAGE_CANCEL:
        service_on_cancel(r, from.session, m);
        break;
    case MESSAGE_STATUS:
        service_on_status(r, from.session, m);
        break;
    case MESSAGE_PING:
        if (from.session)
            service_on_ping(r, from.session, m);
        else
            engine_on_ping(r, from.engine, m);
        break;
    case MESSAGE_PONG:
        engine_on_pong(r, from.engine, m);
        break;
    case MESSAGE_ENGINE_HELLO:
        engine_on_hello(r, from.engine, m);
        break;
    case MESSAGE_SUBMIT_REPLY:
        engine_on_submit_reply(r, from.engine, m);
        break;
    case MESSAGE_ENGINE_TOKENS:
        engine_on_tokens(r, from.engine, m);
        break;
    case MESSAGE_ENGINE_DONE:
        engine_on_done(r, from.engine, m);
        break;
    case MESSAGE_ENGINE_ERROR:
        engine_on_error(r, from.engine, m);
        break;
    case MESSAGE_ENGINE_STATE:
        engine_on_state(r, from.engine, m);
        break;
    default: /* kept out by is_allowed */
        break;
    }
}

/* May a message of this type come over a link of this kind?  hello belongs to the door. */
static bool is_allowed(enum message_type type, enum message_role from)
{
    return type != MESSAGE_HELLO && message_may_travel(type, from, ROLE_ROUTER);
}

/* Decodes into r->arena.  False with error filled in. */
static bool decode(struct router *r, const void *bytes, size_t n, enum message_role from,
                   struct message *m, struct codec_error *error)
{
    r->counters.values[COUNTER_MESSAGES_IN]++;
    codec_arena_init(&r->arena, r->arena.data, r->arena.cap);
    if (message_decode(bytes, n, m, &r->arena, error) < 0)
        return false;
    if (is_allowed(m->type, from))
        return true;
    *error = (struct codec_error){.fault = CODEC_UNKNOWN_MESSAGE, .field = "t"};
    snprintf(error->text, sizeof error->text, "%s is not for the router here",
             message_name(m->type));
    return false;
}

static void on_session_readable(struct router *r, struct session *s)
{
    const uint64_t now_ns = clock_now_ns();

    for (int i = 0; i < ROUTER_MESSAGES_A_TURN; i++) {
        struct codec_error error;
        struct message m;
        void *bytes;
        ssize_t n = pair_receive(&s->pair, &bytes, now_ns);

        if (n <= 0)
            return;
        session_heard(s);
        if (s->state == SESSION_CLOSING)
            ; /* whatever it is comes too late */
        else if (decode(r, bytes, (size_t)n, ROLE_CLIENT, &m, &error))
            router_on_message(r, (struct origin){.session = s}, &m);
        else
            service_on_bad_message(r, s, &error);
        wire_release(bytes);
    }
}

static void on_engine_readable(struct router *r, struct engine_link *e)
{
    const uint64_t now_ns = clock_now_ns();

    for (int i = 0; i < ROUTER_MESSAGES_A_TURN; i++) {
        struct codec_error error;
        struct message m;
        void *bytes;
        ssize_t n = pair_receive(&e->pair, &bytes, now_ns);

        if (n <= 0)
            return;
        if (decode(r, bytes, (size_t)n, ROLE_ENGINE, &m, &error)) {
            router_on_message(r, (struct origin){.engine = e}, &m);
        } else {
            r->counters.values[COUNTER_BAD_MESSAGES]++;
            log_error("bad_engine_message", "engine=%u field=%s reason=\"%s\"", e->index,
                      error.field, error.text);
        }
        wire_release(bytes);
    }
}

static void on_readable(struct router *r, struct poll_key key)
{
    struct session *s;

    switch (key.kind) {
    case POLL_DOOR:
        door_on_readable(r, &r->doors[key.index]);
        break;
    case POLL_ENGINE:
        on_engine_readable(r, &r->engines[key.index]);
        break;
    case POLL_SESSION:
        s = session_find(&r->sessions, key.index, key.generation);
        if (s)
            on_session_readable(r, s);
        break;
    case POLL_WAKE:
        break;
    }
}

/* ---- Time ------------------------------------------------------------------------------------ */

static void end_session(struct router *r, struct session *s, enum session_fate fate)
{
    static const enum counter counters[] = {[SESSION_NOT_DIALLED] = COUNTER_SESSIONS_NOT_DIALLED,
                                            [SESSION_GONE] = COUNTER_CLIENTS_GONE,
                                            [SESSION_SILENT] = COUNTER_CLIENTS_SILENT,
                                            [SESSION_SLOW] = COUNTER_CLIENTS_SLOW,
                                            [SESSION_CLOSED] = COUNTER_CLIENTS_GONE};

    r->counters.values[counters[fate]]++;
    if (fate != SESSION_GONE)
        log_info("session_ended", "session=%u client=\"%s\" reason=%s", s->index, s->client,
                 session_fate_name(fate));
    lifecycle_end_session(r, s, fate == SESSION_SLOW);
}

/* Delivers to and judges every session.  True if some socket did not take all. */
static bool turn_sessions(struct router *r, uint64_t now_ns, bool judge)
{
    bool backlog = false;

    for (uint32_t i = 0; i < r->sessions.config.sessions_max; i++) {
        struct session *s = &r->sessions.sessions[i];

        if (s->state == SESSION_FREE)
            continue;
        if (s->pair.outbox.n_messages > 0)
            pair_flush(&s->pair, now_ns);
        deliver_session(r, s, now_ns);
        backlog = backlog || s->pair.outbox.n_messages > 0;
        if (!judge)
            continue;
        const enum session_fate fate = session_check(&r->sessions, s, now_ns);

        if (fate != SESSION_FINE)
            end_session(r, s, fate);
    }
    return backlog;
}

static bool turn_engines(struct router *r, uint64_t now_ns, bool judge)
{
    bool backlog = false;

    for (uint32_t i = 0; i < r->n_engines; i++) {
        struct engine_link *e = &r->engines[i];

        if (judge)
            engine_tick(r, e, now_ns);
        else if (e->pair.outbox.n_messages > 0)
            pair_flush(&e->pair, now_ns);
        backlog = backlog || (e->state == ENGINE_READY && e->pair.outbox.n_messages > 0);
    }
    return backlog;
}

static void update_gauges(struct router *r)
{
    r->counters.values[COUNTER_SESSIONS] = r->sessions.n;
    r->counters.values[COUNTER_REQUESTS_HELD] = r->requests.n_max - r->requests.n_free;
    r->counters.values[COUNTER_SESSIONS_MAX] = r->sessions.config.sessions_max;
    r->counters.values[COUNTER_CLOCK_JUMPS] = log_clock_jumps();
    for (uint32_t c = 0; c < r->n_classes; c++)
        r->counters.of_class[c][CLASS_QUEUED] = class_queue_length(&r->queue, c);
}

/* A router that did not run has heard nothing of anybody: all get a fresh lease. */
static void forgive_silence(struct router *r, uint64_t now_ns)
{
    for (uint32_t i = 0; i < r->sessions.config.sessions_max; i++) {
        if (r->sessions.sessions[i].state != SESSION_FREE)
            r->sessions.sessions[i].pair.heard_ns = now_ns;
    }
    for (uint32_t i = 0; i < r->n_engines; i++)
        r->engines[i].pair.heard_ns = now_ns;
}

/* Called with every reading of the clock that silence is judged by. */
static void note_time(struct router *r, uint64_t now_ns)
{
    if (r->noted_ns != 0 && now_ns > r->noted_ns + STALL_MS * NS_PER_MS) {
        log_warn("router_stalled", "ms=%u", (unsigned)((now_ns - r->noted_ns) / NS_PER_MS));
        forgive_silence(r, now_ns);
    }
    r->noted_ns = now_ns;
}

void router_tick(struct router *r, uint64_t now_ns)
{
    const bool judge = now_ns >= r->next_judgement_ns;

    note_time(r, now_ns);
    if (judge) {
        r->next_judgement_ns = now_ns + TICK_MS * NS_PER_MS;
        lifecycle_tick(r, now_ns);
    }
    dispatch_run(r, now_ns);
    r->backlog = turn_engines(r, now_ns, judge);
    r->backlog = turn_sessions(r, now_ns, judge) || r->backlog;
    update_gauges(r);
    if (judge)
        counters_publish(&r->counters);
}

static int wait_ms(const struct router *r, uint64_t now_ns)
{
    uint64_t due_ns = r->next_judgement_ns;

    for (uint32_t c = 0; c < r->n_classes; c++) {
        if (r->retry_ns[c] != 0 && r->retry_ns[c] < due_ns)
            due_ns = r->retry_ns[c];
    }
    uint64_t ms = due_ns <= now_ns ? 0 : (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;

    if (r->backlog && ms > BACKLOG_TICK_MS)
        ms = BACKLOG_TICK_MS;
    return (int)ms;
}

int router_poll(struct router *r)
{
    struct poll_key keys[POLLER_EVENTS_MAX];
    int n = poller_wait(&r->poller, wait_ms(r, clock_now_ns()), keys);

    note_time(r, clock_now_ns());
    for (int i = 0; i < n; i++)
        on_readable(r, keys[i]);
    router_tick(r, clock_now_ns());
    return n < 0 ? n : 0;
}

/* ---- Shutdown -------------------------------------------------------------------------------- */

static void say_goodbye(struct router *r)
{
    const uint64_t until_ns = clock_now_ns() + SHUTDOWN_MS * NS_PER_MS;

    for (uint32_t i = 0; i < r->sessions.config.sessions_max; i++) {
        struct session *s = &r->sessions.sessions[i];

        if (s->state != SESSION_BOUND && s->state != SESSION_OPEN)
            continue;
        deliver_error(s, NULL, ERROR_SHUTTING_DOWN, NULL, true, 0, "the group is going down",
                      clock_now_ns());
        session_begin_close(s, clock_now_ns());
    }
    while (r->sessions.n > 0 && clock_now_ns() < until_ns) {
        turn_sessions(r, clock_now_ns(), true);
        clock_sleep_ns(BACKLOG_TICK_MS * NS_PER_MS);
    }
}

void router_shutdown(struct router *r)
{
    for (uint32_t i = 0; i < N_DOORS; i++)
        door_close(&r->doors[i]);
    if (r->sessions.sessions)
        say_goodbye(r);
    session_table_fini(&r->sessions);
    for (uint32_t i = 0; i < ENGINES_MAX; i++)
        engine_close(&r->engines[i]);
    request_table_fini(&r->requests);
    class_queue_fini(&r->queue);
    text_close(&r->text);
    counters_fini(&r->counters);
    free(r->arena.data);
    r->arena.data = NULL;
    poller_fini(&r->poller);
}
