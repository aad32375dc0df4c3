#include "router/session.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/base/log.h"

/* File names: PREFIX, 16 hexadecimal digits, SUFFIX. */
#define PREFIX "s-"
#define SUFFIX ".sock"

enum { BIND_TRIES = 8 };

/* Which states may follow. */
static const unsigned followers[] = {
    [SESSION_FREE] = 1u << SESSION_BOUND,
    [SESSION_BOUND] = 1u << SESSION_OPEN | 1u << SESSION_CLOSING | 1u << SESSION_FREE,
    [SESSION_OPEN] = 1u << SESSION_CLOSING | 1u << SESSION_FREE,
    [SESSION_CLOSING] = 1u << SESSION_FREE,
};

static void set_state(struct session *s, enum session_state state)
{
    invariant(followers[s->state] & 1u << state);
    s->state = state;
}

static bool is_session_file(const char *name)
{
    const size_t n = strlen(name);

    return strncmp(name, PREFIX, strlen(PREFIX)) == 0 && n > strlen(SUFFIX) &&
           strcmp(name + n - strlen(SUFFIX), SUFFIX) == 0;
}

static void remove_left_overs(const char *dir)
{
    DIR *d = opendir(dir);

    if (!d)
        return;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (is_session_file(e->d_name))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

int session_table_init(struct session_table *t, const struct session_config *config,
                       struct poller *poller)
{
    *t = (struct session_table){
        .config = *config, .poller = poller, .next_port = config->tcp_port_first};
    if (config->sessions_max == 0 || config->sessions_max > SESSIONS_MAX)
        return -EINVAL;
    remove_left_overs(config->dir);
    t->sessions = calloc(config->sessions_max, sizeof *t->sessions);
    if (!t->sessions)
        return -ENOMEM;
    for (uint32_t i = 0; i < config->sessions_max; i++)
        t->sessions[i] = (struct session){.index = i, .generation = 1, .pair.socket = -1};
    return 0;
}

void session_table_fini(struct session_table *t)
{
    for (uint32_t i = 0; t->sessions && i < t->config.sessions_max; i++) {
        if (t->sessions[i].state != SESSION_FREE)
            session_destroy(t, &t->sessions[i]);
    }
    free(t->sessions);
    t->sessions = NULL;
}

static struct session *find_free(struct session_table *t)
{
    for (uint32_t i = 0; i < t->config.sessions_max; i++) {
        if (t->sessions[i].state == SESSION_FREE)
            return &t->sessions[i];
    }
    return NULL;
}

/* An address that nobody can guess, so that only who was told it can dial. */
static int ipc_url(const struct session_table *t, char *out, size_t size)
{
    uint64_t random;

    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return -EIO;
    int n = snprintf(out, size, "ipc://%s/" PREFIX "%016" PRIx64 SUFFIX, t->config.dir, random);

    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static uint16_t take_port(struct session_table *t)
{
    const uint16_t port = t->next_port;

    t->next_port =
        port == t->config.tcp_port_last ? t->config.tcp_port_first : (uint16_t)(port + 1);
    return port;
}

static int try_open(struct session_table *t, struct session *s, uint64_t now_ns)
{
    const struct poll_key key = {
        .kind = POLL_SESSION, .index = s->index, .generation = s->generation};
    char url[WIRE_URL_BYTES];
    int rc = 0;

    if (s->over_tcp) {
        s->port = take_port(t);
        int n = snprintf(url, sizeof url, "tcp://%s:%u", t->config.tcp_listen, s->port);

        rc = n < 0 || (size_t)n >= sizeof url ? -ENAMETOOLONG : 0;
    } else {
        rc = ipc_url(t, url, sizeof url);
    }
    return rc < 0 ? rc : pair_open(&s->pair, t->poller, key, url, t->config.outbox_bytes, now_ns);
}

/* A port of the range may be taken, by another session or another program. */
static int open_somewhere(struct session_table *t, struct session *s, uint64_t now_ns)
{
    const uint32_t n_tries =
        s->over_tcp ? (uint32_t)(t->config.tcp_port_last - t->config.tcp_port_first) + 1
                    : BIND_TRIES;
    int rc = -EADDRINUSE;

    for (uint32_t i = 0; i < n_tries && rc == -EADDRINUSE; i++)
        rc = try_open(t, s, now_ns);
    return rc;
}

enum session_result session_create(struct session_table *t, bool over_tcp, struct str client,
                                   uint64_t now_ns, struct session **out)
{
    struct session *s = find_free(t);

    if (!s)
        return SESSION_TABLE_FULL;
    *s = (struct session){.index = s->index,
                          .generation = s->generation,
                          .over_tcp = over_tcp,
                          .first_request = SESSION_NONE,
                          .first_dirty = SESSION_NONE,
                          .last_dirty = SESSION_NONE};
    int rc = open_somewhere(t, s, now_ns);

    if (rc < 0) {
        log_warn("session_not_bound", "error=\"%s\" sessions=%u", strerror(-rc), t->n);
        return SESSION_NOT_BOUND;
    }
    const size_t n = client.n < sizeof s->client - 1 ? client.n : sizeof s->client - 1;

    if (n > 0)
        memcpy(s->client, client.data, n);
    s->client[n] = '\0';
    set_state(s, SESSION_BOUND);
    t->n++;
    *out = s;
    return SESSION_CREATED;
}

void session_destroy(struct session_table *t, struct session *s)
{
    pair_close(&s->pair);
    set_state(s, SESSION_FREE);
    s->generation++;
    t->n--;
}

struct session *session_find(struct session_table *t, uint32_t index, uint32_t generation)
{
    if (index >= t->config.sessions_max)
        return NULL;
    struct session *s = &t->sessions[index];

    return s->state != SESSION_FREE && s->generation == generation ? s : NULL;
}

static bool older(uint64_t since_ns, uint64_t now_ns, uint32_t limit_ms)
{
    return now_ns > since_ns && now_ns - since_ns > limit_ms * NS_PER_MS;
}

static enum session_fate check_closing(const struct session *s, uint64_t now_ns)
{
    if (!pair_connected(&s->pair) || older(s->closing_since_ns, now_ns, SESSION_CLOSE_MS))
        return SESSION_CLOSED;
    return SESSION_FINE;
}

static enum session_fate check_bound(const struct session_table *t, const struct session *s,
                                     uint64_t now_ns)
{
    if (!older(s->pair.heard_ns, now_ns, t->config.lease_ms))
        return SESSION_FINE;
    return pair_was_connected(&s->pair) ? SESSION_GONE : SESSION_NOT_DIALLED;
}

static enum session_fate check_open(const struct session_table *t, const struct session *s,
                                    uint64_t now_ns)
{
    if (!pair_connected(&s->pair))
        return SESSION_GONE;
    if (pair_stuck_ns(&s->pair, now_ns) > t->config.slow_client_ms * NS_PER_MS)
        return SESSION_SLOW;
    if (pair_has_room(&s->pair) && older(s->pair.heard_ns, now_ns, t->config.lease_ms))
        return SESSION_SILENT;
    return SESSION_FINE;
}

enum session_fate session_check(const struct session_table *t, struct session *s, uint64_t now_ns)
{
    if (s->state == SESSION_CLOSING)
        return check_closing(s, now_ns);
    if (s->state == SESSION_BOUND) {
        /* Accepted but not connected is somebody in the middle of nanomsg's handshake, or one who
         * has left already: only the lease can tell them apart. */
        if (!pair_connected(&s->pair))
            return check_bound(t, s, now_ns);
        /* The lease of a connected client starts when the connection is seen. */
        s->pair.heard_ns = now_ns;
        set_state(s, SESSION_OPEN);
    }
    return check_open(t, s, now_ns);
}

void session_heard(struct session *s)
{
    if (s->state == SESSION_BOUND)
        set_state(s, SESSION_OPEN);
}

void session_begin_close(struct session *s, uint64_t now_ns)
{
    if (s->state == SESSION_CLOSING)
        return;
    set_state(s, SESSION_CLOSING);
    s->closing_since_ns = now_ns;
}

const char *session_state_name(enum session_state state)
{
    static const char *const names[] = {"free", "bound", "open", "closing"};

    return names[state];
}

const char *session_fate_name(enum session_fate fate)
{
    static const char *const names[] = {"fine", "not_dialled", "gone", "silent", "slow", "closed"};

    return names[fate];
}
