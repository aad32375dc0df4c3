#!/usr/bin/env python3
"""Segments are allocated whole: a shm.dir without room is an error at start that names needed, free and the
remedy, and leaves no half-made segment.  Needs a mount: skipped (77) unless root."""

import os
import re
import subprocess
import tempfile

from omni_e2e import BIN, Group, skip, tiny_model, watchdog


def test_shm_full(model):
    if os.geteuid() != 0:
        skip("only root may mount a small tmpfs")
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False,
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            skip(f"no mount here: {mounted.stderr.strip()}")
        try:
            expect_shm_full(model, folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def expect_shm_full(model, folder):
    settings = {"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 64}
    with Group(1, model=model, settings=settings) as group:
        done = subprocess.run([os.path.join(BIN, "omni-gpu-engine"), "--config", group.config, "--index", "0"],
                              capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        print("   " + said.strip().splitlines()[-1])
        assert done.returncode > 0, f"exit {done.returncode}\n{said}"
        assert len(re.findall(r"\b\d+\b", said)) >= 2 and "need" in said and "free" in said and folder in said, said
        left = [one for one in os.listdir(os.path.join(folder, group.name)) if "arena" in one]
        assert not left, f"half-made segments stay: {left}"


if __name__ == "__main__":
    watchdog(60)
    with tempfile.TemporaryDirectory() as where:
        test_shm_full(tiny_model(where))
    print("ok")
