#include "common/shm/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/invariant.h"
#include "common/base/process.h"
#include "common/shm/segment_memory.h"

#define TEMP_PREFIX ".omni-tmp-"

enum { TEMP_TRIES = 64, ATTACH_TRIES = 8, DIR_LOCK_TRIES = 1000 };

int segment_dir_resolve(const char *shm_dir, const char *group, char *out, size_t out_size)
{
    int n;

    if (shm_dir == NULL || shm_dir[0] == '\0')
        n = snprintf(out, out_size, "/dev/shm/omni-%u/%s", (unsigned)geteuid(), group);
    else
        n = snprintf(out, out_size, "%s/%s", shm_dir, group);
    return n < 0 || (size_t)n >= out_size ? -ENAMETOOLONG : 0;
}

/* The parent may belong to root (a mount point) or to us: anybody else could swap our directory. */
static int prepare_parent(const char *dir, struct error *err)
{
    char parent[SEGMENT_PATH_MAX];
    const char *slash = strrchr(dir, '/');
    struct stat st;
    int rc;

    if (slash == NULL || slash == dir)
        return 0;
    if ((size_t)(slash - dir) >= sizeof parent)
        return error_set(err, -ENAMETOOLONG, "%s: path too long", dir);
    memcpy(parent, dir, (size_t)(slash - dir));
    parent[slash - dir] = '\0';
    rc = process_make_dir(parent);
    if (rc != 0)
        return error_set(err, rc, "mkdir %s: %s", parent, strerror(-rc));
    if (stat(parent, &st) != 0 || !S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "%s is not a directory", parent);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return error_set(err, -EPERM,
                         "%s belongs to uid %u; expected %u (us) or 0: choose another "
                         "shm.dir",
                         parent, (unsigned)st.st_uid, (unsigned)geteuid());
    return 0;
}

int segment_dir_prepare(const char *dir, struct error *err)
{
    int rc = prepare_parent(dir, err);

    return rc != 0 ? rc : process_private_dir(dir, err);
}

static int set_paths(struct segment *s, const struct segment_spec *spec, struct error *err)
{
    int n = snprintf(s->path, sizeof s->path, "%s/%s", spec->dir, spec->name);

    if (n < 0 || (size_t)n >= sizeof s->path)
        return error_set(err, -ENAMETOOLONG, "%s/%s: path too long", spec->dir, spec->name);
    return 0;
}

