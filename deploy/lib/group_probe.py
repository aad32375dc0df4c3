"""What omni-group asks in Python: is the group ready, and which sockets are stale.

    group_probe.py ready OMNI CONFIG N_ENGINES N_WORKERS   exit 0, or 1 and a line "waiting for ..."
    group_probe.py clean-sockets FOLDER                    exit 0, or 1 when a live one remains
"""

import errno
import json
import os
import socket
import stat
import subprocess
import sys


def status_of(omni, config):
    """The group's own answer, or None while nobody answers."""
    try:
        done = subprocess.run([omni, "status", "--json", "--config", config],
                              capture_output=True, timeout=10, check=False)
        status = json.loads(done.stdout)
        return status if "engines" in status else None
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return None


def missing_parts(status, n_engines, n_workers):
    """Names, as supervisord knows them, of the parts that are not ready.

    A worker counts when every engine that uses it sees it ready (with offload = never none does);
    while an engine is away nobody knows."""
    if status is None:
        return ["router"]
    engines = [one for one in status.get("engines", []) if one.get("state") == "ready"]
    here = {one["index"] for one in engines}
    missing = [f"engine-{i}" for i in range(n_engines) if i not in here]
    if missing:
        return missing
    for i in range(n_workers):
        states = [worker["state"] for one in engines for worker in one["workers"] if worker["index"] == i]
        if any(state != "ready" for state in states):
            missing.append(f"attnd-{i}")
    return missing or ([] if status.get("ready") else ["router"])


def command_ready(omni, config, n_engines, n_workers):
    missing = missing_parts(status_of(omni, config), int(n_engines), int(n_workers))
    if missing:
        print("waiting for " + " ".join(missing))
    return 1 if missing else 0


def is_listening(path):
    """A bound socket whose process died refuses the connection."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1)
    try:
        probe.connect(path)
        return True
    except OSError as error:
        # A full backlog or another socket type means that somebody is there.
        return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    finally:
        probe.close()


def command_clean_sockets(folder):
    live = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                continue
            if is_listening(path):
                print(f"warning: {path} is served by a process that this group did not start",
                      file=sys.stderr)
                live += 1
            else:
                os.unlink(path)
                print(f"removed stale socket {path}", file=sys.stderr)
    return 1 if live else 0


COMMANDS = {"ready": command_ready, "clean-sockets": command_clean_sockets}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
