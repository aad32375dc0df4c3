/* The session table against real sockets: addresses, dialling, leases, limits, slow peers, and that
 * nothing is left behind. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "common/base/process.h"
#include "router/door.h"
#include "router/session.h"

enum { LEASE_MS = 200, SLOW_MS = 150, N_SESSIONS = 3, OUTBOX_BYTES = 16384, WAIT_MS = 5000 };

struct fixture {
    char dir[64];
    struct poller poller;
    struct session_table table;
};

static int set_up_with(struct fixture *f, struct session_config config)
{
    strcpy(f->dir, "/tmp/omni-sessions-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    config.dir = f->dir;
    assert_int_equal(poller_init(&f->poller), 0);
    return session_table_init(&f->table, &config, &f->poller);
}

static struct session_config small_config(void)
{
    return (struct session_config){.sessions_max = N_SESSIONS,
                                   .lease_ms = LEASE_MS,
                                   .slow_client_ms = SLOW_MS,
                                   .outbox_bytes = OUTBOX_BYTES,
                                   .tcp_listen = "127.0.0.1",
                                   .tcp_port_first = 17510,
                                   .tcp_port_last = 17512};
}

static void set_up(struct fixture *f)
{
    assert_int_equal(set_up_with(f, small_config()), 0);
}

static void tear_down(struct fixture *f)
{
    session_table_fini(&f->table);
    poller_fini(&f->poller);
    assert_int_equal(rmdir(f->dir), 0); /* fails if a socket is left */
}

static struct session *create(struct fixture *f, bool over_tcp)
{
    struct session *s = NULL;

    assert_int_equal(session_create(&f->table, over_tcp, str_of("test"), clock_now_ns(), &s),
                     SESSION_CREATED);
    return s;
}

static enum session_fate wait_fate(struct fixture *f, struct session *s, enum session_fate want)
{
    const uint64_t until_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;
    enum session_fate fate = session_check(&f->table, s, clock_now_ns());

    while (fate != want && clock_now_ns() < until_ns) {
        clock_sleep_ns(NS_PER_MS);
        fate = session_check(&f->table, s, clock_now_ns());
    }
    return fate;
}

static void wait_open(struct fixture *f, struct session *s)
{
    const uint64_t until_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;

    while (s->state != SESSION_OPEN && clock_now_ns() < until_ns) {
        session_check(&f->table, s, clock_now_ns());
        clock_sleep_ns(NS_PER_MS);
    }
    assert_int_equal(s->state, SESSION_OPEN);
}

