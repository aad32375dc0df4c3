#!/usr/bin/env python3
"""A client in another language, written after proto/README.md alone (pynng_client.py): it chats, streams, runs best
effort, cancels, and survives a restart of the router.  Skipped without pynng and msgpack (PyPI)."""

import signal
import time

from omni_e2e import PATIENCE, Group, skip, wait_until, watchdog

try:
    from pynng_client import OmniClient, OmniError
except ImportError as missing:
    skip(f"{missing}: pip install pynng msgpack")

BE = [{"tokens": [i, 2, 3], "max_tokens": 40, "ignore_eos": True, "seed": i, "temperature": 0.8} for i in range(6)]


def test_chat(group, omni):
    assert omni.welcome["classes"] == ["ls", "be"] and omni.welcome["n_ctx"] > 0, omni.welcome
    turn = [{"role": "user", "content": "hello, caf\u00e9"}]
    pieces = list(omni.stream(messages=turn, max_tokens=60, ignore_eos=True))
    done = group.run([{"messages": turn, "max_tokens": 60, "ignore_eos": True}], "ls")[0]
    assert len(pieces) > 1 and "".join(pieces) == done["text"], (pieces, done["text"])
    print(f"   a chat of {len(pieces)} pieces", flush=True)


def test_best_effort(group, omni):
    ids = [omni.start("be", **one) for one in BE]
    out = omni.collect(*ids)
    expected = group.run(BE)
    assert [out[one][1] for one in ids] == [one["tokens"] for one in expected]
    assert all(out[one][2]["worker_tokens"] > 0 for one in ids), out


def test_cancel(omni):
    one = omni.start("be", tokens=[1, 2], max_tokens=1900, ignore_eos=True)
    while not any(item["id"] == one for item in omni.receive().get("items", [])):
        pass
    omni.cancel(one)
    done = omni.collect(one)[one][2]
    assert done["reason"] == "cancelled" and 0 < done["output_tokens"] < 1900, done


def test_refused(omni):
    for field, value in (("max_tokens", 0), ("class", "no such"), ("top_p", 2.0), ("min_tokens", 50)):
        request = {"tokens": [1], "max_tokens": 4, **({} if field == "class" else {field: value})}
        one = omni.start(value if field == "class" else "be", **request)
        error = omni.collect(one)[one][2]
        assert isinstance(error, OmniError) and error.code == "bad_request" and error.field == field, (field, error)


def test_router_restart(group, omni):
    one = omni.start("be", tokens=[1, 2], max_tokens=1900, ignore_eos=True)
    omni.receive()
    epoch = omni.welcome["epoch"]
    killed = time.monotonic()
    group.signal("router", signal.SIGKILL)
    try:
        omni.collect(one)
        raise AssertionError("the loss of the router went unnoticed")
    except ConnectionError as lost:
        seconds = time.monotonic() - killed
        print(f"   {lost} after {seconds:.1f} s", flush=True)
        assert seconds <= 5 * 2 * PATIENCE
    group.start_program("router")
    group.wait_ready()
    omni.close()
    omni.connect()
    assert omni.welcome["epoch"] != epoch
    ask = dict(BE[0])
    again = omni.start("be", **ask)
    assert omni.collect(again)[again][1] == group.run([ask])[0]["tokens"]


def main():
    with Group(1, settings={"engine.offload": "always"}) as group:
        group.start()
        with OmniClient(group.run_dir) as omni:
            test_chat(group, omni)
            test_best_effort(group, omni)
            test_cancel(omni)
            test_refused(omni)
            test_router_restart(group, omni)
        wait_until(lambda: group.status()["counters"]["sessions"] <= 1, 10, "the session has ended")
        group.expect_all_free()
    print("ok")


if __name__ == "__main__":
    watchdog(100)
    main()
