#!/usr/bin/env python3
"""Whatever fails is said clearly and soon, and concerns nobody else.

Engine and router killed (clients know within 2 s; tested at five times that), the engine killed at every step of
posting and of its books, clients that break the protocol, do not read, or vanish."""

import os
import signal
import time

from omni_client import Client, hello, new_id, pack
from omni_e2e import PATIENCE, Group, LsLoad, wait_until, watchdog

KNOWN_WITHIN_S = 5 * 2
SLOW_CLIENT_MS = 500
LONG = {"max_tokens": 1900, "ignore_eos": True}
BE = [dict(LONG, tokens=[i, 1, 2, 3]) for i in range(8)]  # of either class; they take seconds
SHORT = [dict(LONG, tokens=[i, 1, 2, 3], max_tokens=40) for i in range(8)]
LS = [dict(LONG, prompt="a chat", max_tokens=40)]
# Of the running engine, at the given pass; of the engine's start; of the first start, which makes the segments.
RUN_STEPS = {"job_engine.fields_written": 100, "job_engine.posted": 100, "job_engine.hinted": 100,
             "job_engine.before_free": 100, "job_engine.taken": 100, "directory.fields": 3,
             "directory.generation": 3, "directory.acquired": 3, "directory.state": 3, "directory.blocks": 3,
             "directory.logged": 20, "directory.committed": 20}
START_STEPS = ["job_engine.epoch_raised", "job_engine.freed_one"]
CREATE_STEPS = ["segment.created", "segment.allocated", "segment.header", "segment.ready", "segment.published"]


def tokens(done):
    return [one["tokens"] for one in done]


def under_way(group, *classes):
    """Clients, by class, whose generations have all begun."""
    clients = {cls: group.run_begin(BE, cls) for cls in classes}
    wait_until(lambda: n_running(group) >= len(BE) * len(classes), 20, "generations under way")
    return clients


def n_running(group):
    return group.status()["requests"]["running"]


def expect_death(group, name, what):
    process = group.running[name]
    wait_until(lambda: process.poll() is not None, 20, f"{name} dies at {what}")
    assert process.returncode == -signal.SIGKILL, f"{name} at {what}: ended with {process.returncode}"
    del group.running[name]


def expect_errors(group, process, code, since, what):
    """The client ends soon, with a retryable error of this code for each request."""
    exit_code, done, err = group.run_wait(process, KNOWN_WITHIN_S)
    seconds = time.monotonic() - since
    assert exit_code == 1 and len(done) == len(BE), f"{what}: exit {exit_code}, {len(done)} results\n{err}"
    errors = {(one.get("error", {}).get("code"), one.get("error", {}).get("retryable")) for one in done}
    assert errors == {(code, True)}, f"{what}: {errors}"
    assert code in err and seconds <= KNOWN_WITHIN_S * PATIENCE, f"{what}: {seconds:.1f} s\n{err}"
    return seconds


def expect_serves(group, expected):
    group.wait_ready()
    for cls in ("be", "ls"):
        assert tokens(group.run(SHORT, cls)) == expected, f"other tokens ({cls})"
    group.expect_all_free()


def test_killed(group, name, code, expected):
    clients = under_way(group, "be", "ls")
    killed = time.monotonic()
    group.signal(name, signal.SIGKILL)
    seconds = {cls: expect_errors(group, process, code, killed, name) for cls, process in clients.items()}
    if name == "router":
        done = group.omni("run", "--prompt-file", group.config)
        assert done.returncode == 1 and "no router answers" in done.stderr, done
    group.start_program(name)
    expect_serves(group, expected)
    print(f"   {name} killed: clients knew after " +
          ", ".join(f"{value:.2f} s ({cls})" for cls, value in seconds.items()), flush=True)


def test_engine_steps(group, expected):
    for label, n in RUN_STEPS.items():
        group.signal("engine-0", signal.SIGTERM)
        group.start_program("engine-0", {"OMNI_FAULT": f"{label}:{n}"})
        group.wait_ready()
        process = group.run_begin(SHORT)
        expect_death(group, "engine-0", label)
        expect_lost(group, process, label)
        group.start_program("engine-0")
        expect_serves(group, expected)
    for label in START_STEPS:
        group.signal("engine-0", signal.SIGKILL)
        group.start_program("engine-0", {"OMNI_FAULT": label})
        expect_death(group, "engine-0", label)
        group.start_program("engine-0")
        expect_serves(group, expected)
    print(f"   {len(RUN_STEPS) + len(START_STEPS)} steps", flush=True)


def expect_lost(group, process, label):
    """Requests that had ended before the kill have their tokens, all others the engine's loss."""
    code, done, err = group.run_wait(process, KNOWN_WITHIN_S)
    lost = [one for one in done if one["finish_reason"] == "error"]
    assert code == 1 and len(done) == len(SHORT) and lost, f"{label}: exit {code}\n{err}"
    assert {one["error"]["code"] for one in lost} == {"engine_lost"}, f"{label}: {lost}"


def test_worker_acknowledges(group, expected):
    """A worker that dies just before it acknowledges a new engine: the engine sees it dead and goes on."""
    group.signal("attnd-0", signal.SIGTERM)
    group.start_program("attnd-0", {"OMNI_FAULT": "job_worker.before_ack"})
    group.wait_ready()
    group.signal("engine-0", signal.SIGKILL)
    group.start_program("engine-0")
    expect_death(group, "attnd-0", "job_worker.before_ack")
    group.start_program("attnd-0")
    expect_serves(group, expected)


