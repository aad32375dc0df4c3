#include "router/poller.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/invariant.h"

int poller_init(struct poller *p)
{
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return p->epoll_fd < 0 ? -errno : 0;
}

void poller_fini(struct poller *p)
{
    if (p->epoll_fd >= 0)
        close(p->epoll_fd);
    p->epoll_fd = -1;
}

static uint64_t key_pack(struct poll_key key)
{
    invariant(key.index < 1u << 24);
    return (uint64_t)key.kind << 56 | (uint64_t)key.index << 32 | key.generation;
}

static struct poll_key key_unpack(uint64_t packed)
{
    return (struct poll_key){.kind = (enum poll_kind)(packed >> 56),
                             .index = (uint32_t)(packed >> 32) & 0xffffffu,
                             .generation = (uint32_t)packed};
}

int poller_add(struct poller *p, int fd, struct poll_key key)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = key_pack(key)};

    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void poller_remove(struct poller *p, int fd)
{
    epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int poller_wait(struct poller *p, int timeout_ms, struct poll_key keys[POLLER_EVENTS_MAX])
{
    struct epoll_event events[POLLER_EVENTS_MAX];
    int n = epoll_wait(p->epoll_fd, events, POLLER_EVENTS_MAX, timeout_ms);

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++)
        keys[i] = key_unpack(events[i].data.u64);
    return n;
}