/* A shared lock on a file that still has a name; -EAGAIN if a clean-up got there first. */
static int lock_shared(int fd)
{
    struct stat st;

    if (flock(fd, LOCK_SH | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    if (fstat(fd, &st) != 0)
        return -errno;
    return st.st_nlink == 0 ? -EAGAIN : 0;
}

static int open_temp(struct segment *s, const struct segment_spec *spec, struct error *err)
{
    int code = EEXIST;

    for (int i = 0; i < TEMP_TRIES; i++) {
        int n = snprintf(s->temp_path, sizeof s->temp_path, "%s/" TEMP_PREFIX "%s-%d-%d", spec->dir,
                         spec->name, (int)getpid(), i);
        if (n < 0 || (size_t)n >= sizeof s->temp_path)
            return error_set(err, -ENAMETOOLONG, "%s: path too long", spec->dir);
        s->fd = open(s->temp_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (s->fd >= 0 && lock_shared(s->fd) == 0)
            return 0;
        code = errno;
        if (s->fd >= 0) /* a clean-up removed it between open and flock: once more */
            close(s->fd);
        else if (code != EEXIST)
            break;
        s->fd = -1;
    }
    s->temp_path[0] = '\0';
    return error_set(err, -code, "create %s/%s: %s", spec->dir, spec->name, strerror(code));
}

static int remember_file(struct segment *s)
{
    struct stat st;

    if (fstat(s->fd, &st) != 0)
        return -errno;
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    return 0;
}

static void fill_header(struct segment *s, const struct segment_spec *spec)
{
    struct segment_header *h = segment_header(s);

    h->magic = SEGMENT_MAGIC;
    h->kind = (uint32_t)spec->kind;
    h->layout_version = spec->layout_version;
    h->total_bytes = s->bytes;
    h->geometry_hash = spec->geometry_hash;
    h->creator_uid = (uint32_t)geteuid();
    h->creator_pid = (uint32_t)getpid();
    h->created_ns = clock_now_ns();
}

int segment_create(struct segment *s, const struct segment_spec *spec, struct error *err)
{
    int rc;

    invariant(spec->bytes >= sizeof(struct segment_header));
    *s = SEGMENT_NONE;
    s->writable = true;
    s->bound_node = SEGMENT_ANY_NODE;
    rc = set_paths(s, spec, err);
    if (rc != 0)
        return rc;
    rc = open_temp(s, spec, err);
    if (rc != 0)
        goto fail;
    fault_point("segment.created");
    rc = segment_memory_create(s, spec, err);
    if (rc != 0)
        goto fail;
    fault_point("segment.allocated");
    rc = remember_file(s);
    if (rc != 0)
        goto fail;
    fill_header(s, spec);
    fault_point("segment.header");
    return 0;
fail:
    segment_detach(s);
    return rc;
}

/* Publishing holds the directory's lock shared, cleaning up exclusively: else a clean-up could
 * check an old file and then unlink the new one of the same name.  Both hold it for microseconds,
 * so a bounded wait (1 s) is enough; a holder that was stopped is an error.  The descriptor or
 * -errno. */
static int lock_dir(const char *dir, int operation, struct error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        int code = errno;
        return error_set(err, -code, "%s: %s", dir, strerror(code));
    }
    for (int i = 0; i < DIR_LOCK_TRIES; i++) {
        if (flock(fd, operation | LOCK_NB) == 0)
            return fd;
        clock_sleep_ns(NS_PER_MS);
    }
    close(fd);
    return error_set(err, -EBUSY, "%s: another process has locked the directory for a second", dir);
}

static int rename_into_place(struct segment *s, unsigned flags, struct error *err)
{
    char dir[SEGMENT_PATH_MAX];
    int fd, code = 0;

    snprintf(dir, sizeof dir, "%s", s->path);
    *strrchr(dir, '/') = '\0';
    fd = lock_dir(dir, LOCK_SH, err);
    if (fd < 0)
        return fd;
    if (renameat2(AT_FDCWD, s->temp_path, AT_FDCWD, s->path, flags) != 0) {
        code = errno;
        error_set(err, -code, "rename %s to %s: %s", s->temp_path, s->path, strerror(code));
    }
    close(fd);
    return -code;
}

static int publish(struct segment *s, unsigned flags, struct error *err)
{
    int rc;

    invariant(s->base != NULL && !s->published);
    /* S1: release, pairs with S2 in check_header: whoever sees READY sees header and payload. */
    atomic_store_explicit(&segment_header(s)->state, SEGMENT_READY, memory_order_release);
    fault_point("segment.ready");
    rc = rename_into_place(s, flags, err);
    if (rc != 0)
        return rc;
    s->published = true;
    fault_point("segment.published");
    return 0;
}

int segment_publish(struct segment *s, struct error *err)
{
    return publish(s, 0, err);
}

int segment_publish_first(struct segment *s, struct error *err)
{
    return publish(s, RENAME_NOREPLACE, err);
}

static int open_and_lock(struct segment *s, bool writable, struct error *err)
{
    int code = EAGAIN;

    for (int i = 0; i < ATTACH_TRIES; i++) {
        s->fd = open(s->path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (s->fd < 0) {
            code = errno;
            break;
        }
        code = -lock_shared(s->fd);
        if (code == 0)
            return 0;
        close(s->fd);
        s->fd = -1;
        if (code != EAGAIN)
            break;
    }
    return error_set(err, -code, "%s: %s", s->path,
                     code == EAGAIN ? "is being cleaned up" : strerror(code));
}

static int check_file(struct segment *s, const struct segment_spec *expect, struct error *err)
{
    struct stat st;

    if (fstat(s->fd, &st) != 0)
        return error_set(err, -errno, "%s: cannot stat", s->path);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return error_set(err, -EPERM, "%s: expected a file of uid %u, found uid %u", s->path,
                         (unsigned)geteuid(), (unsigned)st.st_uid);
    if (st.st_size < (off_t)SHM_PAGE)
        return error_set(err, -ESTALE, "%s: expected at least %d bytes, found %lld", s->path,
                         SHM_PAGE, (long long)st.st_size);
    if (expect->bytes != 0 && (uint64_t)st.st_size < expect->bytes)
        return error_set(err, -ESTALE, "%s: expected %" PRIu64 " bytes, found %lld", s->path,
                         expect->bytes, (long long)st.st_size);
    s->bytes = (uint64_t)st.st_size;
    return 0;
}

static int mismatch(const struct segment *s, const char *what, uint64_t expected, uint64_t found,
                    struct error *err)
{
    return error_set(err, -ESTALE,
                     "%s: %s: expected 0x%" PRIx64 ", found 0x%" PRIx64
                     " (another version or configuration made it)",
                     s->path, what, expected, found);
}

static int check_header(const struct segment *s, const struct segment_spec *expect,
                        struct error *err)
{
    const struct segment_header *h = segment_header(s);

    /* S2: acquire, pairs with S1. */
    uint32_t state = atomic_load_explicit(&h->state, memory_order_acquire);

    if (h->magic != SEGMENT_MAGIC)
        return mismatch(s, "magic", SEGMENT_MAGIC, h->magic, err);
    if (h->kind != (uint32_t)expect->kind)
        return mismatch(s, "kind", (uint64_t)expect->kind, h->kind, err);
    if (h->layout_version != expect->layout_version)
        return mismatch(s, "layout version", expect->layout_version, h->layout_version, err);
    if (h->total_bytes != s->bytes)
        return mismatch(s, "total bytes", s->bytes, h->total_bytes, err);
    if (h->creator_uid != (uint32_t)geteuid())
        return error_set(err, -EPERM, "%s: expected creator uid %u, found %u", s->path,
                         (unsigned)geteuid(), h->creator_uid);
    if (expect->geometry_hash != 0 && h->geometry_hash != expect->geometry_hash)
        return mismatch(s, "geometry hash", expect->geometry_hash, h->geometry_hash, err);
    if (state != SEGMENT_READY)
        return error_set(err, -EAGAIN, "%s: state: expected %d (ready), found %u", s->path,
                         SEGMENT_READY, state);
    return 0;
}

int segment_attach(struct segment *s, const struct segment_spec *expect, bool writable,
                   struct error *err)
{
    int rc;

    *s = SEGMENT_NONE;
    s->writable = writable;
    s->bound_node = SEGMENT_ANY_NODE;
    s->published = true;
    rc = set_paths(s, expect, err);
    if (rc == 0)
        rc = open_and_lock(s, writable, err);
    if (rc == 0)
        rc = check_file(s, expect, err);
    if (rc == 0)
        rc = segment_memory_map(s, err);
    if (rc == 0)
        rc = check_header(s, expect, err);
    if (rc == 0)
        rc = remember_file(s);
    fault_point("segment.attached");
    if (rc != 0)
        segment_detach(s);
    return rc;
}

void segment_detach(struct segment *s)
{
    if (s->base != NULL)
        munmap(s->base, s->bytes);
    if (!s->published && s->temp_path[0] != '\0')
        unlink(s->temp_path);
    if (s->fd >= 0)
        close(s->fd); /* flock and role locks go with it */
    s->base = NULL;
    s->fd = -1;
    s->temp_path[0] = '\0';
}

int segment_make_room(const struct segment_spec *spec, int why, const struct error *found,
                      struct error *replaced, struct error *err)
{
    struct segment s = SEGMENT_NONE;

    if (why == -ENOENT)
        return 0;
    if (why != -ESTALE && why != -EAGAIN)
        return error_set(err, why, "%s", found->text);
    *replaced = *found;
    int rc = set_paths(&s, spec, err);
    if (rc == 0 && unlink(s.path) != 0 && errno != ENOENT) {
        int code = errno;
        rc = error_set(err, -code, "%s: cannot be removed: %s", s.path, strerror(code));
    }
    return rc;
}

/* Holds the file's flock shared, so that no clean-up takes the name away (and a successor gets it)
 * between the look and the unlink, and its role, so that nobody takes that one meanwhile. */
static int unlink_unless_held(struct segment *s, enum segment_role role)
{
    struct stat st;
    int rc = lock_shared(s->fd);

    if (rc != 0)
        return rc == -EAGAIN ? 0 : rc; /* a clean-up was first */
    if (fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return -EPERM;
    rc = segment_role_lock(s, role);
    if (rc != 0)
        return rc;
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    if (stat(s->path, &st) != 0 || st.st_dev != s->dev || st.st_ino != s->ino)
        return 0;
    return unlink(s->path) != 0 && errno != ENOENT ? -errno : 0;
}

int segment_retire(const char *dir, const char *name, enum segment_role role)
{
    struct segment s = SEGMENT_NONE;
    int rc, n = snprintf(s.path, sizeof s.path, "%s/%s", dir, name);

    if (n < 0 || (size_t)n >= sizeof s.path)
        return -ENAMETOOLONG;
    s.fd = open(s.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (s.fd < 0)
        return errno == ENOENT ? 0 : -errno;
    rc = unlink_unless_held(&s, role);
    close(s.fd);
    return rc;
}

bool segment_is_current(const struct segment *s)
{
    struct stat st;

    return s->base != NULL && stat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

/* ---- roles ----------------------------------------------------------------------------------- */

static struct flock role_range(enum segment_role role, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)role, .l_len = 1};
}

int segment_role_lock(const struct segment *s, enum segment_role role)
{
    struct flock range = role_range(role, F_WRLCK);

    if (fcntl(s->fd, F_OFD_SETLK, &range) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

void segment_role_unlock(const struct segment *s, enum segment_role role)
{
    struct flock range = role_range(role, F_UNLCK);

    fcntl(s->fd, F_OFD_SETLK, &range);
}

bool segment_role_held(const struct segment *s, enum segment_role role)
{
    struct flock range = role_range(role, F_WRLCK);

    /* An error counts as held: nothing is reclaimed on a doubt. */
    return fcntl(s->fd, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}

/* ---- clean-up -------------------------------------------------------------------------------- */

/* Only what we made may be unlinked, whatever directory the configuration names. */
static bool is_our_segment(int fd, const char *name)
{
    struct stat st;
    uint64_t magic = 0;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return false;
    if (strncmp(name, TEMP_PREFIX, sizeof TEMP_PREFIX - 1) == 0)
        return true;
    return pread(fd, &magic, sizeof magic, 0) == (ssize_t)sizeof magic && magic == SEGMENT_MAGIC;
}

static bool same_file(int fd, int dir_fd, const char *name)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && fstatat(dir_fd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* 1: gone now, 0: left alone. */
static uint32_t unlink_if_stale(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    uint32_t removed = 0;

    if (fd < 0)
        return 0;
    if (is_our_segment(fd, name) && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        same_file(fd, dir_fd, name))
        removed = unlinkat(dir_fd, name, 0) == 0;
    close(fd);
    return removed;
}

/* The default parent, omni-<uid>, is ours to remove too. */
static void remove_empty_dirs(const char *dir)
{
    char own[32], parent[SEGMENT_PATH_MAX];
    char *slash;

    if (rmdir(dir) != 0 || snprintf(parent, sizeof parent, "%s", dir) >= (int)sizeof parent)
        return;
    slash = strrchr(parent, '/');
    if (slash == NULL)
        return;
    *slash = '\0';
    slash = strrchr(parent, '/');
    snprintf(own, sizeof own, "omni-%u", (unsigned)geteuid());
    if (slash != NULL && strcmp(slash + 1, own) == 0)
        rmdir(parent);
}

static void unlink_all_stale(DIR *d, uint32_t *n_removed, uint32_t *n_left)
{
    struct dirent *entry;

    while ((entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        uint32_t removed = unlink_if_stale(dirfd(d), entry->d_name);
        *n_removed += removed;
        *n_left += 1 - removed;
    }
}

int segment_unlink_stale(const char *dir, uint32_t *n_removed, uint32_t *n_left, struct error *err)
{
    int fd;
    DIR *d;

    *n_removed = *n_left = 0;
    if (access(dir, F_OK) != 0 && errno == ENOENT)
        return 0;
    fd = lock_dir(dir, LOCK_EX, err);
    if (fd < 0)
        return fd;
    d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return error_set(err, -ENOMEM, "%s: cannot be read", dir);
    }
    unlink_all_stale(d, n_removed, n_left);
    remove_empty_dirs(dir);
    closedir(d);
    return 0;
}
