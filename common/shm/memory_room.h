/* memory_room.h - how much memory could be had now?
 *
 * A tmpfs may promise more than the machine has, and the machine more than this process' control
 * group may take: who takes more is killed by the kernel, at any later page.  The least of what the
 * machine has available and of what each group above this process has left; pages of files, which the
 * kernel gives back when asked, count as left.  An estimate: others take memory as well.
 * Any thread; at start only, it reads a dozen small files. */
#ifndef OMNI_COMMON_SHM_MEMORY_ROOM_H
#define OMNI_COMMON_SHM_MEMORY_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct memory_room {
    uint64_t bytes;  /* UINT64_MAX where nothing tells */
    bool is_a_group; /* a control group's limit is the least */
};

/* proc, cgroup: "/proc" and "/sys/fs/cgroup", or a test's copies of them. */
struct memory_room memory_room_now(const char *proc, const char *cgroup);

#endif
