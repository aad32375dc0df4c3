#!/usr/bin/env python3
"""What a client may ask of sampling, from its door to the sampler and back: penalties, biases, least lengths, stop
tokens, log-probabilities, several answers; the same wherever attention runs and whoever is killed, and refused by the
name of the field where it makes no sense."""

import math
import os
import signal

from omni_client import Client, new_id, pack
from omni_e2e import Group, wait_until, watchdog

N = 48
EOS = 2  # of the tiny model's vocabulary
BASE = {"tokens": [7, 8, 9, 7, 8], "max_tokens": N, "ignore_eos": True, "seed": 5}
ASKED = [
    dict(BASE, temperature=0.9, repetition_penalty=1.4),
    dict(BASE, temperature=0.9, presence_penalty=2.0, frequency_penalty=0.5),
    dict(BASE, presence_penalty=30),  # greedy, and every token at most once
    dict(BASE, logit_bias=[{"token": 3, "bias": 500}]),
    dict(BASE, temperature=1, logit_bias=[{"token": i, "bias": -500} for i in range(128)]),
    dict(BASE, temperature=1, top_p=0.9, repetition_penalty=0.7, frequency_penalty=-0.3, logprobs=5),
]


def tokens(done):
    return [one["tokens"] for one in done]


def test_effects(group):
    done = group.run(ASKED)
    assert all(len(one["tokens"]) == N for one in done), done
    assert len(set(done[2]["tokens"])) == N, "a presence penalty of 30 lets nothing come twice"
    assert set(done[3]["tokens"]) == {3}, done[3]["tokens"]
    assert min(done[4]["tokens"]) >= 128, done[4]["tokens"]
    plain = group.run([dict(BASE, temperature=0.9)])[0]["tokens"]
    assert plain != done[0]["tokens"] and plain != done[1]["tokens"], "penalties change nothing"
    return tokens(done)


def test_logprobs(group):
    one = group.run([dict(BASE, logprobs=4)])[0]
    assert len(one["logprobs"]) == N, one
    for token, at in zip(one["tokens"], one["logprobs"]):
        ids, values = zip(*at["top"])
        # Greedy: the token drawn is the most likely one.
        assert len(ids) == 4 and ids[0] == token and abs(values[0] - at["logprob"]) < 1e-5, at
        assert list(values) == sorted(values, reverse=True) and sum(map(math.exp, values)) <= 1 + 1e-5, at
    # Of the model's own distribution, whatever is done to it before the draw.
    biased = group.run([dict(BASE, logprobs=1, logit_bias=[{"token": 3, "bias": 500}])])[0]
    assert biased["logprobs"][0]["top"][0] == one["logprobs"][0]["top"][0], (biased["logprobs"][0], one["logprobs"][0])
    assert biased["logprobs"][0]["logprob"] <= biased["logprobs"][0]["top"][0][1] + 1e-6
    alone = group.run([dict(BASE, logprobs=0)])[0]["logprobs"]
    assert [at["logprob"] for at in alone] == [at["logprob"] for at in one["logprobs"]]
    assert all(at["top"] == [] for at in alone)


def test_stops(group):
    """A stop token is not part of the output; before min_tokens it is not drawn, and no stop string ends it."""
    whole = group.run([BASE])[0]
    stop = whole["tokens"][10]
    first = whole["tokens"].index(stop)
    one = group.run([dict(BASE, stop_tokens=[stop])])[0]
    assert one["tokens"] == whole["tokens"][:first] and one["finish_reason"] == "stop", one
    later = group.run([dict(BASE, stop_tokens=[stop], min_tokens=20)])[0]
    assert len(later["tokens"]) >= 20 and stop not in later["tokens"][:20], later
    # The first text that is a stop string on its own, in the output of a greedy run.
    text = whole["text"]
    word = text[4:7]
    cut = group.run([dict(BASE, stop=[word])])[0]
    assert cut["finish_reason"] == "stop" and cut["text"] == text[:text.index(word)], (cut, text)
    kept = group.run([dict(BASE, stop=[word], min_tokens=N)])[0]
    assert kept["finish_reason"] == "length" and kept["text"] == text, kept
    test_stop_across_a_border(group, text)


