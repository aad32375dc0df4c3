/* process.h - what every program of the group does about being a process.
 *
 * Dying with its parent, telling its own start time, a flag that signals set, private files, the
 * run directory.  Call from main.c, before threads are started unless noted. */
#ifndef OMNI_COMMON_BASE_PROCESS_H
#define OMNI_COMMON_BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/error.h"

/* The kernel kills this process when its parent (the supervisor) ends, however that happens, so
 * that nothing is left behind.  expected_parent: getppid() as first thing in main; -ESRCH if the
 * parent has ended meanwhile (the caller exits). */
int process_die_with_parent(pid_t expected_parent);

/* What the programs of a group call: as above if OMNI_PARENT_PID names the parent (the supervisor
 * sets it); a program started by hand in a shell survives the shell. */
int process_follow_supervisor(void);

/* Start time of a process in clock ticks since boot (/proc/<pid>/stat, field 22): with the pid it
 * names a process for ever.  0 or -errno (-ESRCH: no such process). */
int process_start_ticks(pid_t pid, uint64_t *ticks);

/* SIGTERM and SIGINT set the stop flag, SIGHUP the reload flag, and all make the descriptor
 * readable; SIGPIPE is ignored.  All threads started later inherit it.  The descriptor may be polled
 * by one thread. */
int process_catch_stop(int *fd);
bool process_stop_requested(void);
/* True once for each SIGHUP (or several in a row); empties the descriptor, unless a stop was
 * requested. */
bool process_take_reload(int fd);
/* As if a stop signal had come; async-signal-safe, any thread. */
void process_request_stop(void);

/* Tells the service manager that started us (systemd, Type=notify) how we are: one datagram to the
 * socket that $NOTIFY_SOCKET names, such as "READY=1" or "STOPPING=1".  No library: the protocol is
 * this sentence.  0, also without a manager; -errno. */
int process_notify(const char *state);

struct omni_config;
struct config_program;

/* At SIGHUP: says RELOADING=1, does config_reload, and logs at the level that holds now.  The caller
 * says READY=1 when it has taken up the rest.  As config_reload. */
int process_reload(struct omni_config *c, const struct config_program *program,
                   const char *const *reloadable, int argc, char **argv);

/* umask 0177: files, sockets and segments are for this uid alone. */
void process_private_files(void);

/* Raises the limit of open files to at least n if the hard limit allows; the limit in force. */
uint64_t process_raise_files(uint64_t n);

/* The directory of all groups' run directories: run_dir, and where it is NULL or "", the default:
 * $XDG_RUNTIME_DIR/omni where that directory is there and ours to write, else /tmp/omni-<uid> (of
 * a user who is not logged in the variable may name what does not exist).  Everything that looks
 * for a group asks here.  Nothing is made.  0 or -ENAMETOOLONG. */
int process_run_base(const char *run_dir, char *out, size_t out_size);

/* <run base>/<group>.  Made with mode
 * 0700; one that belongs to somebody else or that others can enter is refused. */
int process_run_dir(const char *run_dir, const char *group, char *out, size_t out_size,
                    struct error *err);

enum { PROCESS_IPC_PATH_MAX = 107 }; /* sun_path less its NUL: nanomsg aborts beyond */

/* "ipc://<dir>/<name>"; -ENAMETOOLONG (with the remedy) if the path is longer than the kernel
 * takes. */
int process_ipc_address(const char *dir, const char *name, char *out, size_t out_size,
                        struct error *err);

/* One process per (dir, name): takes <dir>/<name>.lock for life.  The descriptor, or -EBUSY with
 * the holder's pid in the text, or -errno. */
int process_lock(const char *dir, const char *name, struct error *err);

/* Makes dir with mode 0700 whatever the umask; one that exists is left alone.  0 or -errno. */
int process_make_dir(const char *dir);

/* Makes dir (one level) with mode 0700 or checks that it is ours alone; symbolic links are refused.
 */
int process_private_dir(const char *dir, struct error *err);

/* What every program of the group does first, once its configuration is read: files are private,
 * signals set the stop flag (process_catch_stop), the supervisor is followed.  0 or -errno. */
int process_begin(int *fd, struct error *err);

#endif
