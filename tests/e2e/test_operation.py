#!/usr/bin/env python3
"""What an operator does: watch, read the pages of programs that do not answer, change the log level, end programs."""

import json
import os
import select
import signal
import subprocess
import time

import omni_shm
from omni_client import Client, hello, new_id
from omni_e2e import PATIENCE, Group, program, wait_until, watchdog

SETTINGS = {"engine.offload": "always", "router.outbox_kb": 64, "router.slow_client_ms": 60000}
LONG = [{"tokens": [i, 1, 2, 3], "max_tokens": 1900, "ignore_eos": True} for i in range(6)]
SHORT = [dict(one, max_tokens=24) for one in LONG]
FRAME = b"\033[H\033[2J"


def tokens(done):
    return [one["tokens"] for one in done]


class Watch:
    """`omni status --watch`, read as it comes."""

    def __init__(self, group, *options):
        self.process = subprocess.Popen([program("omni"), "status", "--watch", "--config", group.config, *options],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.text = b""

    def expect(self, condition, what):
        end = time.monotonic() + 20 * PATIENCE
        while not condition(self.text):
            assert time.monotonic() < end, f"{what}: {self.text[-1000:]}"
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                self.text += os.read(self.process.stdout.fileno(), 65536)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(10 * PATIENCE)
        self.process.stdout.close()
        return code


def objects_of(text):
    """Whole JSON objects at the beginning of a stream of them."""
    decoder, text, out = json.JSONDecoder(), text.decode().lstrip(), []
    try:
        while text:
            value, end = decoder.raw_decode(text)
            out.append(value)
            text = text[end:].lstrip()
    except ValueError:
        pass
    return out


def test_watch(group):
    """A frame a second until Ctrl-C, also while the router is away."""
    watch = Watch(group)
    watch.expect(lambda text: text.count(FRAME) >= 2 and text.count(b"engines") >= 2, "two frames")
    group.signal("router", signal.SIGKILL)
    seen = len(watch.text)
    watch.expect(lambda text: text.count(FRAME, seen) >= 2, "frames without a router")
    group.start_program("router")
    group.wait_ready()
    seen = len(watch.text)
    watch.expect(lambda text: b"engines" in text[seen:], "the router's answers again")
    assert watch.stop() == 0, "Ctrl-C ends it"
    watch = Watch(group, "--json")
    watch.expect(lambda text: len(objects_of(text)) >= 2, "two objects")
    assert watch.stop() == 0 and all(one["ready"] for one in objects_of(watch.text)), watch.text


def test_pages(group):
    """Every program stands still: the tool reads their pages, and asks nobody."""
    finished = group.stats("finished")
    for process in group.running.values():
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        done = group.omni("status", "--json", timeout=30 * PATIENCE)
    finally:
        for process in group.running.values():
            process.send_signal(signal.SIGCONT)
    status = json.loads(done.stdout)
    assert done.returncode == 3 and time.monotonic() - began < 15 * PATIENCE, done
    pages = {one["program"]: one for one in status["pages"]}
    assert set(pages) == {"router", "gpu-engine", "cpu-attnd"} and pages["gpu-engine"]["finished"] == finished, pages
    group.wait_ready()


def logged(group):
    """What the router logs now of (a session that nobody dials, a request that ends): levels info and debug."""
    text, before = group.log("router", 10000), omni_shm.stats(group.segments, "router")["sessions_not_dialled"]
    assert hello(group)["t"] == "welcome"
    group.run(SHORT[:1])
    wait_until(lambda: omni_shm.stats(group.segments, "router")["sessions_not_dialled"] > before, 20, "a lease ended")
    new = group.log("router", 10000)[len(text):]
    return "session_ended" in new, "request_ended" in new


def test_level(group):
    """log.level at run time, from the reload on."""
    for level, expected in (("warn", (False, False)), ("debug", (True, True)), ("info", (True, False))):
        group.write_config(dict(SETTINGS, **{"log.level": level}))
        group.signal("router", signal.SIGHUP)
        wait_until(lambda said=expected: logged(group) == said, 30, f"the log at level {level}")
    group.write_config(SETTINGS)


def router_page(group):
    return omni_shm.stats(group.segments, "router")


def test_reload(group):
    """What else the router takes over while it runs, by its effect: both would take a minute as they were."""
    def reload(**values):
        group.write_config(dict(SETTINGS, **{f"router.{key}": value for key, value in values.items()}))
        group.signal("router", signal.SIGHUP)
    group.run(SHORT)
    wait_until(lambda: router_page(group)["requests_held"] >= len(SHORT), 20, "results are kept")
    reload(result_keep_s=1)
    wait_until(lambda: router_page(group)["requests_held"] == 0, 20, "results are kept for a second")
    before = router_page(group)["clients_slow"]
    with Client(group, receive_buffer=4096) as client:
        for i in range(24):
            client.send({"t": "generate", "id": new_id(), "class": "be", **LONG[0], "tokens": [i, 2]})
        wait_until(lambda: group.stats("running") + group.stats("resident") > 0, 20, "tokens flow")
        reload(slow_client_ms=200)
        wait_until(lambda: router_page(group)["clients_slow"] > before, 20, "a client may be slow for 200 ms")
    group.expect_all_free(20)
    group.write_config(SETTINGS)
    group.signal("router", signal.SIGHUP)


def under_way(group, requests):
    group.expect_all_free(20)  # or a gauge that still shows what ran before would be taken for these
    process = group.run_begin(requests)
    wait_until(lambda: group.stats("running") + group.stats("resident") >= len(requests), 20, "all are under way")
    return process


def end_program(group, name):
    process = group.running[name]
    began = time.monotonic()
    group.signal(name, signal.SIGTERM)
    assert process.returncode == 0, f"{name} ended with {process.returncode} on SIGTERM\n{group.log(name)}"
    return time.monotonic() - began


def test_end(group, name, codes):
    """SIGTERM under load: it ends with status 0 and without being killed; clients are told at once."""
    expected = tokens(group.run(SHORT))
    client = under_way(group, LONG)
    seconds = end_program(group, name)
    code, done, err = group.run_wait(client)
    said = {(one.get("error", {}).get("code"), one.get("error", {}).get("retryable")) for one in done}
    assert code == 1 and len(done) == len(LONG) and {one for one, _ in said} <= codes, f"{name}: {said}\n{err}"
    assert all(retryable for _, retryable in said), said
    group.start_program(name)
    group.wait_ready()
    assert tokens(group.run(SHORT)) == expected
    print(f"   {name} ended {seconds:.2f} s after SIGTERM under load; clients: {sorted(codes)}", flush=True)


def test_end_of_worker(group):
    """Its jobs wait for the next one: the same tokens as without."""
    expected = tokens(group.run(LONG))
    client = under_way(group, LONG)
    seconds = end_program(group, "attnd-0")
    group.start_program("attnd-0")
    assert tokens(group.run_end(client)) == expected, "other tokens after a worker's end"
    print(f"   attnd-0 ended {seconds:.2f} s after SIGTERM under load", flush=True)


def test_goodbye(group):
    """The router's last word to an idle client."""
    with Client(group) as client:
        client.send({"t": "status", "seq": 1})
        assert client.receive(10 * PATIENCE)["t"] == "status_reply"
        group.running["router"].send_signal(signal.SIGTERM)  # and listen meanwhile: what is unread goes with the link
        message = client.receive(10 * PATIENCE)
        assert (message["t"], message["code"], message["retryable"]) == ("error", "shutting_down", True), message
        end_program(group, "router")
    group.start_program("router")
    group.wait_ready()


def main():
    with Group(1, settings=SETTINGS) as group:
        group.start()
        group.run(SHORT)
        for test in (test_watch, test_pages, test_level, test_reload, test_end_of_worker, test_goodbye):
            print(test.__name__[5:].replace("_", " "), flush=True)
            test(group)
        test_end(group, "engine-0", {"engine_lost", "shutting_down"})
        test_end(group, "router", {"router_lost", "shutting_down"})
        group.expect_all_free()
    print("ok")


if __name__ == "__main__":
    watchdog(150)
    main()