def test_stop_across_a_border(group, text):
    """The last character of one token and the first of the next: neither of them is it alone."""
    whole = [one["text"] for one in group.run([dict(BASE, max_tokens=n) for n in range(1, N + 1)])]
    borders = [len(one) for one, more in zip(whole, whole[1:]) if 0 < len(one) < len(more) and text.startswith(one)]
    stops = {text[at - 1:at + 1]: at for at in borders if text.find(text[at - 1:at + 1]) == at - 1}
    assert len(stops) >= 3, (whole, text)
    for stop, at in stops.items():
        one = group.run([dict(BASE, stop=[stop])])[0]
        assert one["finish_reason"] == "stop" and one["text"] == text[:at - 1], (stop, one, text)


def test_end_of_text(group):
    """The model's own last token ends an answer, but not before min_tokens."""
    ask = {"tokens": BASE["tokens"], "max_tokens": N, "seed": 5, "logit_bias": [{"token": EOS, "bias": 500}]}
    at_once, later = group.run([ask, dict(ask, min_tokens=20)])
    assert at_once["finish_reason"] == "stop" and at_once["tokens"] == [], at_once
    assert later["finish_reason"] == "stop" and len(later["tokens"]) == 20 and EOS not in later["tokens"], later


N_DRAWS, N_ANSWERS = 1024, 64
DRAWN = [  # which of the likeliest tokens are kept, and how they are weighed
    {"temperature": 2.0, "top_k": 8},
    {"temperature": 3.0, "top_k": 12, "top_p": 0.8},
    {"temperature": 3.0, "top_k": 16, "min_p": 0.2},
]


def expected_shares(top, how):
    """The distribution that these settings mean, from the model's own log-probabilities, best first."""
    weights = [math.exp(value / how["temperature"]) for _, value in top[:how["top_k"]]]
    weights = [one for one in weights if one >= how.get("min_p", 0) * weights[0]]
    total, kept = sum(weights), []
    for one in weights:
        if sum(kept) < how.get("top_p", 1) * total:
            kept.append(one)
    return {token: one / sum(kept) for (token, _), one in zip(top, kept)}


def test_distribution(group):
    """First tokens of many seeds, counted at the door, by chi-square (99.9 %, Wilson and Hilferty)."""
    ask = {"tokens": BASE["tokens"], "max_tokens": 1, "ignore_eos": True}
    top = group.run([dict(ask, logprobs=20)])[0]["logprobs"][0]["top"]
    for how in DRAWN:
        shares = expected_shares(top, how)
        asked = [dict(ask, seed=1000 + at, **how) for at in range(0, N_DRAWS, N_ANSWERS)]
        options = ["--n", str(N_ANSWERS), "--concurrency", "128"]
        drawn = [one["tokens"][0] for one in group.run(asked, options=options)]
        assert len(drawn) == N_DRAWS and set(drawn) <= set(shares), (how, set(drawn) - set(shares))
        chi_square = sum((drawn.count(token) - share * N_DRAWS) ** 2 / (share * N_DRAWS)
                         for token, share in shares.items())
        free = len(shares) - 1
        assert free >= 2 and min(shares.values()) * N_DRAWS >= 5, (how, shares)
        limit = free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3
        assert chi_square < limit, f"{how}: chi-square {chi_square:.1f} over {limit:.1f}, {free} degrees of freedom"


def read_answers(client, ids):
    """Tokens of each id until each has ended."""
    out, open_ids = {one: [] for one in ids}, set(ids)
    while open_ids:
        message = client.receive(20)
        assert message is not None, f"no end of {open_ids}"
        for item in message.get("items", []):
            out[item["id"]] += item["ids"]
        if message["t"] in ("done", "error"):
            assert message["t"] == "done", message
            open_ids.discard(message["id"])
    return out