def test_first_start():
    """Killed while it makes its segments: the next engine is not taken in by what was left."""
    for label in CREATE_STEPS:
        with Group(1, settings={"engine.offload": "always"}) as group:
            group.start_program("engine-0", {"OMNI_FAULT": f"{label}:2"})
            expect_death(group, "engine-0", label)
            group.start()
            group.run(SHORT)


def test_other_layout():
    """Segments that do not fit the configuration any more are made anew, and the log says what was found."""
    with Group(1, settings={"engine.offload": "always"}) as group:
        group.start()
        expected = tokens(group.run(SHORT))
        assert "segment_replaced" not in group.log("engine-0", 100), group.log("engine-0", 100)
        group.signal("engine-0", signal.SIGTERM)
        group.write_config({"engine.offload": "always", "worker.slots": 16})
        group.start_program("engine-0")
        expect_serves(group, expected)
        log = group.log("engine-0", 100)
        assert "segment_replaced" in log and "expected 16 slots" in log and "found 64" in log, log


def expect_bad(client, data, field=None):
    client.send_bytes(data)
    answer = client.receive(5)
    assert answer and answer["t"] == "error" and answer["code"] == "bad_request", answer
    assert not answer["retryable"] and (field is None or answer.get("field") == field), answer


def test_protocol(group):
    answer = hello(group, version=99)
    assert answer["t"] == "error" and answer["code"] == "unsupported_version" and "99" in answer["message"], answer
    for garbage in (b"", b"\xc1", b"hello", pack({"t": "ping", "epoch": 0}), pack({"t": "hello"}), os.urandom(300)):
        answer = hello(group, message=garbage)
        assert answer and answer["t"] == "error" and answer["code"] == "bad_request", (garbage, answer)
    generate = {"t": "generate", "id": new_id(), "class": "be", "prompt": "x", "max_tokens": 4}
    bad = {"max_tokens": "four", "prompt": 7, "class": "no such class", "temperature": -1.0, "id": b"short",
           "tokens": [1, "2"], "top_p": 1.5}
    with Client(group) as client:
        for field, value in bad.items():
            with Client(group) as another:
                expect_bad(another, pack(dict(generate, **{field: value})), None if field == "tokens" else field)
        expect_bad(client, pack(dict(generate, unheard_of=1)), "unheard_of")
        expect_bad(client, pack({key: value for key, value in generate.items() if key != "id"}), "id")
        expect_bad(client, pack(generate) + b"\0")
        expect_bad(client, os.urandom(64))
        client.send(generate)
        while (answer := client.receive(5))["t"] == "tokens":
            pass
        assert answer["t"] == "done" and answer["reason"] == "length" and answer["output_tokens"] == 4, answer


def test_slow_reader(group):
    """Does not read: disconnected after router.slow_client_ms, its requests end, others stream on."""
    before = group.status()["counters"]["clients_slow"]
    with Client(group, receive_buffer=4096) as client:
        for i in range(24):
            client.send({"t": "generate", "id": new_id(), "class": "be", "tokens": [i, 2], **LONG})
        started = time.monotonic()
        wait_until(lambda: group.status()["counters"]["clients_slow"] > before, 30, "slow reader disconnected")
        seconds = time.monotonic() - started
    bound = 5 * SLOW_CLIENT_MS / 1000 * PATIENCE  # its outbox (router.outbox_kb) is full within a tenth of that
    assert seconds <= bound, f"a slow reader stayed for {seconds:.1f} s, the bound is {bound:.1f} s"
    group.expect_all_free(20)
    print(f"   a slow reader was disconnected after {seconds:.1f} s", flush=True)


def test_vanished(group):
    """kill -9 of a client: its requests are cancelled, at once."""
    before = group.stats("cancelled")
    process = under_way(group, "be")["be"]
    process.kill()
    process.wait()
    started = time.monotonic()
    wait_until(lambda: group.stats("cancelled") == before + len(BE), KNOWN_WITHIN_S, "requests cancelled")
    print(f"   a client vanished: its requests were cancelled within {time.monotonic() - started:.2f} s", flush=True)
    group.expect_all_free()


def main():
    settings = {"engine.offload": "always", "router.slow_client_ms": SLOW_CLIENT_MS, "router.outbox_kb": 64}
    with Group(2, settings=settings) as group:
        group.start()
        expected = tokens(group.run(SHORT))
        print("1. engine and router killed", flush=True)
        test_killed(group, "engine-0", "engine_lost", expected)
        test_killed(group, "router", "router_lost", expected)
        print("2. the engine killed at every step", flush=True)
        test_engine_steps(group, expected)
        test_worker_acknowledges(group, expected)
        test_first_start()
        test_other_layout()
        print("3. clients that misbehave, beside LS chats", flush=True)
        with LsLoad(group, LS) as chats:
            test_protocol(group)
            test_slow_reader(group)
            test_vanished(group)
        print(f"   {chats.n_batches} LS batches beside", flush=True)
    print("ok")


if __name__ == "__main__":
    watchdog(240)
    main()
