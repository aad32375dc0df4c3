#!/usr/bin/env python3
"""Mixed load for a long time: memory, descriptors, threads, KV blocks and slots of all programs stay as they were, and
LS tokens come at the end as they came at the beginning.

    OMNI_SOAK_S=60 test_soak.py      seconds in all (900)

The time is cut into windows.  In each, an open LS load and a backlog of BE run (omni-bench-load), beside clients that
cancel, go away, break the protocol, and a configuration that is reloaded.  Between two windows the group is idle, and
everything is counted.  What grew is compared between the first and the last fifth of the windows."""

import os
import random
import signal
import sys
import threading
import time

import omni_shm
from omni_client import Client, hello, new_id, pack
from omni_e2e import PATIENCE, PROFILE, ROOT, Group, demo_path, wait_until, watchdog

sys.path.insert(0, os.path.join(ROOT, "tests/bench"))
import load  # noqa: E402  (the generator's runs and figures, shared with the benchmarks)

SOAK_S = float(os.environ.get("OMNI_SOAK_S", "900"))
WINDOW_S = min(60.0, max(15.0, SOAK_S / 5))
GAP_TIMES_MAX = 1.25
# Allocators keep what they once needed, and that may be a little more in one window than in another; a leak of a few
# hundred bytes per request is above this after a quarter of an hour.
MEMORY_TIMES_MAX, MEMORY_MORE_KB = 1.02, 1024
SETTINGS = {**PROFILE, "engine.policy": "omni", "engine.kv_mb": 24, "engine.ctx_max": 512, "worker.arena_mb": 64,
            "router.result_keep_s": 1}
LOAD = {"ls_rate": 0.4, "be": 12, "warm_up": 3, "drain": 20, "ls_prompt": 80, "ls_output": 48, "be_prompt": 200,
        "be_output": 96, "vocab": 250}


class Nuisance(threading.Thread):
    """Clients that nobody wishes for, one after the other, for as long as a window lasts."""

    def __init__(self, group, seed):
        super().__init__(daemon=True)
        self.group, self.random, self.ending = group, random.Random(seed), threading.Event()
        self.done, self.error = {}, None
        self.ways = (self.cancel, self.leave, self.refused, self.garbage, self.not_dialled, self.reload)

    def run(self):
        try:
            while not self.ending.wait(0.5 + self.random.random()):
                way = self.random.choice(self.ways)
                way()
                self.done[way.__name__] = self.done.get(way.__name__, 0) + 1
        except BaseException as error:  # raised by end()
            self.error = error

    def end(self):
        self.ending.set()
        self.join()
        if self.error is not None:
            raise self.error

    def ask(self, client, **fields):
        request = {"t": "generate", "id": new_id(), "class": "be", "max_tokens": 200, "ignore_eos": True,
                   "tokens": [self.random.randrange(250) for _ in range(self.random.randrange(1, 100))], **fields}
        client.send(request)
        return request["id"]

    def cancel(self):
        with Client(self.group) as client:
            one = self.ask(client)
            client.receive(1)
            client.send({"t": "cancel", "id": one})
            while (message := client.receive(20 * PATIENCE))["t"] == "tokens":
                pass
            assert message["t"] in ("done", "error"), message

    def leave(self):
        with Client(self.group) as client:
            self.ask(client)
            client.receive(1)

    def refused(self):
        with Client(self.group) as client:
            self.ask(client, max_tokens=0)
            assert client.receive(20 * PATIENCE)["code"] == "bad_request"

    def garbage(self):
        with Client(self.group) as client:
            client.send_bytes(pack({"t": "no such message"}) if self.random.random() < 0.5 else os.urandom(300))
            assert client.receive(20 * PATIENCE)["t"] == "error"

    def not_dialled(self):
        assert hello(self.group)["t"] == "welcome"

    def reload(self):
        self.group.signal(self.random.choice(list(self.group.running)), signal.SIGHUP)


