#!/usr/bin/env python3
"""The omni command line as scripts use it: inputs, JSON fields and their types, exit codes, what wrong use is told."""

import json
import os
import signal
import struct
import subprocess

from omni_e2e import Group, demo_path, program, wait_until, watchdog

MAYBE = (int, float, type(None))
FIELDS = {"id": str, "class": str, "prompt_tokens": int, "output_tokens": int, "ttft_ms": MAYBE, "tpot_ms": MAYBE,
          "device_tokens": int, "worker_tokens": int, "ridealong_jobs": int, "parked_jobs": int,
          "finish_reason": str, "tokens": list, "text": str}


def check_result(one, cls, n_tokens):
    for key, kind in FIELDS.items():
        assert key in one and isinstance(one[key], kind) and not isinstance(one[key], bool), (key, one)
    assert one["class"] == cls and one["output_tokens"] == len(one["tokens"]) == n_tokens, one
    assert all(isinstance(token, int) and token >= 0 for token in one["tokens"]), one
    assert one["device_tokens"] + one["worker_tokens"] == n_tokens, one
    assert (one["tpot_ms"] is None) == (n_tokens < 2) and (one["ttft_ms"] is None) == (n_tokens == 0), one
    assert one["ttft_ms"] is None or one["ttft_ms"] > 0, one
    assert len(one["id"]) == 32 and int(one["id"], 16) >= 0, one
    assert one.get("seed", 0) >= 0, one


