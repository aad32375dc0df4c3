"""Loads out of traces: arrivals and lengths, rescaled to what a small model can serve.

A source is ARRIVALS or ARRIVALS/LENGTHS.  Arrivals: poisson; bursty (Poisson whose rate is drawn anew every
few seconds, evenly between nothing and twice the mean); a trace.  Lengths: about (evenly within a quarter of
the mean); lognormal; those of a trace.  A trace alone gives both; poisson and bursty alone have `about`.

Traces lie in a folder that is no part of the project ($OMNI_SHARED_DATA, else ../shared/data beside the
sources): azure2023 (conversations), mooncake (conversations), servegen-r1 and servegen-small (drawn from
their clients' laws), sharegpt (measured requests); with lengths alone: vidur (summaries), osc.  A path of a
CSV file with the columns seconds,prompt,output is a trace too.

Rescaling: lengths by one factor, so that their mean is the one wanted (spread and correlation stay); times
by one factor, so that the mean rate over the piece that is used is the one wanted (bursts keep their shape).
"""

import ast
import csv
import datetime
import gzip
import json
import math
import os
import random
import re
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTHS_ONLY = ("about", "lognormal", "vidur", "osc")
MADE = ("poisson", "bursty")
SERVEGEN_STEP_S = 600  # of the rates in its files
SERVEGEN_LAWS = {"Gamma", "Weibull", "Exponential"}


def data_dir():
    return os.environ.get("OMNI_SHARED_DATA") or os.path.join(HERE, "../../../shared/data")


class Missing(Exception):
    """The trace is not on this machine."""


def opened(name, mode="rt"):
    path = os.path.join(data_dir(), name)
    if not os.path.exists(path):
        raise Missing(f"{path} is not there (OMNI_SHARED_DATA names the folder of traces)")
    if name.endswith(".gz"):
        return gzip.open(path, mode, encoding="utf-8", newline="")
    return open(path, mode, encoding="utf-8", newline="")


# ---- Readers: lists of (seconds, prompt, output), by time ---------------------------------------


def read_azure2023():
    with opened("traces/azure2023/AzureLLMInferenceTrace_conv.csv") as file:
        for row in csv.DictReader(file):
            at = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26])
            yield at.timestamp(), int(row["ContextTokens"]), int(row["GeneratedTokens"])


def read_mooncake():
    with opened("traces/mooncake/conversation_trace.jsonl.gz") as file:
        for line in file:
            one = json.loads(line)
            yield one["timestamp"] / 1e3, one["input_length"], one["output_length"]


def read_sharegpt():
    """Measured requests of DistServe's runs; the longest run of one rate."""
    with opened("profiles/distserve/opt-13b-sharegpt_measured_requests.csv.gz") as file:
        runs = {}
        for row in csv.DictReader(file):
            runs.setdefault((row["system"], row["num_requests"], row["rate_req_s"]), []).append(row)
    for row in max(runs.values(), key=len):
        yield float(row["issue_s"]), int(row["prompt_len"]), int(row["output_len"])


def read_vidur():
    with opened("traces/vidur/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz") as file:
        for row in csv.DictReader(file):
            yield 0.0, int(float(row["num_prefill_tokens"])), int(float(row["num_decode_tokens"]))


def read_osc():
    with opened("traces/neo/osc-Llama-2-7b-hf.json") as file:
        for one in json.load(file):
            yield 0.0, one["prompt"], one["max_tokens"]


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield float(row["seconds"]), int(row["prompt"]), int(row["output"])


READERS = {"azure2023": read_azure2023, "mooncake": read_mooncake, "sharegpt": read_sharegpt,
           "vidur": read_vidur, "osc": read_osc}


# ---- ServeGen: clients with a law of arrivals and histograms of lengths, per time of day ----------


def draw_from(rng, histogram):
    values, weights = zip(*histogram.items())
    return max(1, round(rng.choices(values, weights)[0]))


def client_arrivals(rng, law, rate, cv, begin, end):
    """Gaps of the client's law, of mean 1/rate and (Gamma, Weibull) its coefficient of variation."""
    at = begin + rng.random() / rate
    while at < end:
        yield at
        if law == "Gamma" and cv > 0:
            at += rng.gammavariate(1 / cv ** 2, cv ** 2 / rate)
        elif law == "Weibull" and cv > 0:
            shape = cv ** -1.086  # within 2 % for cv between 0.2 and 3
            at += rng.weibullvariate(1 / rate / math.gamma(1 + 1 / shape), shape)
        else:
            at += rng.expovariate(rate)


def client_requests(rng, rates, lengths):
    starts = sorted(lengths)
    for row in rates:
        begin, rate, cv = float(row[0]), float(row[1]), float(row[2])
        known = [start for start in starts if start <= begin]
        if rate <= 0 or not known or not lengths[known[-1]][0]:
            continue
        prompts, outputs = lengths[known[-1]]
        law = row[3] if row[3] in SERVEGEN_LAWS else "Exponential"
        for at in client_arrivals(rng, law, rate, cv, begin, begin + SERVEGEN_STEP_S):
            yield at, draw_from(rng, prompts), draw_from(rng, outputs)


