#include "common/topology/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/process.h"

/* In shared memory's folder: a service has a /tmp of its own, and run folders differ between one who
 * is logged in and one who is not.  The file stays open: record locks go with the first descriptor of
 * it that the process closes. */
static int open_claims(void)
{
    static int fd = -1;
    char dir[64], path[80];
    struct error err;

    if (fd >= 0)
        return fd;
    (void)snprintf(dir, sizeof dir, "/dev/shm/omni-%u", (unsigned)geteuid());
    int rc = process_private_dir(dir, &err);

    if (rc != 0)
        return rc;
    (void)snprintf(path, sizeof path, "%s/.cpus", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 ? fd : -errno;
}

/* 0: it is ours; 1: somebody else's, *holder; -errno. */
static int claim_cpu(int fd, uint32_t cpu, pid_t *holder)
{
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)cpu, .l_len = 1};

    if (fcntl(fd, F_SETLK, &range) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return -errno;
    *holder = 0;
    if (fcntl(fd, F_GETLK, &range) == 0 && range.l_type != F_UNLCK)
        *holder = range.l_pid;
    return 1;
}

int claim_cpus(const struct cpu_set *cpus, struct cpu_set *taken, pid_t *holder)
{
    int fd = open_claims(), any = 0;

    memset(taken, 0, sizeof *taken);
    if (fd < 0)
        return fd;
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        int rc = cpu_set_has(cpus, cpu) ? claim_cpu(fd, cpu, holder) : 0;

        if (rc < 0)
            return rc;
        if (rc > 0)
            cpu_set_add(taken, cpu);
        any |= rc;
    }
    return any;
}

uint32_t claim_place(struct topology_place *place, const char *keys)
{
    struct cpu_set taken;
    char list[128];
    pid_t holder;

    if (!place->exclusive)
        return 0;
    int rc = claim_cpus(&place->cpus, &taken, &holder);

    if (rc < 0)
        log_info("cores_not_claimed", "reason=\"%s\"", strerror(-rc));
    if (rc <= 0)
        return 0;
    topology_format_cpus(&taken, list, sizeof list);
    log_warn("cores_claimed_by_others", "cpus=%s pid=%d remedy=\"%s, or engine.numa_bind = no\"",
             list, (int)holder, keys);
    place->exclusive = false;
    return cpu_set_count(&taken);
}