def write(group, name, text):
    path = os.path.join(group.dir, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def lines(group, name, requests):
    return write(group, name, "".join(json.dumps(one) + "\n" for one in requests))


def run(group, path, *options, code=0):
    done = group.omni("run", "--prompt-file", path, *options)
    assert done.returncode == code, done
    return done


def results(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_jsonl(group):
    requests = [{"prompt": "one", "max_tokens": 5}, {"tokens": [1, 2, 3], "max_tokens": 1},
                {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
                 "max_tokens": 7},
                {"prompt": "four", "max_tokens": 9, "class": "ls", "temperature": 0.7, "seed": 3}]
    path = lines(group, "mixed.jsonl", [dict(one, ignore_eos=True) for one in requests])
    # What the command line gives goes before what the lines give.
    assert {one["class"] for one in results(run(group, path, "--class", "ls", "--json"))} == {"ls"}
    done = results(run(group, path, "--json"))
    assert len(done) == 4, done
    for one, request in zip(done, requests):
        check_result(one, request.get("class", "be"), request["max_tokens"])
        assert one["finish_reason"] == "length", one
    assert done[1]["prompt_tokens"] == 3 and done[2]["prompt_tokens"] > done[0]["prompt_tokens"], done
    assert len({one["id"] for one in done}) == 4
    # A drawn seed is told, and gives the same output when it is asked for.
    line = {"prompt": "seed", "max_tokens": 16, "temperature": 1.0, "ignore_eos": True}
    for _ in range(4):
        first = results(run(group, lines(group, "seed.jsonl", [line]), "--json"))[0]
        check_result(first, "be", 16)
        again = results(run(group, lines(group, "seed.jsonl", [dict(line, seed=first["seed"])]), "--json"))[0]
        assert again["tokens"] == first["tokens"], (first, again)


def test_raw_and_chat(group):
    path = write(group, "raw.txt", "A raw prompt,\nof two lines.\n")
    options = ["--max-tokens", "6", "--ignore-eos"]
    raw = results(run(group, path, "--json", "--class", "ls", *options))[0]
    chat = results(run(group, path, "--json", "--class", "ls", "--chat", *options))[0]
    check_result(raw, "ls", 6)
    check_result(chat, "ls", 6)
    # The template adds its turns around the prompt; it is the same as the message given as such, which does not
    # have the newline that ends the file.
    assert chat["prompt_tokens"] > raw["prompt_tokens"], (raw, chat)
    turn = {"messages": [{"role": "user", "content": "A raw prompt,\nof two lines."}]}
    same = results(run(group, lines(group, "turn.jsonl", [turn]), "--json", "--class", "ls", *options))[0]
    assert same["tokens"] == chat["tokens"] and same["prompt_tokens"] == chat["prompt_tokens"], (same, chat)
    streamed = run(group, path, "--class", "ls", *options).stdout
    assert streamed.rstrip("\n") == raw["text"].rstrip("\n"), (streamed, raw["text"])


def wait_until_running(group):
    """The router's word: the engine's gauges may still be those of the run before."""
    wait_until(lambda: group.status()["requests"]["running"] > 0, 10, "requests run")


def test_ends(group):
    """Stop strings end the output before their text; Ctrl-C ends it as cancelled."""
    line = {"prompt": "stop", "max_tokens": 40, "ignore_eos": True}
    text = results(run(group, lines(group, "a.jsonl", [line]), "--json"))[0]["text"]
    stop = next(text[i:i + 1] for i in range(3, len(text)) if text[i].isascii() and text[i].isprintable())
    one = results(run(group, lines(group, "a.jsonl", [dict(line, stop=[stop])]), "--json"))[0]
    assert one["finish_reason"] == "stop" and one["text"] == text[:text.index(stop)], (one, text, stop)
    process = group.run_begin([{"tokens": [1], "max_tokens": 1900, "ignore_eos": True}] * 4)
    wait_until_running(group)
    process.send_signal(signal.SIGINT)
    code, done, _ = group.run_wait(process)
    assert code == 130 and {one["finish_reason"] for one in done} <= {"cancelled", "length"}, (code, done)


def test_cancel(group):
    """Another terminal cancels by id: both hear of it; the request beside it goes on to its end."""
    ids = ["%032x" % n for n in (1, 2)]
    process = group.run_begin([{"tokens": [1], "max_tokens": 1900, "ignore_eos": True, "id": ids[0]},
                               {"tokens": [1], "max_tokens": 20, "ignore_eos": True, "id": ids[1]}])
    wait_until_running(group)
    done = group.omni("cancel", ids[0])
    assert done.returncode == 0 and ids[0] in done.stdout and "cancelled" in done.stdout, done
    first, second = group.run_end(process)
    assert (first["id"], first["finish_reason"]) == (ids[0], "cancelled") and "error" not in first, first
    assert (second["finish_reason"], second["output_tokens"]) == ("length", 20), second
    again = group.omni("cancel", ids[1])
    assert again.returncode == 1 and "length" in again.stderr, again
    never = group.omni("cancel", "f" * 32)
    assert never.returncode == 1 and "not_found" in never.stderr, never


def test_wrong_use(group):
    assert group.omni("run").returncode == 2
    assert group.omni("run", "--no-such-option").returncode == 2
    assert group.omni("no-such-command").returncode == 2
    done = group.omni("run", "--prompt-file", os.path.join(group.dir, "absent.jsonl"))
    assert done.returncode == 1 and "absent.jsonl" in done.stderr, done
    for line, word in (("{", "JSON"), ('{"promt": "x"}', "promt"), ('{"prompt": 3}', "prompt"),
                       ('{"prompt": "x", "tokens": [1]}', "one of")):
        done = run(group, write(group, "bad.jsonl", '{"prompt": "fine"}\n' + line + "\n"), code=1)
        assert word in done.stderr and ":2" in done.stderr or "line 2" in done.stderr, done
    path = lines(group, "long.jsonl", [{"prompt": "x", "max_tokens": 10 ** 6}, {"prompt": "y", "max_tokens": 2}])
    done = run(group, path, "--json", code=1)
    first, second = results(done)
    assert first["finish_reason"] == "error" and first["error"]["code"] == "too_long", first
    assert first["error"]["retryable"] is False and second["output_tokens"] <= 2, (first, second)


def test_status(group):
    done = group.omni("status", "--json")
    status = json.loads(done.stdout)
    assert done.returncode == 0 and status["ready"] is True, done
    worker = status["engines"][0]["workers"][0]
    for where, key, kind in ((status, "model", dict), (status, "queues", list), (status["router"], "pid", int),
                             (status["engines"][0]["kv"], "total", int), (status["engines"][0], "pid", int),
                             (worker, "state", str), (worker, "arena_bytes", int), (worker, "huge_bytes", int)):
        assert isinstance(where.get(key), kind), (key, where)
    assert {one["class"] for one in status["queues"]} == {"ls", "be"}, status
    pids = {(one["program"], one["index"]): one["pid"] for one in status["processes"]}
    assert pids == {("router", 0): group.running["router"].pid, ("gpu-engine", 0): group.running["engine-0"].pid,
                    ("cpu-attnd", 0): group.running["attnd-0"].pid}, (status["processes"], group.running)
    assert worker["pid"] == pids["cpu-attnd", 0], worker
    assert "engines" in group.omni("status").stdout


def test_status_without_router(group):
    group.signal("router", signal.SIGTERM)
    done = group.omni("status", "--json")
    status = json.loads(done.stdout)
    assert done.returncode == 3 and status["router"] is None and status["pages"], done
    pids = {one["program"]: one["pid"] for one in status["processes"] if one["state"] == "running"}
    assert pids == {"gpu-engine": group.running["engine-0"].pid, "cpu-attnd": group.running["attnd-0"].pid}, status
    assert any(page["program"] == "gpu-engine" and page.get("finished", 0) > 0 for page in status["pages"]), status


def jobs_of(group, *options):
    done = group.omni("status", "--jobs", *options)
    assert done.returncode == 0, done
    return json.loads(done.stdout) if options else done.stdout


def check_jobs(group, n_sequences):
    """What the slots name is what the directory holds; the posted slots, by (slot, generation)."""
    looked = jobs_of(group, "--json")
    (table,), (directory,) = looked["tables"], looked["directories"]
    assert not looked["unreadable"] and (table["engine"], table["worker"], directory["engine"]) == (0, 0, 0), looked
    sequences = {(one["sequence"], one["generation"]): one for one in directory["sequences"]}
    assert len(sequences) == n_sequences and table["slots"] and table["n_free"] > 0, looked
    for slot in table["slots"]:
        sequence = sequences[slot["sequence"], slot["sequence_generation"]]
        where = sequence["groups"][0]
        assert slot["state"] in ("posted", "done") and slot["epoch"] == table["engine_epoch"], slot
        assert sequence["slot"] == slot["slot"] and where["state"] == "resident" and where["worker"] == 0, looked
        assert where["blocks"] * 32 >= sequence["committed"] >= sequence["prompt_tokens"], sequence
        assert slot["pos"] == sequence["committed"] and slot["n_q"] == 1 and slot["age_ms"] > 0, (slot, sequence)
        assert slot["deadline_ms"] is None or slot["deadline_ms"] < 1e5, slot
    return {(one["slot"], one["generation"]) for one in table["slots"] if one["state"] == "posted"}, table


def test_status_jobs(group):
    """Jobs that are out at a worker that stands still, before and after its engine was killed.  Ends the group."""
    requests = [{"tokens": [i, 1, 2], "max_tokens": 1900, "ignore_eos": True} for i in range(4)]
    client = group.run_begin(requests)
    wait_until(lambda: group.status()["engines"][0]["offloaded"] == len(requests), 20, "all offloaded")
    group.signal("attnd-0", signal.SIGSTOP)
    wait_until(lambda: jobs_of(group).count("state=posted") == len(requests), 10, "a job of each is out")
    before, table = check_jobs(group, len(requests))
    assert table["worker_pid"] == group.running["attnd-0"].pid and table["posted"] > table["done"] > 0, table
    assert "state=posted" in jobs_of(group) and "state=resident" in jobs_of(group)
    group.signal("engine-0", signal.SIGKILL)
    after, table = check_jobs(group, len(requests))
    assert after == before and table["beat_ms"] > 0, (before, after)
    client.kill()
    client.wait()
    nobody = subprocess.run([program("omni"), "status", "--jobs", "--group", "no-such-group"], capture_output=True,
                            text=True, check=False)
    assert nobody.returncode == 3 and "no job slots" in nobody.stderr, nobody


def test_config(group):
    bad = os.path.join(group.dir, "bad.ini")
    with open(group.config, encoding="utf-8") as good, open(bad, "w", encoding="utf-8") as file:
        file.write(good.read().replace("kv_mb", "kv_mbb"))
    for command in (["omni-router", "--check-config"], ["omni-gpu-engine", "--check-config"],
                    ["omni-cpu-attnd", "--check-config"], ["omni", "status"]):
        done = subprocess.run([program(command[0]), *command[1:], "--config", bad], capture_output=True, text=True,
                              check=False)
        said = done.stdout + done.stderr
        assert done.returncode > 0 and "kv_mbb" in said and "engine.kv_mb" in said.replace("kv_mbb", ""), done


def tokenize(model, text, *options):
    done = subprocess.run([program("omni"), "tokenize", "--model", model, *options], input=text.encode(),
                          capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 1, done
    return [int(one) for one in done.stdout.split()]


class Gguf:
    """Walks over a GGUF file's keys, only to find where they end."""

    SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    STRING, ARRAY = 8, 9

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 24
        for _ in range(struct.unpack_from("<Q", self.data, 16)[0]):
            self.skip(self.STRING)
            self.skip(self.number("<I"))

    def number(self, layout):
        self.at += struct.calcsize(layout)
        return struct.unpack_from(layout, self.data, self.at - struct.calcsize(layout))[0]

    def skip(self, kind):
        if kind == self.STRING:
            n = self.number("<Q")
            self.at += n
        elif kind == self.ARRAY:
            kind, n = self.number("<I"), self.number("<Q")
            for _ in range(n):
                self.skip(kind)
        else:
            self.at += self.SIZES[kind]

    def without_tensors(self):
        return self.data[:8] + struct.pack("<Q", 0) + self.data[16:self.at]


def test_tokenize(group):
    texts = ["Hello world", "Grüße, 北京! 🙂\n\n  x=1", ""]
    for model in filter(None, [group.model, demo_path()]):
        only = os.path.join(group.dir, "vocabulary.gguf")
        with open(only, "wb") as file:
            file.write(Gguf(model).without_tensors())
        for text in texts:
            assert tokenize(model, text) == tokenize(only, text), text
            assert (tokenize(model, text) == []) == (text == ""), text
        plain, special = (tokenize(only, "<|im_end|>", *options) for options in ([], ["--special"]))
        assert len(special) == 1 and len(plain) > 1, (plain, special)
    if demo_path():
        assert tokenize(demo_path(), "Hello world") == [19556, 905]
    done = subprocess.run([program("omni"), "tokenize", "--model", group.config], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and group.config in done.stderr, done


def main():
    with Group(1, settings={"engine.offload": "always"}) as group:
        group.start()
        for test in (test_jsonl, test_raw_and_chat, test_ends, test_cancel, test_wrong_use, test_status, test_config,
                     test_tokenize, test_status_without_router):
            print(test.__name__[5:].replace("_", " "), flush=True)
            test(group)
    with Group(1, settings={"engine.offload": "always"}) as group:
        group.start()
        print("status of jobs", flush=True)
        test_status_jobs(group)
    print("ok")


if __name__ == "__main__":
    watchdog(90)
    main()
