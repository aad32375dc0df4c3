#!/usr/bin/python3
"""Stands in for every program of a group, so that omni-group is tested without engines or models.

It leaves behind what the real ones leave when they are killed: a bound socket and a locked segment.
Unlike them it does not die with its parent, which is the harder case for the clean-up.

DUMMY_CRASH=NAME makes the program NAME exit at once; DUMMY_SILENT=NAME makes it never ready.
"""

import configparser
import fcntl
import json
import os
import signal
import socket
import sys

PROGRAM = os.path.basename(sys.argv[0])


def option(name, default=""):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


CONFIG = configparser.ConfigParser(inline_comment_prefixes=(";", "#"))
CONFIG.read(option("--config"))
GROUP = CONFIG["group"]
RUN = os.path.join(CONFIG["run"]["dir"], GROUP["name"])
SHM = os.path.join(CONFIG["shm"]["dir"], GROUP["name"])


def part_name():
    kind = {"omni-router": "router", "omni-gpu-engine": "engine-", "omni-cpu-attnd": "attnd-"}[PROGRAM]
    return kind + option("--index")


def serve():
    name = part_name()
    if os.environ.get("DUMMY_CRASH") == name:
        sys.exit(f"{name}: dummy crash")
    if os.environ.get("DUMMY_SILENT") == name:
        print(f"{name}: says nothing", flush=True)
        signal.pause()
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    os.makedirs(SHM, mode=0o700, exist_ok=True)
    segment = open(os.path.join(SHM, name + ".seg"), "a+b")
    fcntl.flock(segment, fcntl.LOCK_SH)
    path = os.path.join(RUN, name + ".sock")
    if os.path.exists(path):
        os.unlink(path)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(path)
    door.listen(64)
    print(f"{name}: serving, pid {os.getpid()}", flush=True)
    while True:
        door.accept()[0].close()


def answers(name):
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(os.path.join(RUN, name + ".sock"))
        return True
    except OSError:
        return False


def status():
    if not answers("router"):
        sys.exit("no router")
    state = {True: "ready", False: "absent"}
    workers = [{"index": i, "state": state[answers(f"attnd-{i}")]} for i in range(int(GROUP["n_workers"]))]
    engines = [{"index": i, "state": state[answers(f"engine-{i}")], "workers": workers}
               for i in range(int(GROUP["n_engines"]))]
    ready = all(part["state"] == "ready" for part in workers + engines)
    print(json.dumps({"ready": ready, "engines": engines}))


def clean():
    for name in os.listdir(SHM) if os.path.isdir(SHM) else []:
        path = os.path.join(SHM, name)
        with open(path, "rb") as segment:
            try:
                fcntl.flock(segment, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            os.unlink(path)
            print("removed segment", path)


if "--check-config" in sys.argv:
    sys.exit(0 if GROUP.get("n_workers") else "group.n_workers is missing")
if PROGRAM == "omni":
    {"status": status, "clean": clean}[sys.argv[1]]()
else:
    serve()
