#!/usr/bin/env python3
"""kill -9 of engine, router and supervisor in turn, under load: each client has one clear error for each request within
2 s, the group is ready again within 5 s, and nothing is left behind: processes, sockets, segments, descriptors.

    test_restarts.py ROUNDS [strict]      strict: the times as promised; else five times as much"""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from omni_e2e import PATIENCE, wait_until, watchdog
from omni_supervised import SupervisedGroup, expect_nothing, expect_nothing_more, holdings, wait_idle

STRICT = "strict" in sys.argv
KNOWN_WITHIN_S, READY_WITHIN_S = 2, 5
LONG = [{"tokens": [i, 1, 2, 3], "max_tokens": 1900, "ignore_eos": True} for i in range(6)]  # they take seconds
SHORT = [dict(one, max_tokens=24) for one in LONG]
CODES = {"engine-0": {"engine_lost"}, "router": {"router_lost"},
         "supervisord": {"router_lost", "engine_lost"}}  # all die at once: the router may still say who went first


def tokens(done):
    return [one["tokens"] for one in done]


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
    if name != "engine-0" and not done and "no router answers" in err:
        return 0, 0  # it had not been let in yet: one clear error for all
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
    watchdog(60 + 60 * int(sys.argv[1]))
    main()
