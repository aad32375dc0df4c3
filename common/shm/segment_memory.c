#include "common/shm/segment_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/base/round.h"
#include "common/shm/memory_room.h"

#define MIB (1024.0 * 1024.0)

/* Reserves address space first, so that a large segment starts on a huge-page boundary. */
static void *map_aligned(int fd, uint64_t bytes, int prot, uint64_t align)
{
    uint8_t *reserved, *base;
    void *mapped;

    if (align <= SHM_PAGE)
        return mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);
    reserved =
        mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED)
        return MAP_FAILED;
    base = (uint8_t *)(uintptr_t)round_up((uintptr_t)reserved, align);
    if (base > reserved)
        munmap(reserved, (size_t)(base - reserved));
    munmap(base + bytes, (size_t)(reserved + align - base));
    mapped = mmap(base, bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED) {
        int code = errno;
        munmap(base, bytes); /* the reservation */
        errno = code;
    }
    return mapped;
}

int segment_memory_map(struct segment *s, struct error *err)
{
    int prot = PROT_READ | (s->writable ? PROT_WRITE : 0);
    uint64_t align = s->bytes >= SHM_HUGE_PAGE ? SHM_HUGE_PAGE : SHM_PAGE;
    void *base = map_aligned(s->fd, s->bytes, prot, align);

    if (base == MAP_FAILED) {
        int code = errno;
        return error_set(err, -code, "%s: mmap of %" PRIu64 " bytes: %s", s->path, s->bytes,
                         strerror(code));
    }
    s->base = base;
    return 0;
}

static int no_space(const struct segment *s, struct memory_room room, struct error *err)
{
    const char *where = room.is_a_group ? " in this memory control group" : "";
    const char *remedy = room.is_a_group
                             ? "raise its limit (memory.max, docker run --memory=...)"
                             : "enlarge that filesystem (mount -o remount,size=..., docker run "
                               "--shm-size=...), let shm.dir name a larger tmpfs or hugetlbfs";

    return error_set(err, -ENOSPC,
                     "%s: needs %.1f MiB, free are %.1f MiB%s: %s, or lower worker.arena_mb / "
                     "worker.slots",
                     s->path, (double)s->bytes / MIB, (double)room.bytes / MIB, where, remedy);
}

/* What the file system has; of a tmpfs, no more than the kernel could hand out now. */
static struct memory_room room_on(const struct statfs *fs)
{
    struct memory_room room = {.bytes = (uint64_t)fs->f_bavail * (uint64_t)fs->f_bsize};

    if (fs->f_type != TMPFS_MAGIC)
        return room;
    struct memory_room memory = memory_room_now("/proc", "/sys/fs/cgroup");
    return memory.bytes < room.bytes ? memory : room;
}

/* Allocates every page now: later, a page that cannot be had is a SIGBUS. */
static int allocate(const struct segment *s, const struct statfs *fs, struct error *err)
{
    struct memory_room room = room_on(fs);
    int code;

    if (s->bytes > room.bytes)
        return no_space(s, room, err);
    do
        code = posix_fallocate(s->fd, 0, (off_t)s->bytes);
    while (code == EINTR);
    if (code == ENOSPC || code == ENOMEM)
        return no_space(s, room, err);
    if (code != 0)
        return error_set(err, -code, "%s: allocate %.1f MiB: %s", s->path, (double)s->bytes / MIB,
                         strerror(code));
    return 0;
}

/* The policy belongs to the shared object and must precede the first page.  A container may forbid
 * it (EPERM), a kernel may lack it (ENOSYS): the segment is then merely not bound. */
static bool bind_node(const struct segment *s, int node)
{
    unsigned long mask[16] = {0};
    const unsigned bits = 8 * sizeof mask[0];

    if (node < 0 || (unsigned)node >= bits * 16)
        return false;
    mask[(unsigned)node / bits] = 1UL << ((unsigned)node % bits);
    return syscall(SYS_mbind, s->base, s->bytes, MPOL_BIND, mask, 16UL * bits, 0) == 0;
}

int segment_page_node(const struct segment *s, uint64_t off)
{
    int node = -1;

    if (off >= s->bytes)
        return -EINVAL;
    if (syscall(SYS_get_mempolicy, &node, NULL, 0UL, s->base + off, MPOL_F_NODE | MPOL_F_ADDR) != 0)
        return -errno;
    return node;
}

int segment_memory_create(struct segment *s, const struct segment_spec *spec, struct error *err)
{
    struct statfs fs;
    bool bound;
    int rc;

    if (fstatfs(s->fd, &fs) != 0)
        return error_set(err, -errno, "%s: statfs failed", s->path);
    s->bytes =
        round_up(spec->bytes, fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : SHM_PAGE);
    if (s->bytes < spec->bytes || s->bytes > INT64_MAX)
        return error_set(err, -EOVERFLOW, "%s: size overflows", s->path);
    if (ftruncate(s->fd, (off_t)s->bytes) != 0) {
        int code = errno;
        return error_set(err, -code, "%s: size %.1f MiB: %s", s->path, (double)s->bytes / MIB,
                         strerror(code));
    }
    rc = segment_memory_map(s, err);
    if (rc != 0)
        return rc;
    if (spec->want_huge) /* has an effect where shmem_enabled is "advise"; a refusal is no error */
        (void)madvise(s->base, s->bytes, MADV_HUGEPAGE);
    bound = bind_node(s, spec->numa_node);
    rc = allocate(s, &fs, err);
    if (rc != 0)
        return rc;
    /* Believe the pages, not the call. */
    if (bound && segment_page_node(s, 0) == spec->numa_node &&
        segment_page_node(s, s->bytes - 1) == spec->numa_node)
        s->bound_node = spec->numa_node;
    return 0;
}

/* ---- huge pages ------------------------------------------------------------------------------ */

static uint64_t huge_kib(const char *line)
{
    static const char *const fields[] = {
        "ShmemPmdMapped:", "FilePmdMapped:", "Shared_Hugetlb:", "Private_Hugetlb:"};

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        size_t n = strlen(fields[i]);
        if (strncmp(line, fields[i], n) == 0)
            return strtoull(line + n, NULL, 10);
    }
    return 0;
}

/* "55d0c0000000-55d0c0200000 rw-p ...": the head of a mapping. */
static bool parse_mapping(const char *line, uint64_t *start, uint64_t *end)
{
    char *dash, *blank;

    *start = strtoull(line, &dash, 16);
    if (dash == line || *dash != '-')
        return false;
    *end = strtoull(dash + 1, &blank, 16);
    return *blank == ' ';
}

/* smaps tells of what this process has mapped, and what was allocated has not been touched here. */
static void touch_each_huge_page(const struct segment *s)
{
    for (uint64_t off = 0; off < s->bytes; off += SHM_HUGE_PAGE)
        (void)*(const volatile uint8_t *)(s->base + off);
}

uint64_t segment_huge_bytes(const struct segment *s)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    uint64_t start, end, kib = 0;
    bool inside = false;

    if (f == NULL || s->base == NULL) {
        if (f != NULL)
            fclose(f);
        return 0;
    }
    touch_each_huge_page(s);
    while (fgets(line, sizeof line, f) != NULL) {
        if (parse_mapping(line, &start, &end))
            inside = start >= (uintptr_t)s->base && end <= (uintptr_t)s->base + s->bytes;
        else if (inside)
            kib += huge_kib(line);
    }
    fclose(f);
    return kib * 1024;
}
