#include "common/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/config.h"
#include "common/base/log.h"

/* Signal handlers have no argument: these are what they must reach. */
static _Atomic int stop_requested;
static _Atomic int reload_requested;
static _Atomic int stop_fd = -1;

int process_die_with_parent(pid_t expected_parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return -errno;
    /* It may have ended before the call above: then no signal will ever come. */
    return getppid() == expected_parent ? 0 : -ESRCH;
}

int process_follow_supervisor(void)
{
    const char *pid = getenv("OMNI_PARENT_PID");

    return pid == NULL ? 0 : process_die_with_parent((pid_t)strtol(pid, NULL, 10));
}

int process_start_ticks(pid_t pid, uint64_t *ticks)
{
    char path[32], text[1024];
    const char *p;
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    /* Field 2, the name, may hold blanks and parentheses: count from its last ')'. */
    p = strrchr(text, ')');
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p == NULL || p[1] < '0' || p[1] > '9')
        return -EPROTO;
    *ticks = strtoull(p + 1, NULL, 10);
    return 0;
}

static void wake_poller(void)
{
    uint64_t one = 1;
    int fd = atomic_load_explicit(&stop_fd, memory_order_relaxed);

    if (fd >= 0) {
        ssize_t ignored = write(fd, &one, sizeof one);
        (void)ignored;
    }
}

void process_request_stop(void)
{
    atomic_store_explicit(&stop_requested, 1, memory_order_relaxed);
    wake_poller();
}

static void on_reload_signal(int signal_number)
{
    int saved = errno;

    (void)signal_number;
    atomic_store_explicit(&reload_requested, 1, memory_order_relaxed);
    wake_poller();
    errno = saved;
}

static void on_stop_signal(int signal_number)
{
    int saved = errno;

    (void)signal_number;
    process_request_stop();
    errno = saved;
}

int process_catch_stop(int *fd)
{
    static const int signals[] = {SIGTERM, SIGINT};
    struct sigaction stop = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
    struct sigaction reload = {.sa_handler = on_reload_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (*fd < 0)
        return -errno;
    atomic_store_explicit(&stop_fd, *fd, memory_order_relaxed);
    sigemptyset(&stop.sa_mask);
    sigemptyset(&reload.sa_mask);
    sigemptyset(&ignore.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (sigaction(signals[i], &stop, NULL) != 0)
            return -errno;
    }
    if (sigaction(SIGHUP, &reload, NULL) != 0)
        return -errno;
    return sigaction(SIGPIPE, &ignore, NULL) == 0 ? 0 : -errno;
}

bool process_take_reload(int fd)
{
    uint64_t n;

    if (atomic_exchange_explicit(&reload_requested, 0, memory_order_relaxed) == 0)
        return false;
    if (!process_stop_requested()) {
        ssize_t ignored = read(fd, &n, sizeof n);
        (void)ignored;
    }
    /* A stop that came in between must not be slept through. */
    if (process_stop_requested())
        wake_poller();
    return true;
}

/* An address that begins with '@' is in the abstract name space. */
static int notify_address(const char *path, struct sockaddr_un *to, socklen_t *n)
{
    size_t len = strlen(path);

    if ((path[0] != '/' && path[0] != '@') || len >= sizeof to->sun_path)
        return -EINVAL;
    *to = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(to->sun_path, path, len);
    if (path[0] == '@')
        to->sun_path[0] = '\0';
    *n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    return 0;
}

int process_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to;
    socklen_t n;

    if (path == NULL || path[0] == '\0')
        return 0;
    int rc = notify_address(path, &to, &n);
    int fd = rc == 0 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;

    if (rc != 0)
        return rc;
    if (fd < 0)
        return -errno;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, n) < 0)
        rc = -errno;
    close(fd);
    return rc;
}

bool process_stop_requested(void)
{
    return atomic_load_explicit(&stop_requested, memory_order_relaxed) != 0;
}

void process_private_files(void)
{
    umask(0177);
}

uint64_t process_raise_files(uint64_t n)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    if (limit.rlim_cur < n) {
        limit.rlim_cur = n < limit.rlim_max ? n : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur;
}

int process_make_dir(const char *dir)
{
    if (mkdir(dir, 0700) != 0)
        return errno == EEXIST ? 0 : -errno;
    /* Under our umask, 0177, mkdir makes a directory that cannot be entered. */
    return chmod(dir, 0700) == 0 ? 0 : -errno;
}

