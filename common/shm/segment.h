/* segment.h - named files of shared memory that outlive the processes which map them.
 *
 * DESIGN.  A segment is created under a temporary name, mapped, bound to its NUMA node, allocated
 * (memory that is touched but cannot be allocated is a SIGBUS), filled, marked READY, and only then
 * renamed: whoever finds the name finds a complete segment, whenever its creator was killed.  A
 * rename over an existing name replaces it; processes that still map the old file see that through
 * segment_is_current and attach anew.
 * Every process holds a shared flock on each file it maps, for as long as it lives; cleaning up
 * unlinks what it can lock exclusively and nothing else.  Attach trusts nothing: owner, size,
 * magic, kind, version, geometry and state are compared, and a mismatch is refused with both
 * values. Any process of the same uid; a struct segment belongs to one thread. */
#ifndef OMNI_COMMON_SHM_SEGMENT_H
#define OMNI_COMMON_SHM_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/error.h"
#include "common/shm/layout.h"

enum { SEGMENT_PATH_MAX = 256, SEGMENT_ANY_NODE = -1 };

/* Byte ranges that open-file-description locks are taken on: one owner per role. */
enum segment_role { SEGMENT_ROLE_ENGINE = 0, SEGMENT_ROLE_WORKER = 1 };

struct segment_spec {
    const char *dir;        /* shm.dir/<group>, prepared */
    const char *name;       /* file name, without '/' */
    enum segment_kind kind; /* the rest is what create writes and attach expects */
    uint32_t layout_version;
    uint64_t geometry_hash; /* attach: 0 = any */
    uint64_t bytes;         /* attach: 0 = any */
    int numa_node;          /* create: SEGMENT_ANY_NODE = leave to the kernel */
    bool want_huge;         /* create: ask for huge pages, 2 MiB-aligned mapping */
};

struct segment {
    uint8_t *base; /* NULL = not attached */
    uint64_t bytes;
    int fd;
    bool writable;
    bool published; /* the temporary name is gone */
    int bound_node; /* create: its pages are on this node; SEGMENT_ANY_NODE: not bound (or refused)
                     */
    dev_t dev;
    ino_t ino;
    char path[SEGMENT_PATH_MAX];
    char temp_path[SEGMENT_PATH_MAX];
};
#define SEGMENT_NONE ((struct segment){.fd = -1})

static inline struct segment_header *segment_header(const struct segment *s)
{
    return (struct segment_header *)(void *)s->base;
}

/* Makes the directory (and its parent) with mode 0700, or checks that an existing one is a
 * directory of ours that nobody else can enter.  0, -EPERM, -ENOTDIR or another -errno. */
int segment_dir_prepare(const char *dir, struct error *err);

/* Creates the segment unpublished: mapped read-write, zeroed, allocated, header filled, state
 * BUILDING.  The caller fills the payload and publishes.  -ENOSPC names needed, free and the
 * remedy.  On failure nothing is left, neither file nor mapping. */
int segment_create(struct segment *s, const struct segment_spec *spec, struct error *err);

/* State READY, then rename onto the name: the segment exists from here on, and replaces what was
 * there; segment_publish_first replaces nothing: -EEXIST.  On failure the segment stays
 * unpublished; detach removes it. */
int segment_publish(struct segment *s, struct error *err);
int segment_publish_first(struct segment *s, struct error *err);

/* -ENOENT: no such segment (yet); -EPERM: not ours; -ESTALE: another layout, geometry or size, or
 * damaged (the text says which, expected and found); -EAGAIN: being cleaned up or built, try later.
 */
int segment_attach(struct segment *s, const struct segment_spec *expect, bool writable,
                   struct error *err);

/* Unmaps and unlocks; an unpublished segment is removed.  Safe on SEGMENT_NONE, and twice. */
void segment_detach(struct segment *s);

/* For an engine whose take-over of spec ended with `why` and the text `found`: may it create anew?
 * -ENOENT: yes.  -ESTALE, -EAGAIN: yes; the old name is removed, so that its memory is freed when
 * the last process lets go (two copies may not fit), and `found` is kept in *replaced, to be
 * logged. Returns 0, or `why` (then *err = *found) or another -errno. */
int segment_make_room(const struct segment_spec *spec, int why, const struct error *found,
                      struct error *replaced, struct error *err);

/* Removes a file that segment_attach found not to fit, if it is ours and nobody holds that role on
 * it (whatever the layout, the role's byte is the same).  0: gone, or another file has the name by
 * now; -EBUSY: held; -EPERM: not ours; or another -errno. */
int segment_retire(const char *dir, const char *name, enum segment_role role);

/* Does the name still lead to the file that is mapped?  One stat(2). */
bool segment_is_current(const struct segment *s);

/* One owner per role and segment, for the life of s or until unlock.  0, or -EBUSY if another open
 * file holds it.  segment_role_held never takes it: true = some other open file holds it. */
int segment_role_lock(const struct segment *s, enum segment_role role);
void segment_role_unlock(const struct segment *s, enum segment_role role);
bool segment_role_held(const struct segment *s, enum segment_role role);

/* Unlinks every segment (and half-made temporary) in dir that no process maps, then the directory
 * itself if it is empty.  Counts what it removed and what it had to leave; a missing directory is
 * success.  Files that are not ours are left and counted. */
int segment_unlink_stale(const char *dir, uint32_t *n_removed, uint32_t *n_busy, struct error *err);

/* Bytes of the segment that are really huge pages, touched or not (reads a byte of each, and
 * /proc/self/smaps: slow). */
uint64_t segment_huge_bytes(const struct segment *s);

/* NUMA node that holds the page at offset off, or -errno (pages never touched: -ENOENT). */
int segment_page_node(const struct segment *s, uint64_t off);

/* Default directory of a group: /dev/shm/omni-<uid>/<group> if shm_dir is "", else
 * <shm_dir>/<group>.  0 or -ENAMETOOLONG. */
int segment_dir_resolve(const char *shm_dir, const char *group, char *out, size_t out_size);

#endif
