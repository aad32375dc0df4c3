/* Sockets and outbox: what the rest builds on, measured on the library that is installed. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "proto/outbox.h"
#include "proto/wire.h"

/* nanomsg 1.1.5 leaks the endpoint of a bind that fails (address in use). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:nn_bipc_create";
}

static char dir[] = "/tmp/omni-wire-XXXXXX";
static char url[WIRE_URL_BYTES];
static char *path = url + sizeof "ipc://" - 1;

static bool wait_connections(int sock, int n)
{
    for (int i = 0; i < 5000; i++) {
        if (wire_connections(sock) == n)
            return true;
        clock_sleep_ns(NS_PER_MS);
    }
    return false;
}

static void test_addresses(void **state)
{
    char out[WIRE_URL_BYTES], long_name[WIRE_URL_BYTES], path107[WIRE_URL_BYTES] = "ipc:///";

    (void)state;
    assert_int_equal(wire_url_router(out, "/run/omni", "demo"), 0);
    assert_string_equal(out, "ipc:///run/omni/demo/router.sock");
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_int_equal(wire_url(out, "/run", "demo", long_name), -ENAMETOOLONG);
    memset(path107 + 7, 'x', WIRE_PATH_BYTES_MAX - 1);
    path107[6 + WIRE_PATH_BYTES_MAX] = '\0';
    assert_int_equal(wire_url_check(path107), 0);
    assert_int_equal(wire_url_check("ipc://"), -EINVAL);
    assert_int_equal(wire_url_check("inproc://x"), -EINVAL);
    assert_int_equal(wire_url_check("tcp://127.0.0.1:80"), 0);
}

static void test_socket_file_is_private(void **state)
{
    int sock = wire_pair_bind(url);
    struct stat st;
    mode_t mask = umask(022);

    (void)state;
    umask(mask);
    assert_true(sock >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_not_equal(mask, 0177); /* the process has its own again */
    wire_close(sock);
}

/* A killed router leaves its socket file; the next one takes its place, but not a living one's. */
static void test_stale_socket_is_replaced(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    memcpy(address.sun_path, path, strlen(path) + 1);
    unlink(path);
    assert_int_equal(bind(stale, (struct sockaddr *)&address, sizeof address), 0);
    close(stale);
    assert_false(wire_is_listening(url));
    int sock = wire_rep_bind(url);

    assert_true(sock >= 0);
    for (int i = 0; i < 100; i++)
        assert_true(wire_is_listening(url)); /* and the socket stands it */
    assert_int_equal(wire_rep_bind(url), -EADDRINUSE);
    wire_close(sock);
    assert_false(wire_is_listening(url));
}

static void test_connections_tell_a_gone_peer(void **state)
{
    int bound = wire_pair_bind(url), dialled = wire_pair_dial(url);

    (void)state;
    assert_true(bound >= 0 && dialled >= 0);
    assert_true(wait_connections(bound, 1) && wait_connections(dialled, 1));
    wire_close(dialled);
    assert_true(wait_connections(bound, 0));
    assert_int_equal(wire_send(bound, "x", 1), -EAGAIN);
    wire_close(bound);
}

static void test_largest_message(void **state)
{
    int bound = wire_pair_bind(url), dialled = wire_pair_dial(url);
    char *data = calloc(1, MESSAGE_BYTES_MAX);
    struct pollfd pfd = {.fd = wire_poll_fd(bound), .events = POLLIN};
    void *got;

    (void)state;
    assert_true(data != NULL && wait_connections(dialled, 1));
    assert_int_equal(wire_send(dialled, data, MESSAGE_BYTES_MAX), 0);
    assert_int_equal(poll(&pfd, 1, 10000), 1);
    assert_int_equal(wire_recv(bound, &got), MESSAGE_BYTES_MAX);
    wire_release(got);
    free(data);
    wire_close(dialled);
    wire_close(bound);
}

static struct message numbered(uint64_t n)
{
    return (struct message){.type = MESSAGE_PING, .ping.epoch = n};
}

