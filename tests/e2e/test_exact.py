#!/usr/bin/env python3
"""Where attention runs changes no token: 32 BE requests offloaded beside 4 running LS chats answer what
each of them answers alone on the device, to the bit; greedy and with seeded sampling.

    test_exact.py tiny            two random models, every way to place and to delay
    test_exact.py demo N TOKENS   the real model
"""

import os
import random
import sys
import tempfile

from omni_e2e import PROFILE, Group, LsLoad, demo_model, tiny_model, watchdog

N_LS = 4
MODELS = {
    "uniform": [],
    # Layers that differ in KV heads, window and feed-forward part; sinks beside the window.
    "mixed": ["--layers", "6", "--heads", "4", "--kv-heads", "2,1,4", "--windows", "0,48", "--sinks", "4",
              "--experts", "0,0,1", "--type", "mixed"],
}
CASES = [  # name, workers, settings, environment
    ("always, 1 worker", 1, {"engine.offload": "always"}, {}),
    ("always, 2 workers", 2, {"engine.offload": "always"}, {}),
    ("always, 3 workers", 3, {"engine.offload": "always"}, {}),
    ("always, results delayed", 2, {"engine.offload": "always"}, {"OMNI_EXCHANGE_DELAY": "20"}),
    ("auto, few device blocks", 2, {"engine.offload": "auto", "engine.kv_blocks": 64}, {}),
    ("always, with deadlines", 2, {"engine.offload": "always", **PROFILE}, {}),
    ("omni", 2, {"engine.policy": "omni", "engine.kv_blocks": 64, **PROFILE}, {}),
    ("omni, one batch, no waits", 2, {"engine.policy": "omni", "engine.without": "two-batch,waiting",
                                      "engine.kv_blocks": 64, **PROFILE}, {}),
    ("paper", 2, {"engine.policy": "paper", "engine.kv_blocks": 64, **PROFILE}, {}),
    ("paper, results delayed", 1, {"engine.policy": "paper", "engine.kv_blocks": 64, **PROFILE},
     {"OMNI_EXCHANGE_DELAY": "3"}),
    ("ls-first", 1, {"engine.policy": "ls-first", "engine.kv_blocks": 40, **PROFILE}, {}),
    ("harvest", 2, {"engine.policy": "harvest", "engine.kv_blocks": 40, **PROFILE}, {}),
    ("harvest, no reserve", 1, {"engine.policy": "harvest", "engine.kv_blocks": 40, "engine.auto_free_pct": 0,
                                **PROFILE}, {}),
    ("sync, 1 worker", 1, {"engine.policy": "sync", "engine.kv_blocks": 64, **PROFILE}, {}),
    ("sync, results delayed", 3, {"engine.policy": "sync", "engine.kv_blocks": 64, **PROFILE},
     {"OMNI_EXCHANGE_DELAY": "3"}),
]
SAMPLED = [{"temperature": 0.8, "top_k": 20}, {"temperature": 0.8, "top_p": 0.9},
           {"temperature": 1.1, "min_p": 0.05}, {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.02}]


def be_requests(n, n_tokens):
    """Prompts of 1 to 150 tokens; every fourth begins with the same 64, so that blocks are shared."""
    rng = random.Random(7)
    common = [rng.randrange(256) for _ in range(64)]
    out = []
    for i in range(n):
        own = [rng.randrange(256) for _ in range(rng.choice([1, 5, 31, 32, 33, 100, 150]))]
        out.append({"tokens": common + own if i % 4 == 0 else own, "max_tokens": n_tokens, "ignore_eos": True})
    return out


def sampled(requests):
    return [dict(one, seed=1000 + i, **SAMPLED[i % len(SAMPLED)]) for i, one in enumerate(requests)]


def ls_requests(n_tokens):
    return [{"messages": [{"role": "user", "content": f"Tell me about the number {i}."}],
             "max_tokens": n_tokens, "ignore_eos": True} for i in range(N_LS)]


def tokens(done):
    return [one["tokens"] for one in done]


def expect_long_prompts(be):
    """With one block per request no table would have been used."""
    assert sum(one["prompt_tokens"] >= 100 for one in be) >= 2, [one["prompt_tokens"] for one in be]


def run_alone(model, requests, ls, settings=None):
    """Each by itself, nothing beside it, all of it on the device."""
    settings = {"engine.offload": "never", "engine.kv_mb": 64, **(settings or {})}
    with Group(n_workers=0, model=model, settings=settings) as group:
        group.start()
        one_by_one = ["--concurrency", "1"]
        be = group.run(requests, options=one_by_one, seconds=300)
        chats = group.run(ls, "ls", options=one_by_one)
        assert all(one["worker_tokens"] == 0 for one in be)
        expect_long_prompts(be)
        return tokens(be), tokens(chats)