int process_private_dir(const char *dir, struct error *err)
{
    struct stat st;
    int rc = process_make_dir(dir);

    if (rc != 0)
        return error_set(err, rc, "mkdir %s: %s", dir, strerror(-rc));
    if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "%s is not a directory", dir);
    if (st.st_uid != geteuid())
        return error_set(err, -EPERM, "%s: expected owner uid %u, found %u", dir,
                         (unsigned)geteuid(), (unsigned)st.st_uid);
    if ((st.st_mode & 077) != 0)
        return error_set(err, -EPERM, "%s: expected mode 0700, found %04o: chmod it", dir,
                         (unsigned)(st.st_mode & 07777));
    return 0;
}

int process_run_base(const char *run_dir, char *out, size_t out_size)
{
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    int n;

    if (run_dir != NULL && run_dir[0] != '\0')
        n = snprintf(out, out_size, "%s", run_dir);
    else if (xdg != NULL && xdg[0] == '/' && access(xdg, W_OK | X_OK) == 0)
        n = snprintf(out, out_size, "%s/omni", xdg);
    else
        n = snprintf(out, out_size, "/tmp/omni-%u", (unsigned)geteuid());
    return n < 0 || (size_t)n >= out_size ? -ENAMETOOLONG : 0;
}

int process_run_dir(const char *run_dir, const char *group, char *out, size_t out_size,
                    struct error *err)
{
    char base[128];
    int n, rc = process_run_base(run_dir, base, sizeof base);

    if (rc != 0)
        return error_set(err, rc, "run.dir is too long");
    n = snprintf(out, out_size, "%s/%s", base, group);
    if (n < 0 || (size_t)n >= out_size)
        return error_set(err, -ENAMETOOLONG, "%s/%s: path too long", base, group);
    /* A base that the configuration names may be shared (/run/omni); the group's never is. */
    if (run_dir == NULL || run_dir[0] == '\0')
        rc = process_private_dir(base, err);
    else if ((rc = process_make_dir(base)) != 0)
        rc = error_set(err, rc, "mkdir %s: %s", base, strerror(-rc));
    return rc != 0 ? rc : process_private_dir(out, err);
}

int process_ipc_address(const char *dir, const char *name, char *out, size_t out_size,
                        struct error *err)
{
    size_t path_len = strlen(dir) + 1 + strlen(name);
    int n;

    if (path_len > PROCESS_IPC_PATH_MAX)
        return error_set(
            err, -ENAMETOOLONG,
            "%s/%s: a socket path may have %d characters, this one has %zu: set run.dir "
            "to a shorter directory",
            dir, name, PROCESS_IPC_PATH_MAX, path_len);
    n = snprintf(out, out_size, "ipc://%s/%s", dir, name);
    return n < 0 || (size_t)n >= out_size ? error_set(err, -ENAMETOOLONG, "ipc address") : 0;
}

static int lock_is_held(int fd, const char *path, struct error *err)
{
    char holder[32] = "";
    ssize_t n = pread(fd, holder, sizeof holder - 1, 0);

    holder[n > 0 ? n : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return error_set(err, -EBUSY, "%s is held by pid %s: it runs already", path,
                     holder[0] != '\0' ? holder : "?");
}

int process_lock(const char *dir, const char *name, struct error *err)
{
    char path[256], pid[32];
    int fd, rc, n = snprintf(path, sizeof path, "%s/%s.lock", dir, name);

    if (n < 0 || (size_t)n >= sizeof path)
        return error_set(err, -ENAMETOOLONG, "%s/%s.lock: path too long", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(err, -errno, "open %s failed", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        rc = lock_is_held(fd, path, err);
        close(fd);
        return rc;
    }
    n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        rc = error_set(err, -EIO, "write %s failed", path);
        close(fd);
        return rc;
    }
    return fd;
}

int process_begin(int *fd, struct error *err)
{
    process_private_files();
    int rc = process_catch_stop(fd);
    if (rc != 0)
        return error_set(err, rc, "cannot catch signals");
    rc = process_follow_supervisor();
    return rc == 0 ? 0 : error_set(err, rc, "the supervisor has ended");
}

int process_reload(struct omni_config *c, const struct config_program *program,
                   const char *const *reloadable, int argc, char **argv)
{
    int n_changed;

    process_notify("RELOADING=1");
    n_changed = config_reload(c, program, reloadable, argc, argv);
    if (n_changed >= 0)
        log_set_level((enum log_level)c->log_level);
    return n_changed;
}
