#!/usr/bin/env python3
"""Too little memory: BE gives way, LS does not notice, all tokens are right; and a shm.dir without room says so."""

import os
import re
import subprocess
import sys
import tempfile

from omni_e2e import BIN, Group, LsLoad, tiny_model, watchdog

N_TOKENS = 120
BE = [{"tokens": [(5 * i + j) % 251 for j in range(20 + 3 * i)], "max_tokens": N_TOKENS, "ignore_eos": True}
      for i in range(12)]
LS = [{"prompt": f"chat {i} " * 8, "max_tokens": 80, "ignore_eos": True} for i in range(3)]


def tokens(done):
    return [one["tokens"] for one in done]


def expected_of(model):
    with Group(0, model=model, settings={"engine.offload": "never"}) as group:
        group.start()
        return tokens(group.run(BE, options=["--concurrency", "1"])), tokens(group.run(LS, "ls"))


def test_device(model, offload, n_blocks, expected):
    """A pool for LS and some three of the twelve BE, which need up to six blocks each."""
    settings = {"engine.offload": offload, "engine.kv_blocks": n_blocks}
    with Group(1, model=model, settings=settings) as group:
        group.start()
        with LsLoad(group, LS, expected[1]) as chats:
            done = group.run(BE)
        assert tokens(done) == expected[0], f"{offload}: other tokens"
        assert all(one["finish_reason"] == "length" for one in done), done
        stats = group.stats()
        assert stats["failed"] == 0 and chats.n_batches > 0, stats
        group.expect_all_free()
        print(f"   offload={offload}, {n_blocks} blocks: {stats['yields']} yields, {stats['recomputed_tokens']} tokens "
              f"computed again, {stats['copies_out']} copies out; {chats.n_batches} LS batches beside", flush=True)
        return stats


def test_arena(model, expected):
    """Arenas that hold three BE at a time."""
    with Group(1, model=model, settings={"engine.offload": "always", "worker.arena_mb": 1}) as group:
        group.start()
        total = group.stats("arena_blocks_total")
        assert tokens(group.run(BE)) == expected[0], "small arena: other tokens"
        group.expect_all_free()
        print(f"   offload=always, {total} arena blocks: {group.stats('tokens_worker')} tokens on the worker", flush=True)
        assert group.stats("tokens_worker") > 0


def test_shm_full(model):
    """Segments are allocated whole: no room is an error at start that names needed, free and the remedy."""
    if os.geteuid() != 0:
        print("   (not root: shm.dir without room is not tried)")
        return
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False,
                                 capture_output=True)
        if mounted.returncode != 0:
            print("   (no mount here: shm.dir without room is not tried)")
            return
        try:
            expect_shm_full(model, folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def expect_shm_full(model, folder):
    with Group(1, model=model, settings={"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 64}) as group:
        done = subprocess.run([os.path.join(BIN, "omni-gpu-engine"), "--config", group.config, "--index", "0"],
                              capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        print("   " + said.strip().splitlines()[-1])
        assert done.returncode > 0, f"exit {done.returncode}\n{said}"
        assert len(re.findall(r"\b\d+\b", said)) >= 2 and "need" in said and "free" in said and folder in said, said
        left = [one for one in os.listdir(os.path.join(folder, group.name)) if "arena" in one]
        assert not left, f"half-made segments stay: {left}"


def main():
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(folder)
        expected = expected_of(model)
        print("1. little device memory", flush=True)
        never = test_device(model, "never", 26, expected)
        assert never["yields"] > 0 and never["copies_out"] == 0, never
        auto = test_device(model, "auto", 26, expected)
        assert auto["copies_out"] > 0, auto
        print("2. little arena memory", flush=True)
        test_arena(model, expected)
        print("3. shm.dir without room", flush=True)
        test_shm_full(model)
    print("ok")


if __name__ == "__main__":
    watchdog(120)
    sys.exit(main())