static uint64_t take_number(int sock)
{
    struct pollfd pfd = {.fd = wire_poll_fd(sock), .events = POLLIN};
    struct codec_arena arena = {0};
    struct codec_error error;
    struct message m;
    void *bytes;

    assert_int_equal(poll(&pfd, 1, 10000), 1);
    ssize_t n = wire_recv(sock, &bytes);

    assert_true(n > 0);
    assert_int_equal(message_decode(bytes, (size_t)n, &m, &arena, &error), 0);
    wire_release(bytes);
    return m.ping.epoch;
}

/* Small outboxes of every size, pushed and flushed in uneven steps: nothing lost, nothing reordered
 * across the wrap, full is full. */
static void test_outbox_keeps_order(void **state)
{
    int bound = wire_pair_bind(url), dialled = wire_pair_dial(url);
    unsigned char memory[200];

    (void)state;
    assert_true(wait_connections(dialled, 1));
    for (size_t cap = 40; cap <= sizeof memory; cap += 7) {
        struct outbox box;
        uint64_t pushed = 0, taken = 0;
        uint32_t n_full = 0;

        outbox_init(&box, memory, cap);
        while (taken < 300) {
            struct message m = numbered(pushed * pushed);
            int err = outbox_push(&box, &m, NULL);

            if (err == 0)
                pushed++;
            n_full += err == -ENOBUFS;
            if (err == 0 && pushed % 3 != 0)
                continue;
            int left = outbox_flush(&box, dialled, 1);

            assert_true(left == 0 || left == -EAGAIN);
            while (taken + box.n_messages < pushed) {
                assert_int_equal(take_number(bound), taken * taken);
                taken++;
            }
        }
        if (cap < 60)
            assert_true(n_full > 0);
    }
    wire_close(dialled);
    wire_close(bound);
}

static void test_outbox_tells_a_slow_peer(void **state)
{
    enum { CAP = 1 << 16 };
    static unsigned char memory[CAP];
    static uint32_t ids[4096];
    int bound = wire_pair_bind(url), dialled = wire_pair_dial(url);
    struct message m = {.type = MESSAGE_SUBMIT, .submit.tokens = {.data = ids, .n = 4096}};
    struct outbox box;
    uint32_t n_pushed = 0, n_taken = 0;
    void *bytes;

    (void)state;
    outbox_init(&box, memory, sizeof memory);
    assert_true(wait_connections(dialled, 1));
    while (outbox_push(&box, &m, NULL) == 0) {
        n_pushed++;
        outbox_flush(&box, dialled, 1000 + n_pushed);
        clock_sleep_ns(NS_PER_MS / 5);
    }
    printf("the kernel and nanomsg hold %u KiB for a peer that does not read\n",
           (n_pushed - box.n_messages) * 4);
    assert_true(outbox_stuck_ns(&box, 1000000000) > 0);
    assert_int_equal(outbox_push(&box, &m, NULL), -ENOBUFS);
    /* The peer reads again: all of it comes, and the descriptor for sending says when to go on. */
    while (n_taken < n_pushed) {
        struct pollfd fds[2] = {{.fd = wire_poll_fd(bound), .events = POLLIN},
                                {.fd = wire_poll_send_fd(dialled), .events = POLLIN}};

        if (box.n_messages == 0)
            fds[1].fd = -1;
        assert_true(poll(fds, 2, 10000) > 0);
        if (fds[1].revents != 0)
            outbox_flush(&box, dialled, 2000);
        while (wire_recv(bound, &bytes) > 0) {
            wire_release(bytes);
            n_taken++;
        }
    }
    assert_int_equal(outbox_stuck_ns(&box, 3000), 0);
    wire_close(dialled);
    wire_close(bound);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(url, sizeof url, "ipc://%s/s.sock", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_socket_file_is_private),
        cmocka_unit_test(test_stale_socket_is_replaced),
        cmocka_unit_test(test_connections_tell_a_gone_peer),
        cmocka_unit_test(test_largest_message),
        cmocka_unit_test(test_outbox_keeps_order),
        cmocka_unit_test(test_outbox_tells_a_slow_peer),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