def memory_kb(pid):
    """(private, shared) resident memory: files and heap, and what lies in segments."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = {line.split(":")[0]: line.split()[1] for line in file if line.startswith("Rss")}
    return int(fields["RssAnon"]) + int(fields["RssFile"]), int(fields["RssShmem"])


def count_of(group):
    """Of each program: what it holds now, while the group is idle."""
    out = {}
    for name, process in group.running.items():
        folder = f"/proc/{process.pid}"
        private, shared = memory_kb(process.pid)
        out[name] = {"private": private, "shared": shared, "files": len(os.listdir(folder + "/fd")),
                     "threads": len(os.listdir(folder + "/task"))}
    return out


def segments_of(group):
    return {entry.name: entry.stat().st_size for entry in os.scandir(group.segments)}


def wait_idle(group):
    """Everything is free, nobody is connected, no result is kept, and the engine has found its books right."""
    group.expect_all_free(30)
    wait_until(lambda: all(omni_shm.stats(group.segments, "router")[what] == 0
                           for what in ("sessions", "requests_held")), 30, "no session and no result is left")
    stats = group.stats()
    assert stats["idle_faults"] == 0, group.log("engine-0", 50)
    assert stats["slots_free"] == 64, stats
    assert not any(omni_shm.owners(group.segments, 0)), "blocks of the arena have an owner"


def window(group, number):
    nuisance = Nuisance(group, number)
    nuisance.start()
    report = load.run(("--config", group.config), dict(LOAD, seconds=WINDOW_S - 5, seed=number + 1))
    nuisance.end()
    books = report["books"]["ls"]
    assert books["failed"] == books["unfinished"] == 0 and books["done"] > 0, books
    assert report["window"]["be_decode_tokens"] > 0, report["window"]
    wait_idle(group)
    counts = count_of(group)
    gaps = report["ls_gaps_ms"]
    print(f"   {number:3} LS {books['done']} done {books['refused']} refused, gap p50 {load.percentile(gaps, 0.5):.1f} "
          f"p99 {load.percentile(gaps, 0.99):.1f} ms; BE {report['window']['be_decode_tokens']} tokens; " +
          ", ".join(f"{name} {one['private']}+{one['shared']} KiB {one['files']} files {one['threads']} threads"
                    for name, one in counts.items()), flush=True)
    return {"gaps": gaps, "counts": counts, "segments": segments_of(group), "nuisances": nuisance.done, "done": books["done"],
            "refused": books["refused"]}


def expect_flat(first, last):
    for name in first[0]["counts"]:
        def most(windows, what, name=name):
            return max(one["counts"][name][what] for one in windows)
        for what in ("files", "threads"):
            assert most(last, what) <= most(first, what), f"{name}: {what} {most(first, what)} -> {most(last, what)}"
        before, after = most(first, "private"), most(last, "private")
        print(f"   {name}: {before} KiB of private memory at first, {after} KiB at last", flush=True)
        assert after <= before * MEMORY_TIMES_MAX + MEMORY_MORE_KB, f"{name}: memory {before} -> {after} KiB"


def expect_segments_flat(windows):
    """Segments are allocated whole and stay the same ones; what a program has of them mapped may become more until it
    has touched every page, and no more than that."""
    first, last = windows[0]["segments"], windows[-1]["segments"]
    assert first == last, f"segments were {first}, are {last}"
    for one in windows:
        for name, count in one["counts"].items():
            assert count["shared"] <= sum(first.values()) / 1024, f"{name}: {count} of segments {first}"


def expect_load(windows, ways):
    """What was meant to happen did: each kind of client came by, and LS was served."""
    met = {way for one in windows for way in one["nuisances"]}
    assert len(windows) < 10 or met == ways, f"never: {ways - met}"
    done, refused = (sum(one[what] for one in windows) for what in ("done", "refused"))
    print(f"   LS: {done} done, {refused} refused", flush=True)
    assert refused <= 0.1 * (done + refused), f"LS: {refused} of {done + refused} refused"


def expect_same_gaps(first, last):
    before, after = (load.percentile([gap for one in part for gap in one["gaps"]], 0.99) for part in (first, last))
    print(f"   p99 of the gap between LS tokens: {before:.1f} ms at first, {after:.1f} ms at last, {after / before:.2f} "
          f"times; {os.getloadavg()[1]:.1f} processes ran in the last minutes", flush=True)
    assert after <= before * GAP_TIMES_MAX, f"LS tokens came later and later: {before:.1f} -> {after:.1f} ms"


def main():
    with Group(1, model=demo_path(), settings=SETTINGS) as group:
        group.start(120)
        began, windows = time.monotonic(), []
        while time.monotonic() - began < SOAK_S or len(windows) < 2:
            windows.append(window(group, len(windows)))
        n = max(1, len(windows) // 5)
        print(f"   {len(windows)} windows, {sum(sum(one['nuisances'].values()) for one in windows)} nuisances, "
              f"{group.stats('idle_checks')} checks of the books", flush=True)
        assert group.stats("copies_out") > 0 and group.stats("cancelled") > 0, group.stats()
        expect_load(windows, {way.__name__ for way in Nuisance(group, 0).ways})
        expect_flat(windows[:n], windows[-n:])
        expect_segments_flat(windows)
        expect_same_gaps(windows[:n], windows[-n:])
    print("ok")


if __name__ == "__main__":
    watchdog(2 * SOAK_S + 300)
    main()
