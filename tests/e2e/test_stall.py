#!/usr/bin/env python3
"""Everything stops for longer than any lease and goes on (a virtual machine that is paused, a laptop
that sleeps): nobody takes another for dead, no request is lost, the tokens are the same."""

import os
import signal
import time

from omni_e2e import Group, watchdog

STALL_S = 4  # leases are 2 s

REQUESTS = [{"tokens": [7 + i, 8, 9], "max_tokens": 1900, "ignore_eos": True} for i in range(8)]


def stall(group, client):
    pids = [process.pid for process in group.running.values()] + [client.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(STALL_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def main():
    watchdog(150)
    with Group(n_workers=1, settings={"engine.offload": "always", "engine.ctx_max": 2048,
                                      "worker.kill_ms": 0}) as group:
        group.start()
        expected = [one["tokens"] for one in group.run(REQUESTS)]
        stalled = 0
        client = group.run_begin(REQUESTS)
        while stalled < 2 and client.poll() is None:
            time.sleep(0.4)
            if client.poll() is None:
                stall(group, client)
                stalled += 1
        done = group.run_end(client)
        assert stalled, "the requests ended before anything could be stopped"
        assert [one["tokens"] for one in done] == expected, "other tokens after a stall"
        for name in group.programs():
            log = group.log(name, 200)
            for word in ("engine_lost", "router_lost", "reason=silent", "session_lost"):
                assert word not in log, f"{name} took another program for dead:\n{log}"
    print("ok")


if __name__ == "__main__":
    main()
