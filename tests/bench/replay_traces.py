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

import math
import os
import random

from traces import REQUESTS, Histogram, Missing, data_dir, read_csv, read_servegen_clients  # noqa: F401

LENGTHS_ONLY = ("about", "lognormal", "vidur", "osc")
MADE = ("poisson", "bursty")
SERVEGEN_STEP_S = 600  # of the rates in its files
SERVEGEN_LAWS = {"Gamma", "Weibull", "Exponential"}


# ---- ServeGen: clients with a law of arrivals and histograms of lengths, per time of day ----------


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


def client_requests(rng, rows, lengths):
    starts, drawn = sorted(lengths), {}
    for row in rows:
        begin, rate, cv = float(row[0]), float(row[1]), float(row[2])
        known = [start for start in starts if start <= begin]
        if rate <= 0 or not known:
            continue
        if known[-1] not in drawn:
            drawn[known[-1]] = [Histogram(text) for text in lengths[known[-1]]]
        prompts, outputs = drawn[known[-1]]
        if not prompts:
            continue
        law = row[3] if row[3] in SERVEGEN_LAWS else "Exponential"
        for at in client_arrivals(rng, law, rate, cv, begin, begin + SERVEGEN_STEP_S):
            yield at, max(1, prompts.draw(rng)), max(1, outputs.draw(rng))


def read_servegen(name, seed, hour=12):
    """An hour of the day, all clients together."""
    rng, requests = random.Random(seed), []
    for rows, lengths in read_servegen_clients(name).values():
        of_hour = [row for row in rows if hour * 3600 <= float(row[0]) < (hour + 1) * 3600]
        requests += client_requests(rng, of_hour, lengths)
    return sorted(requests)


def read(name, seed):
    if name in REQUESTS:
        requests = REQUESTS[name]()
    elif name in ("servegen-r1", "servegen-small"):
        requests = read_servegen({"servegen-r1": "deepseek-r1", "servegen-small": "m-small"}[name], seed)
    elif os.path.isfile(name):
        requests = read_csv(name)
    else:
        raise SystemExit(f"no such trace: {name}; there are {', '.join([*REQUESTS, 'servegen-r1', 'servegen-small'])}")
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