static void test_addresses_are_fresh_and_private(void **state)
{
    (void)state;
    struct fixture f;
    struct stat st;

    set_up(&f);
    struct session *a = create(&f, false), *b = create(&f, false);

    assert_string_not_equal(a->pair.url, b->pair.url);
    assert_int_equal(stat(a->pair.url + strlen("ipc://"), &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    char first[WIRE_URL_BYTES];

    strcpy(first, a->pair.url);
    session_destroy(&f.table, a);
    assert_int_equal(stat(first + strlen("ipc://"), &st), -1);
    assert_string_not_equal(create(&f, false)->pair.url, first);
    tear_down(&f);
}

static void test_table_is_bounded(void **state)
{
    (void)state;
    struct fixture f;
    struct session *s, *more = NULL;

    set_up(&f);
    s = create(&f, false);
    create(&f, false);
    create(&f, false);
    assert_int_equal(session_create(&f.table, false, str_of(""), clock_now_ns(), &more),
                     SESSION_TABLE_FULL);
    const uint32_t index = s->index, generation = s->generation;

    assert_ptr_equal(session_find(&f.table, index, generation), s);
    session_destroy(&f.table, s);
    assert_null(session_find(&f.table, index, generation));
    s = create(&f, false);
    assert_int_equal(s->index, index);
    assert_int_not_equal(s->generation, generation);
    assert_null(session_find(&f.table, index, generation));
    assert_null(session_find(&f.table, 1000, 1));
    tear_down(&f);
}

static void test_448_sessions_fit_a_process(void **state)
{
    (void)state;
    struct session_config config = small_config();
    struct fixture f;
    struct session *more = NULL;

    if (process_raise_files(SESSIONS_MAX * 6 + 128) < SESSIONS_MAX * 6 + 128)
        skip();
    config.sessions_max = SESSIONS_MAX;
    assert_int_equal(set_up_with(&f, config), 0);
    for (uint32_t i = 0; i < SESSIONS_MAX; i++)
        create(&f, false);
    assert_int_equal(session_create(&f.table, false, str_of(""), clock_now_ns(), &more),
                     SESSION_TABLE_FULL);
    tear_down(&f);
    config.sessions_max = SESSIONS_MAX + 1;
    assert_int_equal(set_up_with(&f, config), -EINVAL);
    tear_down(&f);
}

static void test_nobody_dials(void **state)
{
    (void)state;
    struct fixture f;

    set_up(&f);
    struct session *s = create(&f, false);
    const uint64_t born_ns = s->pair.heard_ns;

    assert_int_equal(session_check(&f.table, s, born_ns + LEASE_MS * NS_PER_MS), SESSION_FINE);
    assert_int_equal(session_check(&f.table, s, born_ns + (LEASE_MS + 1) * NS_PER_MS),
                     SESSION_NOT_DIALLED);
    tear_down(&f);
}

static void test_gone_peer(void **state)
{
    (void)state;
    struct fixture f;

    set_up(&f);
    struct session *s = create(&f, false);
    int peer = wire_pair_dial(s->pair.url);

    wait_open(&f, s);
    assert_int_equal(session_check(&f.table, s, clock_now_ns()), SESSION_FINE);
    wire_close(peer);
    assert_int_equal(wait_fate(&f, s, SESSION_GONE), SESSION_GONE);
    tear_down(&f);
}

/* Even one that came and went between two looks is known to have been there. */
static void test_short_visit_counts(void **state)
{
    (void)state;
    struct fixture f;

    set_up(&f);
    struct session *s = create(&f, false);
    int peer = wire_pair_dial(s->pair.url);
    const uint64_t until_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;

    while (!pair_was_connected(&s->pair) && clock_now_ns() < until_ns)
        clock_sleep_ns(NS_PER_MS);
    wire_close(peer);
    clock_sleep_ns(20 * NS_PER_MS);
    assert_int_equal(wait_fate(&f, s, SESSION_GONE), SESSION_GONE);
    tear_down(&f);
}

/* Bug: a session was ended between the accept and the end of nanomsg's handshake, as if its client
 * had gone. */
static void test_handshake_is_not_an_end(void **state)
{
    (void)state;
    struct fixture f;
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    set_up(&f);
    struct session *s = create(&f, false);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    const uint64_t until_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;

    snprintf(address.sun_path, sizeof address.sun_path, "%s", s->pair.url + strlen("ipc://"));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    while (!pair_was_connected(&s->pair) && clock_now_ns() < until_ns)
        clock_sleep_ns(NS_PER_MS);
    assert_true(pair_was_connected(&s->pair) && !pair_connected(&s->pair));
    assert_int_equal(session_check(&f.table, s, s->pair.heard_ns), SESSION_FINE);
    assert_int_equal(wait_fate(&f, s, SESSION_GONE), SESSION_GONE);
    close(fd);
    tear_down(&f);
}

static void test_silence(void **state)
{
    (void)state;
    struct fixture f;
    void *bytes;

    set_up(&f);
    struct session *s = create(&f, false);
    int peer = wire_pair_dial(s->pair.url);

    wait_open(&f, s);
    const uint64_t open_ns = s->pair.heard_ns;

    assert_int_equal(session_check(&f.table, s, open_ns + LEASE_MS * NS_PER_MS), SESSION_FINE);
    assert_int_equal(session_check(&f.table, s, open_ns + (LEASE_MS + 1) * NS_PER_MS),
                     SESSION_SILENT);
    /* Any message renews the lease. */
    assert_int_equal(wire_send(peer, "x", 1), 0);
    const uint64_t until_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;
    ssize_t n = 0;

    while (n == 0 && clock_now_ns() < until_ns)
        n = pair_receive(&s->pair, &bytes, open_ns + LEASE_MS * NS_PER_MS);
    assert_int_equal(n, 1);
    wire_release(bytes);
    assert_int_equal(session_check(&f.table, s, open_ns + (LEASE_MS + 1) * NS_PER_MS),
                     SESSION_FINE);
    wire_close(peer);
    tear_down(&f);
}

/* A peer that does not read fills socket and outbox; then it is not read either, and after
 * slow_client_ms it is judged slow, not silent. */
static void test_slow_peer(void **state)
{
    (void)state;
    char text[1001];
    struct fixture f;

    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const struct message m = {
        .type = MESSAGE_ERROR,
        .error = {.code = ERROR_INTERNAL, .message = {.data = text, .n = 1000}}};

    set_up(&f);
    struct session *s = create(&f, false);
    int peer = wire_pair_dial(s->pair.url);
    uint32_t n_taken = 0;

    wait_open(&f, s);
    while (pair_send(&s->pair, &m, clock_now_ns()) == 0 && n_taken < 100000) {
        n_taken++;
        clock_sleep_ns(20 * NS_PER_US); /* nanomsg moves them on in its own thread */
    }
    assert_true(n_taken > OUTBOX_BYTES / 1100);
    assert_true(n_taken < 10000);
    assert_false(pair_has_room(&s->pair));
    assert_false(s->pair.watched);
    const uint64_t full_ns = clock_now_ns();

    assert_int_equal(session_check(&f.table, s, full_ns), SESSION_FINE);
    assert_int_equal(session_check(&f.table, s, full_ns + (SLOW_MS + 1) * NS_PER_MS), SESSION_SLOW);
    /* It reads again in time: everything arrives, in order of sending, and the session lives. */
    uint32_t n_read = 0;
    const uint64_t until_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;

    while (n_read < n_taken && clock_now_ns() < until_ns) {
        void *bytes;

        if (wire_recv(peer, &bytes) > 0) {
            wire_release(bytes);
            n_read++;
        }
        pair_flush(&s->pair, clock_now_ns());
    }
    assert_int_equal(n_read, n_taken);
    assert_true(s->pair.watched);
    assert_int_equal(pair_stuck_ns(&s->pair, clock_now_ns()), 0);
    wire_close(peer);
    tear_down(&f);
}

static void test_second_dialler_gets_nothing(void **state)
{
    (void)state;
    const struct message m = {.type = MESSAGE_PONG, .pong = {.epoch = 1}};
    struct fixture f;
    void *bytes;

    set_up(&f);
    struct session *s = create(&f, false);
    int first = wire_pair_dial(s->pair.url);

    wait_open(&f, s);
    int second = wire_pair_dial(s->pair.url);

    clock_sleep_ns(100 * NS_PER_MS);
    assert_int_equal(pair_send(&s->pair, &m, clock_now_ns()), 0);
    clock_sleep_ns(50 * NS_PER_MS);
    assert_int_equal(wire_recv(second, &bytes), -EAGAIN);
    assert_true(wire_recv(first, &bytes) > 0);
    wire_release(bytes);
    assert_int_equal(session_check(&f.table, s, clock_now_ns()), SESSION_FINE);
    wire_close(first);
    wire_close(second);
    tear_down(&f);
}

static void test_last_words_are_heard(void **state)
{
    (void)state;
    const struct message m = {.type = MESSAGE_PONG, .pong = {.epoch = 1}};
    struct fixture f;
    void *bytes;

    set_up(&f);
    struct session *s = create(&f, false);
    int peer = wire_pair_dial(s->pair.url);

    wait_open(&f, s);
    pair_send(&s->pair, &m, clock_now_ns());
    session_begin_close(s, clock_now_ns());
    assert_int_equal(session_check(&f.table, s, clock_now_ns()), SESSION_FINE);
    clock_sleep_ns(50 * NS_PER_MS);
    assert_true(wire_recv(peer, &bytes) > 0);
    wire_release(bytes);
    assert_int_equal(
        session_check(&f.table, s, clock_now_ns() + (SESSION_CLOSE_MS + 1) * NS_PER_MS),
        SESSION_CLOSED);
    wire_close(peer);
    assert_int_equal(wait_fate(&f, s, SESSION_CLOSED), SESSION_CLOSED);
    tear_down(&f);
}

/* Ports of the range, one each; all taken is a refusal. */
static void test_tcp_sessions(void **state)
{
    (void)state;
    struct session_config config = small_config();
    struct fixture f;
    struct session *s, *more = NULL;

    config.sessions_max = 4;
    assert_int_equal(set_up_with(&f, config), 0);
    s = create(&f, true);
    create(&f, true);
    create(&f, true);
    assert_int_equal(session_create(&f.table, true, str_of(""), clock_now_ns(), &more),
                     SESSION_NOT_BOUND);
    int peer = wire_pair_dial(s->pair.url);

    wait_open(&f, s);
    session_destroy(&f.table, s);
    wire_close(peer);
    assert_true(strstr(create(&f, true)->pair.url, "tcp://127.0.0.1:1751") != NULL);
    tear_down(&f);
}

static void test_left_overs_are_removed(void **state)
{
    (void)state;
    struct session_table again;
    struct fixture f;
    char path[128];

    set_up(&f);
    snprintf(path, sizeof path, "%s/s-0123456789abcdef.sock", f.dir);
    fclose(fopen(path, "w"));
    assert_int_equal(session_table_init(&again, &f.table.config, &f.poller), 0);
    assert_int_equal(access(path, F_OK), -1);
    session_table_fini(&again);
    tear_down(&f);
}

static uint32_t count_fds(void)
{
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/fd");

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void test_no_descriptor_is_lost(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t before = 0;

    set_up(&f);
    int keeps_nanomsg_alive = wire_pair_bind("ipc:///tmp/omni-sessions-keep.sock");

    for (int i = 0; i < 20; i++) {
        struct session *s = create(&f, i % 2);
        int peer = wire_pair_dial(s->pair.url);

        wait_open(&f, s);
        session_destroy(&f.table, s);
        wire_close(peer);
        if (i == 1)
            before = count_fds();
    }
    assert_int_equal(count_fds(), before);
    wire_close(keeps_nanomsg_alive);
    tear_down(&f);
}

static void test_port_ranges(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "7", "7-", "0-5", "9-8", "1-65536", "1-2x", "a-b"};
    uint16_t first, last;

    assert_int_equal(config_port_range("7500-7999", &first, &last), 0);
    assert_int_equal(first, 7500);
    assert_int_equal(last, 7999);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(config_port_range(wrong[i], &first, &last), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_are_fresh_and_private),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_448_sessions_fit_a_process),
        cmocka_unit_test(test_nobody_dials),
        cmocka_unit_test(test_gone_peer),
        cmocka_unit_test(test_short_visit_counts),
        cmocka_unit_test(test_handshake_is_not_an_end),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_slow_peer),
        cmocka_unit_test(test_second_dialler_gets_nothing),
        cmocka_unit_test(test_last_words_are_heard),
        cmocka_unit_test(test_tcp_sessions),
        cmocka_unit_test(test_left_overs_are_removed),
        cmocka_unit_test(test_no_descriptor_is_lost),
        cmocka_unit_test(test_port_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
