#!/usr/bin/env python3
"""Too little memory: BE gives way, LS does not notice, all tokens are right."""

import statistics
import sys
import tempfile

from omni_e2e import Group, LsLoad, tiny_model, wait_until, watchdog

N_TOKENS = 120
GAP_TIMES_MAX = 5
BE = [{"tokens": [(5 * i + j) % 251 for j in range(20 + 3 * i)], "max_tokens": N_TOKENS, "ignore_eos": True}
      for i in range(12)]
LS = [{"prompt": f"chat {i} " * 8, "max_tokens": 80, "ignore_eos": True} for i in range(3)]


def tokens(done):
    return [one["tokens"] for one in done]


def expected_of(model):
    """Tokens of either class, and the gap between two tokens of LS, where nobody wants the memory."""
    with Group(0, model=model, settings={"engine.offload": "never"}) as group:
        group.start()
        be = tokens(group.run(BE, options=["--concurrency", "1"]))
        with LsLoad(group, LS, at_least=5) as chats:
            pass
        return be, chats.expected, statistics.median(chats.tpot_ms)


def expect_no_wait(what, chats, alone_ms):
    """LS beside BE that has no room against LS alone: 5 times is the bound here, as for all times."""
    beside_ms = statistics.median(chats.tpot_ms)
    print(f"   {what}: gap between two LS tokens {beside_ms:.2f} ms, alone {alone_ms:.2f} ms", flush=True)
    assert beside_ms <= GAP_TIMES_MAX * alone_ms, f"{what}: LS waits: {beside_ms:.2f} ms, alone {alone_ms:.2f} ms"


def test_device(model, offload, n_blocks, expected):
    """A pool for LS and some three of the twelve BE, which need up to six blocks each."""
    settings = {"engine.offload": offload, "engine.kv_blocks": n_blocks}
    with Group(1, model=model, settings=settings) as group:
        group.start()
        with LsLoad(group, LS, expected[1]) as chats:
            done = group.run(BE)
        assert tokens(done) == expected[0], f"{offload}: other tokens"
        assert all(one["finish_reason"] == "length" for one in done), done
        expect_no_wait(f"offload={offload}", chats, expected[2])
        stats = group.stats()
        assert stats["failed"] == 0 and chats.n_batches > 0, stats
        group.expect_all_free()
        print(f"   offload={offload}, {n_blocks} blocks: {stats['yields']} yields, {stats['recomputed_tokens']} tokens "
              f"computed again, {stats['copies_out']} copies out; {chats.n_batches} LS batches beside", flush=True)
        return stats


def test_arena(model, expected):
    """An arena that holds some of the BE at a time: the others wait until there is room."""
    with Group(1, model=model, settings={"engine.offload": "always", "worker.arena_mb": 1}) as group:
        group.start()
        total = group.stats("arena_blocks_total")
        assert tokens(group.run(BE)) == expected[0], "small arena: other tokens"
        process = group.run_begin([dict(one, max_tokens=500) for one in BE])

        def is_short():
            now = group.stats()
            return now["arena_blocks_free"] <= 2 and now["resident"] > 0 and now["waiting"] + now["running"] > 0
        wait_until(is_short, 30, "the arena is full, and others wait")
        assert all(one["output_tokens"] == 500 for one in group.run_end(process))
        group.expect_all_free()
        assert group.stats("copies_out") >= 2 * len(BE), group.stats()
        on_worker = group.stats("tokens_worker")
        print(f"   offload=always, {total} arena blocks: {on_worker} tokens on the worker", flush=True)
        assert on_worker > 0


def main():
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(folder)
        expected = expected_of(model)
        print("1. little device memory", flush=True)
        never = test_device(model, "never", 26, expected)
        assert never["yields"] > 0 and never["recomputed_tokens"] > 0 and never["copies_out"] == 0, never
        auto = test_device(model, "auto", 26, expected)
        assert auto["copies_out"] > 0, auto
        print("2. little arena memory", flush=True)
        test_arena(model, expected)
    print("ok")


if __name__ == "__main__":
    watchdog(120)
    sys.exit(main())
