#!/usr/bin/env python3
"""Only the engine stands still, for longer than its lease (swapped out, stopped by a debugger), and goes on.

Clients are told within 2 s (tested at five times that) that it is lost, and ask again under the same ids: they get
the right tokens, although the engine still had the requests when it woke.  Nothing of the first attempt runs on,
and what admission had promised to it is given back."""

import os
import signal
import time

from omni_client import Client, new_id
from omni_e2e import PATIENCE, Group, wait_until, watchdog

STALL_S, KNOWN_WITHIN_S = 3, 5 * 2
N_EACH, N_TOKENS = 4, 1900
# LS admission promises 60 blocks to each: two attempts at a time have no room.
SETTINGS = {"engine.offload": "always", "engine.ctx_max": 2048, "engine.kv_blocks": 60 * N_EACH + 20,
            "worker.kill_ms": 0}
REQUESTS = [{"tokens": [7 + i, 8, 9], "max_tokens": N_TOKENS, "ignore_eos": True} for i in range(N_EACH)]


class Asked:
    """The requests of both classes, under ids of their own, and what has come of them."""

    def __init__(self, client):
        self.client = client
        self.what = {new_id(): {"t": "generate", "class": cls, **one} for cls in ("ls", "be") for one in REQUESTS}
        self.forget()

    def forget(self):
        self.tokens = {one: [] for one in self.what}
        self.ended = {}

    def ask(self):
        self.forget()
        for one in self.what:
            self.ask_one(one)

    def ask_one(self, one):
        self.client.send({**self.what[one], "id": one})

    def hear_answers(self, seconds):
        """Until all have ended; what is refused for now is asked again when the refusal says.  How many were."""
        n_refused = 0
        self.hear(self.all_ended, seconds, "all requests end")
        while refused := {key: one for key, one in self.ended.items() if one.get("code") == "overloaded"}:
            n_refused += len(refused)
            assert n_refused < 10 * len(self.what), f"refused again and again: {refused}"
            time.sleep(max(one["retry_after_ms"] for one in refused.values()) / 1000)
            for one in refused:
                del self.ended[one]
                self.ask_one(one)
            self.hear(self.all_ended, seconds, "all requests end")
        return n_refused

    def hear(self, condition, seconds, what):
        end = time.monotonic() + seconds * PATIENCE
        while not condition():
            message = self.client.receive(end - time.monotonic())
            assert message is not None, f"not within {seconds} s: {what}; ended: {self.ended}"
            if message["t"] == "tokens":
                for item in message["items"]:
                    assert item["index"] == len(self.tokens[item["id"]]), (what, item["index"])
                    self.tokens[item["id"]] += item["ids"]
            else:
                assert message["t"] in ("done", "error"), message
                self.ended[message["id"]] = message

    def all_ended(self):
        return len(self.ended) == len(self.what)


def expect_lost(asked, since):
    asked.hear(asked.all_ended, KNOWN_WITHIN_S, "all clients are told")
    seconds = time.monotonic() - since
    said = {(one["t"], one.get("code"), one.get("retryable")) for one in asked.ended.values()}
    assert said == {("error", "engine_lost", True)}, said
    return seconds


def stall(group, asked):
    """SIGSTOP for STALL_S, and the errors; seconds until they came."""
    os.kill(group.running["engine-0"].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    seconds = expect_lost(asked, stopped)
    time.sleep(max(0, STALL_S - (time.monotonic() - stopped)))
    os.kill(group.running["engine-0"].pid, signal.SIGCONT)
    return seconds


def expect_answers(asked, expected):
    n_refused = asked.hear_answers(60)
    said = {(one["t"], one.get("reason"), one.get("code")) for one in asked.ended.values()}
    assert said == {("done", "length", None)}, said
    assert list(asked.tokens.values()) == expected, "other tokens after the stall"
    return n_refused


def main():
    with Group(n_workers=1, settings=SETTINGS) as group:
        group.start()
        with Client(group) as client:
            asked = Asked(client)
            asked.ask()
            expect_answers(asked, list(asked.tokens.values()))
            expected = list(asked.tokens.values())
            assert expected[:N_EACH] == expected[N_EACH:], "LS and BE differ"
            group.expect_all_free()
            asked = Asked(client)
            before = group.stats()
            asked.ask()
            asked.hear(lambda: all(asked.tokens.values()), 20, "all requests have begun")
            seconds = stall(group, asked)
            asked.ask()  # at once: the engine may not have heard yet that it was given up
            n_refused = expect_answers(asked, expected)
        group.expect_all_free()
        wait_until(lambda: group.stats("cancelled") == before["cancelled"] + len(asked.what), 5,
                   f"the first attempt was cancelled: {group.stats()}")
        after = group.stats()
        assert after["finished"] == before["finished"] + len(asked.what) and after["failed"] == 0, (before, after)
        # All that may be promised is free again.
        assert [one["finish_reason"] for one in group.run(REQUESTS, "ls")] == ["length"] * N_EACH
    print(f"clients knew after {seconds:.2f} s; {n_refused} refused for now when they asked again; ok")


if __name__ == "__main__":
    watchdog(150)
    main()
