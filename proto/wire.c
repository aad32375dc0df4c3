#include "proto/wire.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/reqrep.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/process.h"

#define IPC "ipc://"
#define TCP "tcp://"

enum {
    RECONNECT_MS = 20, /* a router that starts later than its client is found this soon */
    RECONNECT_MAX_MS = 100,
    REQ_RESEND_MS = 600000, /* the client asks again itself, on its own clock */
};

/* ---- Addresses ------------------------------------------------------------------------------- */

int wire_run_dir(const char *configured, char *out, size_t cap)
{
    return process_run_base(configured, out, cap);
}

int wire_url(char out[WIRE_URL_BYTES], const char *run_dir, const char *group, const char *name)
{
    int n = snprintf(out, WIRE_URL_BYTES, IPC "%s/%s/%s", run_dir, group, name);

    return n < 0 || n >= WIRE_URL_BYTES ? -ENAMETOOLONG : 0;
}

int wire_url_router(char out[WIRE_URL_BYTES], const char *run_dir, const char *group)
{
    return wire_url(out, run_dir, group, "router.sock");
}

int wire_url_check(const char *url)
{
    if (strncmp(url, IPC, strlen(IPC)) == 0) {
        size_t n = strlen(url + strlen(IPC));

        if (n == 0)
            return -EINVAL;
        return n <= WIRE_PATH_BYTES_MAX ? 0 : -ENAMETOOLONG;
    }
    if (strncmp(url, TCP, strlen(TCP)) == 0 && url[strlen(TCP)] != '\0')
        return strlen(url) < WIRE_URL_BYTES ? 0 : -ENAMETOOLONG;
    return -EINVAL;
}

bool wire_is_listening(const char *url)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strncmp(url, IPC, strlen(IPC)) != 0 || wire_url_check(url) != 0)
        return true;
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (sock < 0)
        return true;
    /* Checked: the path is shorter than sun_path. */
    memcpy(address.sun_path, url + strlen(IPC), strlen(url) - strlen(IPC) + 1);
    bool refused = connect(sock, (struct sockaddr *)&address, sizeof address) != 0 &&
                   (errno == ECONNREFUSED || errno == ENOENT);

    close(sock);
    return !refused;
}

/* ---- Sockets --------------------------------------------------------------------------------- */

static int set_int(int sock, int level, int option, int value)
{
    return nn_setsockopt(sock, level, option, &value, sizeof value) == 0 ? 0 : -nn_errno();
}

static int socket_open(int protocol)
{
    int sock = nn_socket(AF_SP, protocol);

    if (sock < 0)
        return -nn_errno();
    int err = set_int(sock, NN_SOL_SOCKET, NN_RCVMAXSIZE, MESSAGE_BYTES_MAX);

    if (err == 0)
        err = set_int(sock, NN_SOL_SOCKET, NN_RECONNECT_IVL, RECONNECT_MS);
    if (err == 0)
        err = set_int(sock, NN_SOL_SOCKET, NN_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    if (err == 0 && protocol == NN_REQ)
        err = set_int(sock, NN_REQ, NN_REQ_RESEND_IVL, REQ_RESEND_MS);
    if (err == 0)
        return sock;
    nn_close(sock);
    return err;
}

static int socket_bind(int protocol, const char *url)
{
    int err = wire_url_check(url);
    int sock = err == 0 ? socket_open(protocol) : err;

    if (sock < 0)
        return sock;
    mode_t before = umask(0177);
    int endpoint = nn_bind(sock, url);

    err = endpoint < 0 ? -nn_errno() : 0;
    umask(before);
    if (err == 0)
        return sock;
    nn_close(sock);
    return err;
}

static int socket_dial(int protocol, const char *url)
{
    int err = wire_url_check(url);
    int sock = err == 0 ? socket_open(protocol) : err;

    if (sock < 0)
        return sock;
    if (nn_connect(sock, url) >= 0)
        return sock;
    err = -nn_errno();
    nn_close(sock);
    return err;
}

int wire_pair_bind(const char *url)
{
    return socket_bind(NN_PAIR, url);
}

int wire_rep_bind(const char *url)
{
    return socket_bind(NN_REP, url);
}

int wire_pair_dial(const char *url)
{
    return socket_dial(NN_PAIR, url);
}

int wire_req_dial(const char *url)
{
    return socket_dial(NN_REQ, url);
}

void wire_close(int sock)
{
    /* nn_close may be interrupted by a signal, and must then be called again. */
    while (sock >= 0 && nn_close(sock) != 0 && nn_errno() == EINTR)
        continue;
}

int wire_send(int sock, const void *data, size_t n)
{
    return nn_send(sock, data, n, NN_DONTWAIT) >= 0 ? 0 : -nn_errno();
}

ssize_t wire_recv(int sock, void **message)
{
    int n = nn_recv(sock, message, NN_MSG, NN_DONTWAIT);

    return n >= 0 ? n : -nn_errno();
}

void wire_release(void *message)
{
    nn_freemsg(message);
}

static int get_fd(int sock, int option)
{
    int fd = -1;
    size_t bytes = sizeof fd;

    return nn_getsockopt(sock, NN_SOL_SOCKET, option, &fd, &bytes) == 0 ? fd : -nn_errno();
}

int wire_poll_fd(int sock)
{
    return get_fd(sock, NN_RCVFD);
}

int wire_poll_send_fd(int sock)
{
    return get_fd(sock, NN_SNDFD);
}

int wire_connections(int sock)
{
    uint64_t n = nn_get_statistic(sock, NN_STAT_CURRENT_CONNECTIONS);

    return n == UINT64_MAX ? -nn_errno() : (int)n;
}