def run_beside(model, case, requests, ls, alone):
    name, n_workers, settings, env = case
    settings = dict(settings, **{"worker.arena_mb": 256})
    with Group(n_workers, model, settings, env) as group:
        group.start()
        assert "engine.profile" not in settings or "profile_" in group.log("engine-0", 100), "no profile is in use"
        with LsLoad(group, ls, alone[1]) as chats:
            be = group.run(requests, seconds=300)
        for i, one in enumerate(be):
            assert one["tokens"] == alone[0][i], f"{name}: request {i} differs\n{one['tokens']}\n{alone[0][i]}"
        expect_offloaded(name, group, be)
        group.expect_all_free()
        ridden, parked = (sum(one[key] for one in be) for key in ("ridealong_jobs", "parked_jobs"))
        print(f"   {name}: {sum(one['worker_tokens'] for one in be)} of {len(be) * len(be[0]['tokens'])} tokens on "
              f"workers, {ridden} jobs rode along, {parked} parked; {group.stats()['sweeps_two']} sweeps of two batches, waited "
              f"{group.stats()['waited_us'] / 1000:.0f} ms; {chats.n_batches} LS batches beside; "
              f"{group.stats()['mirrored_blocks']} of {group.stats()['copied_blocks']} blocks copied early, "
              f"{group.stats()['yields']} yields, {group.stats()['retreats']} retreats", flush=True)
        return ridden, parked


def carried_out(case):
    """The simulated device in a group does not alternate two batches: `sync` is refused."""
    return case[2].get("engine.policy") != "sync" or os.environ.get("OMNI_TEST_DEVICE", "cpu") == "cpu"


def expect_device_alone(name, stats, on_workers):
    """Nobody decodes at a worker, but KV was dropped and computed again, or went to host memory and came back."""
    assert on_workers == 0, f"{name}: {on_workers} tokens on workers"
    if name.startswith("ls-first"):
        assert stats["yields"] > 0 and stats["copies_out"] == 0, stats
    else:
        assert stats["mirrored_blocks"] > 0 and stats["copies_in"] > 0, stats


def expect_offloaded(name, group, be):
    """The test would prove nothing if nothing had left the device."""
    stats = group.stats()
    on_workers = sum(one["worker_tokens"] for one in be)
    jobs = sum(one["ridealong_jobs"] + one["parked_jobs"] for one in be)
    if name.startswith(("ls-first", "harvest")):
        expect_device_alone(name, stats, on_workers)
        return
    assert on_workers > 0 and jobs > 0, f"{name}: {on_workers} tokens on workers, {jobs} jobs"
    if name.startswith("always"):
        # The first token comes from the prompt; more may, while the KV is copied out.
        assert all(one["worker_tokens"] > 0 for one in be), f"{name}: a request stayed on the device"
    assert not name.startswith("sync") or stats["sweeps_two"] > 0, f"{name}: never two batches"
    assert stats["jobs_failed"] == 0 and stats["tokens_worker"] == on_workers, stats


def test_tiny():
    greedy = be_requests(32, 64)
    requests, ls = greedy + sampled(greedy), ls_requests(64)
    with tempfile.TemporaryDirectory() as folder:
        for name, options in MODELS.items():
            print(f"{name} model", flush=True)
            model = tiny_model(folder, *options, name=name + ".gguf")
            alone = run_alone(model, requests, ls)
            assert alone[0][:32] != alone[0][32:], "sampling changes nothing"
            cases = [case for case in CASES if carried_out(case)]
            ways = [run_beside(model, case, requests, ls, alone) for case in cases]
            assert sum(parked for _, parked in ways) > 0 and sum(ridden for ridden, _ in ways) > 0, ways


def test_int8_kv():
    requests, ls = be_requests(16, 64), ls_requests(64)
    int8 = {"engine.kv_type": "int8"}
    with tempfile.TemporaryDirectory() as folder:
        name, options = next(iter(MODELS.items()))
        model = tiny_model(folder, *options, name=name + ".gguf")
        alone = run_alone(model, requests, ls, int8)
        assert alone != run_alone(model, requests, ls), "int8 KV changes nothing"
        run_beside(model, ("always, int8 KV", 2, {"engine.offload": "always", **int8}, {}), requests, ls, alone)


def test_demo(n, n_tokens):
    model = demo_model()
    words = "the history of the sea, rivers and the people who live beside them".split()
    # Every fourth prompt is of more than 100 tokens: several blocks are copied out, and more are filled.
    requests = [{"prompt": " ".join((words[i % 8:] + words[:i % 8]) * (9 if i % 4 == 0 else 1)) + f" {i}",
                 "max_tokens": n_tokens, "ignore_eos": True} for i in range(n)]
    requests += sampled(requests[:2])
    ls = ls_requests(max(24, n_tokens))
    alone = run_alone(model, requests, ls)
    run_beside(model, ("always", 1, {"engine.offload": "always", "engine.kv_mb": 64}, {}), requests, ls, alone)
    run_beside(model, ("always, delayed", 2, {"engine.offload": "always"}, {"OMNI_EXCHANGE_DELAY": "20"}), requests,
               ls, alone)
    run_beside(model, ("always, with deadlines", 1, {"engine.offload": "always", **PROFILE}, {}), requests, ls, alone)


if __name__ == "__main__":
    watchdog(1500)
    if sys.argv[1] == "tiny":
        test_tiny()
    elif sys.argv[1] == "int8":
        test_int8_kv()
    else:
        test_demo(int(sys.argv[2]), int(sys.argv[3]))
    print("ok")
