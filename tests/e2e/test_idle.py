#!/usr/bin/env python3
"""An idle group uses below 1 % of a core: user and system time of all its processes (tested at five times that).

    test_idle.py SECONDS"""

import os
import sys
import time

from omni_e2e import Group, watchdog

AIM = 0.01


def cpu_seconds(group):
    """Per program; the threads that have ended count too."""
    out = {}
    for name, process in group.running.items():
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        out[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return out


def main():
    seconds = float(sys.argv[1])
    watchdog(seconds + 60)
    with Group(2, settings={"engine.offload": "always"}) as group:
        group.start()
        # Idle after work, not before the first: pools, timers and spins have been used.
        group.run([{"prompt": "hello", "max_tokens": 32, "ignore_eos": True}] * 8)
        group.expect_all_free()
        time.sleep(1)
        before = cpu_seconds(group)
        time.sleep(seconds)
        used = {name: value - before[name] for name, value in cpu_seconds(group).items()}
        share = sum(used.values()) / seconds
        print(f"idle for {seconds:.0f} s: {100 * share:.2f} % of a core (" +
              ", ".join(f"{name} {100 * value / seconds:.2f} %" for name, value in used.items()) + ")")
        assert share <= 5 * AIM, f"{100 * share:.2f} % of a core; the aim is 1 %, the bound here 5 %"
    print("ok")


if __name__ == "__main__":
    main()