def read_servegen(name, seed, hour=12):
    """An hour of the day, all clients together."""
    path = os.path.join(data_dir(), f"traces/servegen/{name}.tar.xz")
    if not os.path.exists(path):
        raise Missing(f"{path} is not there (OMNI_SHARED_DATA names the folder of traces)")
    rates, lengths = {}, {}
    with tarfile.open(path) as archive:
        for member in archive:
            found = re.search(r"chunk-(\d+)-(trace\.csv|dataset\.json)$", member.name)
            if not found:
                continue
            text = archive.extractfile(member).read().decode()
            if found[2] == "trace.csv":
                rows = [row for row in csv.reader(text.splitlines()) if len(row) >= 4]
                rates[found[1]] = [row for row in rows if hour * 3600 <= float(row[0]) < (hour + 1) * 3600]
            else:
                lengths[found[1]] = {float(start): [ast.literal_eval(one[key]) for key in ("input_tokens", "output_tokens")]
                                     for start, one in json.loads(text).items()
                                     if one.get("input_tokens") and one.get("output_tokens")}
    rng = random.Random(seed)
    return sorted(one for client in sorted(rates) if client in lengths
                  for one in client_requests(rng, rates[client], lengths[client]))


def read(name, seed):
    if name in READERS:
        requests = READERS[name]()
    elif name in ("servegen-r1", "servegen-small"):
        requests = read_servegen({"servegen-r1": "deepseek-r1", "servegen-small": "m-small"}[name], seed)
    elif os.path.isfile(name):
        requests = read_csv(name)
    else:
        raise SystemExit(f"no such trace: {name}; there are {', '.join([*READERS, 'servegen-r1', 'servegen-small'])}")
    return sorted(one for one in requests if one[1] > 0 and one[2] > 0)


# ---- Arrivals and lengths ------------------------------------------------------------------------


def poisson(rng, rate, seconds):
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


def bursty(rng, rate, seconds, burst_s):
    at = 0.0
    while at < seconds:
        now = max(1e-3, rng.uniform(0, 2 * rate))
        yield from (at + one for one in poisson(rng, now, min(burst_s, seconds - at)))
        at += burst_s


def stretched(requests, rate, seconds, start):
    """The piece from `start` (a share of the trace) on, its times scaled to the rate."""
    n = max(1, round(rate * seconds))
    if n > len(requests):
        raise SystemExit(f"the trace has {len(requests)} requests; {n} are wanted: a lower rate or fewer seconds")
    first = min(int(start * len(requests)), len(requests) - n)
    piece = requests[first:first + n]
    spread = max(1e-9, piece[-1][0] - piece[0][0])
    return [(at - piece[0][0]) * seconds * (1 - 1 / n) / spread for at, *_ in piece], piece


def about(rng, mean):
    return rng.randint(mean - mean // 4, mean + mean // 4)


def lognormal(rng, mean, sigma):
    return max(1, round(rng.lognormvariate(math.log(mean) - sigma ** 2 / 2, sigma)))


def scaled(pairs, want, longest):
    """Lengths by one factor each; 0: as they are.  Nothing is longer than a request may be."""
    out = []
    factors = [w / (sum(one[i] for one in pairs) / len(pairs)) if w else 1 for i, w in enumerate(want)]
    for pair in pairs:
        prompt, output = (max(2, round(n * factor)) for n, factor in zip(pair, factors))
        prompt = min(prompt, longest - 2)
        out.append((prompt, min(output, longest - prompt)))
    return out


def lengths_of(rng, name, n, want, longest, sigma, seed):
    if name == "about":
        return [tuple(about(rng, mean) for mean in want) for _ in range(n)]
    if name == "lognormal":
        pairs = [tuple(lognormal(rng, mean, sigma) for mean in want) for _ in range(n)]
    else:
        some = [one[1:] for one in read(name, seed)]
        pairs = [rng.choice(some) for _ in range(n)]
    return scaled(pairs, want, longest)


def make(source, name, rate, seconds, want, longest, seed, start=0.0, burst_s=5.0, sigma=0.8, n_backlog=0):
    """Asks of class `name`: arrivals at `rate` over `seconds`, or n_backlog without times."""
    arrivals, _, lengths = source.partition("/")
    if arrivals in LENGTHS_ONLY:
        arrivals, lengths = "poisson", arrivals
    rng = random.Random(f"{seed} {name} {source}")
    if n_backlog:
        some = lengths or ("about" if arrivals in MADE else arrivals)
        return [(None, name, *pair) for pair in lengths_of(rng, some, n_backlog, want, longest, sigma, seed)]
    if arrivals in MADE:
        times = list(poisson(rng, rate, seconds) if arrivals == "poisson" else bursty(rng, rate, seconds, burst_s))
        pairs = lengths_of(rng, lengths or "about", len(times), want, longest, sigma, seed)
    else:
        times, piece = stretched(read(arrivals, seed), rate, seconds, start)
        pairs = lengths_of(rng, lengths, len(times), want, longest, sigma, seed) if lengths else \
            scaled([one[1:] for one in piece], want, longest)
    return [(at, name, *pair) for at, pair in zip(times, pairs)]
