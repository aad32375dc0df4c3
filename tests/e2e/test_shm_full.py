#!/usr/bin/env python3
"""A small shm.dir, as containers have one (64 MB): what does not fit is an error at start that names needed, free and
the remedy, and leaves no half-made segment; what fits serves, and goes on when others have filled the rest.
Needs a mount: skipped (77) unless root."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile

from omni_e2e import BIN, Group, skip, tiny_model, watchdog

SHORT = [{"tokens": [i, 1, 2], "max_tokens": 24, "ignore_eos": True} for i in range(4)]


@contextlib.contextmanager
def small_tmpfs():
    if os.geteuid() != 0:
        skip("only root may mount a small tmpfs")
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=False,
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            skip(f"no mount here: {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


def test_too_small(model, folder):
    """The default arena of 512 MiB."""
    settings = {"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 512}
    with Group(1, model=model, settings=settings) as group:
        done = subprocess.run([os.path.join(BIN, "omni-gpu-engine"), "--config", group.config, "--index", "0"],
                              capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        print("   " + said.strip().splitlines()[-1])
        assert done.returncode > 0, f"exit {done.returncode}\n{said}"
        assert "cannot_go_on" in said, said
        assert len(re.findall(r"\b\d+\b", said)) >= 2 and "need" in said and "free" in said and folder in said, said
        left = [one for one in os.listdir(os.path.join(folder, group.name)) if "arena" in one]
        assert not left, f"half-made segments stay: {left}"


def fill(folder):
    """Somebody else's file takes what is left, to the last byte."""
    path = os.path.join(folder, "somebody-else")
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert os.statvfs(folder).f_bavail == 0
    return path


def test_filled_up(model, folder):
    """A group that runs needs no more: each program is killed and comes back, and serves the same."""
    settings = {"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 32}
    with Group(1, model=model, settings=settings) as group:
        group.start()
        expected = [one["tokens"] for one in group.run(SHORT)]
        theirs = fill(folder)
        for name in group.programs():
            group.signal(name, signal.SIGKILL)
            group.start_program(name)
            group.wait_ready()
            assert [one["tokens"] for one in group.run(SHORT)] == expected, f"other tokens after {name} came back"
            assert "no_statistics_page" not in group.log(name, 50), group.log(name, 50)
        os.unlink(theirs)


if __name__ == "__main__":
    watchdog(100)
    with tempfile.TemporaryDirectory() as where, small_tmpfs() as small:
        tiny = tiny_model(where)
        test_too_small(tiny, small)
        test_filled_up(tiny, small)
    print("ok")
