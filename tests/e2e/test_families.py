#!/usr/bin/env python3
"""A tiny random model of every family, served by a group: its greedy answers are those of `transformers` on the same
weights (tests/golden/families.json), and the same wherever attention runs.

    test_families.py            keys and values in F32: on the device alone, and offloaded
    test_families.py full       also in F16, placed by the engine, and with a worker and an engine killed
"""

import json
import os
import signal
import sys
import tempfile

from omni_e2e import ROOT, Group, tiny_model, wait_until, watchdog
from test_exact import be_requests, ls_requests, run_alone, run_beside, sampled, tokens

N_LONG = 600
MARGIN = 1e-3  # where the second best is nearer, an exact implementation may choose otherwise


def goldens():
    with open(os.path.join(ROOT, "tests/golden/families.json"), encoding="utf-8") as file:
        return json.load(file)["families"]


def requests_of(family):
    """Those of the goldens first."""
    known = [{"tokens": one["prompt"], "max_tokens": len(one["out"]), "ignore_eos": True} for one in family["greedy"]]
    return known + sampled(be_requests(8, 32))


def n_certain(margins):
    return next((i for i, margin in enumerate(margins) if margin < MARGIN), len(margins))


def expect_goldens(family, answers):
    n_all = n_compared = 0
    for one, answer in zip(family["greedy"], answers):
        n = n_certain(one["margin"])
        assert answer[:n] == one["out"][:n], f"{family['family']}: {answer}\n{one['out']}, certain: {n}"
        n_all, n_compared = n_all + len(one["out"]), n_compared + n
    assert n_compared > n_all / 2, f"{family['family']}: {n_compared} of {n_all} tokens could be compared"
    print(f"{family['family']}: {n_compared} of {n_all} greedy tokens are those of transformers", flush=True)


def begin(group, requests):
    """Starts them, and waits until workers compute for them."""
    before = group.stats("jobs_posted")
    process = group.run_begin(requests)
    wait_until(lambda: group.stats("jobs_posted") > before + 200, 20, "requests are offloaded")
    assert process.poll() is None, "over before the fault: give them more tokens"
    return process


def expect_survival(model, requests, settings):
    """A killed worker changes nothing; a killed engine ends what it held, and the next one answers the same."""
    settings = dict(settings, **{"engine.offload": "always", "worker.arena_mb": 256})
    long = [dict(one, max_tokens=N_LONG) for one in requests]
    with Group(1, model, settings) as group:
        group.start()
        expected = tokens(group.run(long, seconds=120))
        process = begin(group, long)
        group.signal("attnd-0", signal.SIGKILL)
        group.start_program("attnd-0")
        assert tokens(group.run_end(process, 120)) == expected, "worker killed: other tokens"
        process = begin(group, long)
        group.signal("engine-0", signal.SIGKILL)
        group.start_program("engine-0")  # what was still queued waits for it
        group.wait_ready()
        code, done, _ = group.run_wait(process, 120)
        errors = [one["error"] for one in done if "error" in one]
        assert code != 0 and errors and all(one["retryable"] for one in errors), (code, done[:2])
        assert tokens(group.run(long, seconds=120)) == expected, "engine killed: other tokens"
        group.expect_all_free()


def test_family(family, folder, full):
    name = family["family"]
    model = tiny_model(folder, "--family", name, name=name + ".gguf")
    requests, ls = requests_of(family), ls_requests(32)
    f32 = {"engine.kv_type": "f32"}
    alone = run_alone(model, requests, ls, f32)
    expect_goldens(family, alone[0])
    run_beside(model, (f"always, {name}", 2, {"engine.offload": "always", **f32}, {}), requests, ls, alone)
    if not full:
        return
    alone = run_alone(model, requests, ls)
    run_beside(model, (f"always, F16, {name}", 2, {"engine.offload": "always"}, {}), requests, ls, alone)
    run_beside(model, (f"auto, {name}", 2, {"engine.offload": "auto", "engine.kv_blocks": 26}, {}), requests, ls, alone)
    expect_survival(model, requests, f32)


def main(full):
    with tempfile.TemporaryDirectory() as folder:
        for family in goldens():
            test_family(family, folder, full)
    print("ok")


if __name__ == "__main__":
    watchdog(1700 if sys.argv[1:] == ["full"] else 280)
    main(sys.argv[1:] == ["full"])
