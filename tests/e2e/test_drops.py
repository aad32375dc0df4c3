#!/usr/bin/env python3
"""Many requests through many clients, half of them dropped midway, workers killed meanwhile: afterwards every KV block,
slot and residual is free, and the engine's own check of its books finds nothing.

    test_drops.py REQUESTS CLIENTS
"""

import random
import signal
import sys
import threading
import time

import omni_shm
from omni_client import Client, new_id
from omni_e2e import PATIENCE, Group, wait_until, watchdog

N_WORKERS = 2
KILL_EVERY_S = 1.0
SETTINGS = {"engine.offload": "always", "engine.kv_blocks": 96, "worker.arena_mb": 4, "router.queue_max": "2000,2000"}
HOW = ("cancel", "leave")  # a client that drops a request cancels it, or goes away with all that it has


class Caller(threading.Thread):
    """One client: its requests one after the other, some of them dropped after a few tokens."""

    def __init__(self, group, seed, n_requests):
        super().__init__(daemon=True)
        self.group, self.random, self.n_left = group, random.Random(seed), n_requests
        self.ended, self.dropped, self.refused, self.error = 0, 0, 0, None

    def run(self):
        try:
            while self.n_left > 0:
                with Client(self.group) as client:
                    while self.n_left > 0 and self.one(client):
                        pass
        except BaseException as error:  # raised by the test's own thread
            self.error = error

    def one(self, client):
        """True: the session goes on."""
        self.n_left -= 1
        drop = self.random.random() < 0.5 and self.random.choice(HOW)
        ask = {"t": "generate", "id": new_id(), "class": self.random.choice(("be", "be", "be", "ls")),
               "tokens": [self.random.randrange(250) for _ in range(self.random.randrange(1, 90))],
               "max_tokens": self.random.randrange(20, 300), "ignore_eos": True}
        if drop:
            ask["max_tokens"] = 600
        client.send(ask)
        patience = self.random.randrange(1, 60) if drop else None
        n, cancelled = 0, False
        while True:
            message = client.receive(60 * PATIENCE)
            assert message is not None, "no answer in a minute"
            for item in message.get("items", []):
                n += len(item["ids"]) if item["id"] == ask["id"] else 0
            if message["t"] in ("done", "error"):
                return True if cancelled else self.end(message)
            if drop and n >= patience:
                self.dropped += 1
                if drop == "leave":
                    return False
                client.send({"t": "cancel", "id": ask["id"]})
                drop, cancelled = None, True

    def end(self, message):
        assert message["t"] == "done" or message["retryable"], message
        self.refused += message["t"] == "error"
        self.ended += message["t"] == "done"
        return True


def kill_workers(group, callers):
    """A worker at a time, until the callers have ended."""
    n = 0
    while any(one.is_alive() for one in callers):
        time.sleep(KILL_EVERY_S)
        name = f"attnd-{n % N_WORKERS}"
        group.signal(name, signal.SIGKILL)
        time.sleep(0.1)
        group.start_program(name)
        n += 1
    return n


def expect_clean(group):
    group.expect_all_free(30)
    before = group.stats("idle_checks")
    group.run([{"prompt": "one more", "max_tokens": 4}])
    wait_until(lambda: group.stats("idle_checks") > before, 10, "the engine has checked its books again")
    stats = group.stats()
    assert stats["idle_faults"] == 0, group.log("engine-0", 50)
    for worker in range(N_WORKERS):
        tags = omni_shm.owners(group.segments, worker)
        assert not any(tags), f"worker {worker}: {sum(map(bool, tags))} blocks have an owner"
        left = [job.slot for job in omni_shm.jobs(group.segments, worker) if job.state != omni_shm.JOB_FREE]
        assert not left, f"worker {worker}: slots {left} are not free"
    assert stats["slots_free"] == 64 * N_WORKERS, stats
    return stats


def main():
    n_requests, n_clients = int(sys.argv[1]), int(sys.argv[2])
    with Group(N_WORKERS, settings=SETTINGS) as group:
        group.start()
        each, more = divmod(n_requests, n_clients)
        callers = [Caller(group, seed, each + (seed < more)) for seed in range(n_clients)]
        for one in callers:
            one.start()
        n_kills = kill_workers(group, callers)
        for one in callers:
            one.join()
            if one.error is not None:
                raise one.error
        group.wait_ready()
        stats = expect_clean(group)
        dropped, ended, refused = (sum(getattr(one, what) for one in callers) for what in ("dropped", "ended", "refused"))
        assert dropped + ended + refused == n_requests, (dropped, ended, refused)
        assert 0.4 < dropped / n_requests < 0.6, (dropped, ended, refused)
        assert n_kills > 0 and stats["copies_out"] > 0, (dropped, n_kills, stats)
        print(f"   {n_requests} requests, {n_clients} clients: {dropped} dropped, {ended} ended, {refused} refused; "
              f"{n_kills} workers killed, {stats['copies_out']} copies out, {stats['idle_checks']} checks of the books")
    print("ok")


if __name__ == "__main__":
    watchdog(900)
    main()