def test_n(group):
    """n answers: ids and seeds that follow each other, each a request like one that was asked for alone."""
    ask = {"t": "generate", "class": "be", "tokens": BASE["tokens"], "max_tokens": N, "ignore_eos": True,
           "temperature": 1.0}
    base = new_id()[:12] + b"\0\0\0\xff"
    ids = [base[:12] + (255 + k).to_bytes(4, "big") for k in range(3)]
    with Client(group) as client:
        client.send(dict(ask, id=base, n=3, seed=5))
        out = read_answers(client, ids)
        for k, one in enumerate(ids):
            alone = new_id()
            client.send(dict(ask, id=alone, seed=5 + k))
            assert read_answers(client, [alone])[alone] == out[one], f"answer {k}"
    assert len(set(map(tuple, out.values()))) == 3, out
    done = group.run([dict(BASE, temperature=1)], options=["--n", "3"])
    assert tokens(done) == [out[one] for one in ids], "omni run --n"


def test_resume(group):
    """Who comes back from an index gets the log-probabilities of that index on."""
    ask = {"t": "generate", "id": new_id(), "class": "be", "tokens": [1, 2], "max_tokens": 12, "ignore_eos": True,
           "logprobs": 2}
    with Client(group) as client:
        client.send(ask)
        first = read_answers(client, [ask["id"]])[ask["id"]]
    with Client(group) as client:
        client.send({"t": "generate", "id": ask["id"], "class": "be", "resume_from": 9})
        message = client.receive(5)
        item = message["items"][0]
        assert item["index"] == 9 and item["ids"] == first[9:], message
        assert len(item["logprobs"]) == 3 and len(item["top_ids"]) == len(item["top_logprobs"]) == 6, item
        assert item["top_ids"][::2] == item["ids"], item


def test_refused(group):
    ask = {"t": "generate", "class": "be", "prompt": "x", "max_tokens": 4}
    bad = {"stop_tokens": [1 << 20], "logit_bias": [{"token": 1 << 20, "bias": 1.0}], "min_tokens": 5,
           "presence_penalty": 101.0, "frequency_penalty": -101.0, "repetition_penalty": -1.0, "logprobs": 21, "n": 65}
    for field, value in bad.items():
        with Client(group) as client:
            client.send(dict(ask, id=new_id(), **{field: value}))
            answer = client.receive(5)
            assert answer["t"] == "error" and answer["code"] == "bad_request", (field, answer)
            assert answer["field"] == field and not answer["retryable"], (field, answer)
    with Client(group) as client:
        twice = [{"token": 1, "bias": 1.0}, {"token": 1, "bias": 2.0}]
        client.send_bytes(pack(dict(ask, id=new_id(), logit_bias=twice)))
        answer = client.receive(5)
        assert answer["field"] == "logit_bias" and "twice" in answer["message"], answer


def test_sim(expected_error="bad_request"):
    """A device that has no logits says so."""
    with Group(0, settings={"engine.device": "sim", "engine.offload": "never"}) as group:
        group.start()
        code, done, err = group.run_wait(group.run_begin([ASKED[0]]))
        assert code == 1 and done[0]["error"]["code"] == expected_error and "device sim" in err, err


def main():
    with Group(1, settings={"engine.offload": "never"}) as group:
        group.start()
        expected = test_effects(group)
        test_logprobs(group)
        test_stops(group)
        test_end_of_text(group)
        test_distribution(group)
        test_n(group)
        test_resume(group)
        test_refused(group)
        model = group.model
        with open(model, "rb") as file:
            kept = file.read()
    with Group(1, settings={"engine.offload": "always"}) as group:
        with open(group.model, "wb") as file:
            file.write(kept)
        group.start()
        assert tokens(group.run(ASKED)) == expected, "offloaded: other tokens"
        long = [dict(one, max_tokens=700) for one in ASKED if "presence_penalty" not in one or "temperature" in one]
        undisturbed = tokens(group.run(long))
        process = group.run_begin(long)
        wait_until(lambda: group.stats("resident") > 0, 20, "requests are offloaded")
        group.signal("attnd-0", signal.SIGKILL)
        group.start_program("attnd-0")
        assert tokens(group.run_end(process)) == undisturbed, "worker killed: other tokens"
        group.expect_all_free()
    test_sim()
    print("ok")


if __name__ == "__main__":
    if os.environ.get("OMNI_TEST_DEVICE", "cpu") != "cpu":
        raise SystemExit(77)
    watchdog(100)
    main()
