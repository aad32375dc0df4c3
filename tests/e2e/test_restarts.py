#!/usr/bin/env python3
"""kill -9 of engine, router and supervisor in turn, under load: each client has one clear error for each request within
2 s, the group is ready again within 5 s, and nothing is left behind: processes, sockets, segments, descriptors.

    test_restarts.py ROUNDS [strict]      strict: the times as promised; else five times as much"""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import omni_shm
from omni_e2e import BIN, PATIENCE, ROOT, Group, group_probe, program, skip, wait_until, watchdog

STRICT = "strict" in sys.argv
KNOWN_WITHIN_S, READY_WITHIN_S = 2, 5
LONG = [{"tokens": [i, 1, 2, 3], "max_tokens": 1900, "ignore_eos": True} for i in range(6)]  # they take seconds
SHORT = [dict(one, max_tokens=24) for one in LONG]
CODES = {"engine-0": {"engine_lost"}, "router": {"router_lost"},
         "supervisord": {"router_lost", "engine_lost"}}  # all die at once: the router may still say who went first


class SupervisedGroup(Group):
    """A group under deploy/omni-group; its programs are found by the mark that they carry."""

    def command(self, *arguments, check=True):
        return subprocess.run([ROOT + "/deploy/omni-group", *arguments, "--config", self.config], check=check,
                              capture_output=True, text=True, env=dict(self.env, OMNI_BIN_DIR=BIN))

    def start(self, seconds=30):
        done = self.command("up", "--timeout", str(seconds * PATIENCE), check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def pids(self):
        """Name as in CODES -> pid; two processes of one name are an error."""
        mark, out = f"OMNI_GROUP_MARK={self.run_dir}".encode(), {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                    ours, words = mark in environ.read().split(b"\0"), cmdline.read().decode().split("\0")
            except OSError:  # gone meanwhile, or somebody else's
                continue
            name = name_of(words) if ours else None
            assert name not in out or not ours, f"two of {name}: {out[name]} and {pid}"
            if name:
                out[name] = int(pid)
        return out

    def is_ready(self, killed, pid):
        """All parts serve, and the one that was killed is another process now."""
        status = group_probe.status_of(program("omni"), self.config)
        if group_probe.missing_parts(status, self.n_engines, self.n_workers):
            return False
        pids = self.pids()
        return (len(pids) == len(self.programs()) + 1 and status["engines"][0]["pid"] == pids["engine-0"] and
                pids[killed] != pid)

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


def tokens(done):
    return [one["tokens"] for one in done]


def wait_idle(group):
    """Nothing is in use; the sockets of sessions are closed a moment after they have ended."""
    group.expect_all_free(20)
    wait_until(lambda: omni_shm.stats(group.segments, "router")["sessions"] == 0, 20, "no session is left")
    wait_until(lambda: len(files_under(group.run_dir, is_socket)) == 2 + group.n_engines, 20, "no session's socket is left")


def under_load(group):
    """Clients of both classes with requests in flight; they begin one after the other where the machine is busy."""
    for _ in range(5):
        clients = [group.run_begin(LONG, cls) for cls in ("ls", "be", "be")]
        while any(one.poll() is None for one in clients):
            if group.stats("running") + group.stats("resident") >= 2 * len(LONG):
                return clients
            time.sleep(0.02)
    raise AssertionError("the requests have always ended before they were seen: give them more tokens")


def expect_one_end_each(group, process, name, killed_at):
    """(Requests that were lost, seconds until the client had ended); runs in a thread of its own.  Each request has one
    end: its last token before the kill, or one error that says what was lost and that it may be tried again."""
    code, done, err = group.run_wait(process, 60)
    seconds = time.monotonic() - killed_at
    assert len(done) == len({one["id"] for one in done}) == len(LONG), f"{name}: exit {code}, {len(done)} results\n{err}"
    lost = [one["error"] for one in done if one["finish_reason"] == "error"]
    assert all(one["code"] in CODES[name] and one["retryable"] for one in lost), f"{name}: {lost}"
    assert code == (1 if lost else 0), f"{name}: exit {code}\n{err}"
    return len(lost), seconds if lost else 0


def kill_one(group, name, threads):
    """Seconds until the last client knew, and until the group was ready again; how many requests were lost."""
    clients = under_load(group)
    pid = group.pids()[name]
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    known = [threads.submit(expect_one_end_each, group, one, name, killed_at) for one in clients]
    if name == "supervisord":
        group.start()
    wait_until(lambda: group.is_ready(name, pid), 60, f"ready after {name} was killed")
    ready = time.monotonic() - killed_at
    lost, seconds = zip(*(one.result() for one in known))
    assert sum(lost) > 0, f"{name}: nobody lost anything"
    return max(seconds), ready, sum(lost)


def expect_times(times):
    factor = PATIENCE if STRICT else 5 * PATIENCE
    for name in CODES:
        known, ready = (sorted(one[i] for one in times[name]) for i in (0, 1))
        lost = sum(one[2] for one in times[name])
        print(f"   {name} killed {len(known)} times, {lost} requests lost: clients knew after "
              f"{known[len(known) // 2]:.2f} s (at most {known[-1]:.2f}), ready after "
              f"{ready[len(ready) // 2]:.2f} s (at most {ready[-1]:.2f})", flush=True)
        assert known[-1] <= KNOWN_WITHIN_S * factor and ready[-1] <= READY_WITHIN_S * factor, (name, known, ready)


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


def main():
    rounds = int(sys.argv[1])
    with SupervisedGroup(1, settings={"engine.offload": "auto"}) as group, ThreadPoolExecutor() as threads:
        group.start()
        expected = tokens(group.run(SHORT))
        wait_idle(group)
        before = holdings(group)
        times = {name: [] for name in CODES}
        for _ in range(rounds):
            for name in CODES:
                times[name].append(kill_one(group, name, threads))
                assert tokens(group.run(SHORT)) == expected, f"other tokens after {name} was killed"
                wait_idle(group)
                expect_nothing_more(group, before, f"{name} was killed")
        expect_times(times)
        expect_nothing(group)
    print("ok")


if __name__ == "__main__":
    if shutil.which("supervisord") is None:
        skip("supervisord is not installed")
    watchdog(60 + 60 * int(sys.argv[1]))
    main()
