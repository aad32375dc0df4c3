"""For end-to-end tests in Python: a group under deploy/omni-group, whose supervisor starts again what dies, and a count of
what it holds and leaves behind.

    with SupervisedGroup(1) as group:
        group.start()
        wait_idle(group)
        before = holdings(group)
        os.kill(group.pids()["engine-0"], signal.SIGKILL)
        ...
        expect_nothing_more(group, before, "a kill")
        expect_nothing(group)               # ends it
"""

import os
import shutil
import subprocess

import omni_shm
from omni_e2e import BIN, PATIENCE, ROOT, Group, group_probe, program, skip, wait_until


class SupervisedGroup(Group):
    """Its programs are found by the mark that they carry; "supervisord" is one of them."""

    def __init__(self, *arguments, **options):
        if shutil.which("supervisord") is None:
            skip("supervisord is not installed")
        super().__init__(*arguments, **options)

    def command(self, *arguments, check=True):
        return subprocess.run([ROOT + "/deploy/omni-group", *arguments, "--config", self.config], check=check,
                              capture_output=True, text=True, env=dict(self.env, OMNI_BIN_DIR=BIN))

    def start(self, seconds=30):
        done = self.command("up", "--timeout", str(seconds * PATIENCE), check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def pids(self):
        """Name -> pid; two processes of one name are an error."""
        found, out = self.processes(), {}
        supervisors = {pid for pid, _, name in found if name == "supervisord"}
        for pid, parent, name in found:
            if name == "supervisord" and parent in supervisors:
                continue  # forked, and about to become a program
            assert name not in out, f"two of {name}: {out[name]} and {pid}"
            out[name] = pid
        return out

    def processes(self):
        """(pid, parent, name) of all that carry our mark."""
        mark, out = f"OMNI_GROUP_MARK={self.run_dir}".encode(), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                environ, words, stat = (read(f"/proc/{pid}/{what}") for what in ("environ", "cmdline", "stat"))
            except OSError:  # gone meanwhile, or somebody else's
                continue
            if mark in environ.split(b"\0") and (name := name_of(words.decode().split("\0"))):
                out.append((int(pid), int(stat.rsplit(b")", 1)[1].split()[1]), name))
        return out

    def is_ready(self, killed, pid):
        """All parts serve, and the one that was killed is another process now."""
        status = group_probe.status_of(program("omni"), self.config)
        if group_probe.missing_parts(status, self.n_engines, self.n_workers):
            return False
        pids = self.pids()
        return (len(pids) == len(self.programs()) + 1 and pids[killed] != pid and
                all(one["pid"] == pids[f"engine-{one['index']}"] for one in status["engines"]))

    def log(self, name, lines=20):
        path = os.path.join(self.run_dir, "log", name + ".log")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return ""

    def stop_all(self):
        done = self.command("down", check=False)
        return [] if done.returncode == 0 else [done.stderr]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def name_of(words):
    """Of a command line, as supervisord calls it; None: a shell between two programs."""
    base = os.path.basename(words[0])
    if any(word.endswith("supervisord") for word in words[:2]):
        return "supervisord"
    index = words[words.index("--index") + 1] if "--index" in words else None
    return {"omni-router": "router", "omni-gpu-engine": f"engine-{index}", "omni-cpu-attnd": f"attnd-{index}"}.get(base)


def files_under(folder, of_kind):
    return sorted(os.path.relpath(os.path.join(where, name), folder) for where, _, names in os.walk(folder)
                  for name in names if of_kind(os.path.join(where, name)))


def is_socket(path):
    return os.path.exists(path) and (os.stat(path).st_mode & 0o170000) == 0o140000


def holdings(group):
    """What the group holds while nobody is connected: descriptors by program, sockets, segments."""
    pids = group.pids()
    assert set(pids) == {"supervisord", *group.programs()}, pids
    return {"descriptors": {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()},
            "sockets": files_under(group.run_dir, is_socket), "segments": files_under(group.shm, os.path.isfile)}


def wait_idle(group):
    """Nothing is in use; the sockets of sessions are closed a moment after they have ended."""
    group.expect_all_free(20)
    wait_until(lambda: omni_shm.stats(group.segments, "router")["sessions"] == 0, 20, "no session is left")
    wait_until(lambda: len(files_under(group.run_dir, is_socket)) == 2 + group.n_engines, 20, "no session's socket is left")


def expect_nothing_more(group, before, what):
    """Descriptors of a client that has just gone are given back at the router's next look."""
    try:
        wait_until(lambda: holdings(group) == before, 10, f"nothing is left behind after {what}")
    except AssertionError as error:
        raise AssertionError(f"{error}\nbefore {before}\nafter  {holdings(group)}") from None


def expect_nothing(group):
    group.command("down")
    left = group.pids(), files_under(group.run_dir, is_socket), files_under(group.shm, os.path.isfile)
    assert left == ({}, [], []), f"left after down: {left}"
