#!/usr/bin/env python3
"""Whatever is killed, ended or stopped for a while, several at a time, again and again: each request ends once, with the
tokens of an undisturbed run or with an error that may be tried again; the group comes back, and nothing is left.

    test_chaos.py SECONDS ENGINES [SEED]      the seed chooses what is done, not what comes of it"""

import collections
import os
import random
import signal
import sys
import threading
import time

from omni_e2e import PROFILE, group_probe, program, wait_until, watchdog
from omni_supervised import SupervisedGroup, expect_nothing, expect_nothing_more, holdings, wait_idle

N_WORKERS = 2
REQUESTS = [{"tokens": [(7 * i + j) % 251 for j in range(1 + 9 * i)], "max_tokens": 60 + 40 * i, "ignore_eos": True,
             "temperature": 0.7, "seed": i} for i in range(8)]
# One engine chooses where attention runs, with too little KV for all; of two, each sends it to the workers.
SETTINGS = {1: {**PROFILE, "engine.policy": "omni", "engine.kv_blocks": 40, "worker.kill_ms": 3000},
            2: {"engine.offload": "always", "worker.kill_ms": 3000}}
WAYS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
STOPPED_S = (0.05, 0.3, 1, 2.5, 4.5)  # shorter and longer than the leases (2 s) and worker.kill_ms


def tokens(done):
    return [one["tokens"] for one in done]


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it died with another one


def hurt(group, chance, counts):
    """Some of the programs, at once."""
    pids = {name: pid for name, pid in group.pids().items() if name != "supervisord"}
    for name in chance.sample(sorted(pids), chance.randint(1, min(3, len(pids)))):
        way = chance.choice(WAYS)
        send(pids[name], way)
        if way == signal.SIGSTOP:
            threading.Timer(chance.choice(STOPPED_S), send, (pids[name], signal.SIGCONT)).start()
        counts[f"{name} {way.name}"] += 1


def expect_ends(group, process, expected, counts):
    code, done, err = group.run_wait(process, 90)
    if not done:  # there was no router to say hello to, or it died before its session was dialled
        assert code == 1 and ("router" in err or "session" in err), f"exit {code}\n{err}"
        counts["clients not served"] += 1
        return
    assert len(done) == len(REQUESTS), f"exit {code}, {len(done)} results\n{err}"
    for one, right in zip(done, expected):
        if one["finish_reason"] == "error":
            assert one["error"]["retryable"], one
            counts[one["error"]["code"]] += 1
        else:
            assert one["tokens"] == right, f"other tokens: {one}"
            counts["requests served"] += 1


def is_ready(group):
    status = group_probe.status_of(program("omni"), group.config)
    return (not group_probe.missing_parts(status, group.n_engines, group.n_workers) and
            len(group.pids()) == len(group.programs()) + 1)


def a_round(group, chance, expected, counts):
    clients = [group.run_begin(REQUESTS, cls) for cls in ("be", "be", "ls")]
    for _ in range(chance.randint(1, 3)):
        time.sleep(0.8 * chance.random())
        hurt(group, chance, counts)
    for one in clients:
        expect_ends(group, one, expected, counts)
    time.sleep(max(STOPPED_S))  # until the last of them goes on
    wait_until(lambda: is_ready(group), 60, "ready after a round")
    assert tokens(group.run(REQUESTS)) == expected, "other tokens afterwards"
    wait_idle(group)
    faults = [group.stats("idle_faults", engine=i) for i in range(group.n_engines)]
    assert not any(faults), f"the engines' books: {faults}\n{group.log('engine-0', 50)}"
    counts["copies out"] += sum(group.stats("copies_out", engine=i) for i in range(group.n_engines))  # since its start


def main():
    seconds, n_engines = float(sys.argv[1]), int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(10**6)
    chance, counts, n_rounds, end = random.Random(seed), collections.Counter(), 0, time.monotonic() + seconds
    print(f"   seed {seed}", flush=True)
    with SupervisedGroup(N_WORKERS, settings=SETTINGS[n_engines], n_engines=n_engines) as group:
        group.start()
        expected = tokens(group.run(REQUESTS))
        wait_idle(group)
        before = holdings(group)
        while time.monotonic() < end:
            a_round(group, chance, expected, counts)
            n_rounds += 1
        expect_nothing_more(group, before, f"{n_rounds} rounds")
        expect_nothing(group)
    print(f"   {n_rounds} rounds: " + ", ".join(f"{key} {n}" for key, n in sorted(counts.items())))
    assert counts["requests served"] > 0 and counts["copies out"] > 0, "nobody was served, or nothing was moved"
    print("ok")


if __name__ == "__main__":
    watchdog(float(sys.argv[1]) + 300)
    main()
