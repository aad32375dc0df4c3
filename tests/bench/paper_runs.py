"""Runs of omni-sim for `tests/bench/run paper`: command lines, a pool of processes, means over seeds."""

import concurrent.futures
import json
import os
import re
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../e2e"))
from omni_e2e import program  # noqa: E402

LONG_OUTPUT, LONG_WARM_UP = 1000, 3

FIGURES = {  # name: where it is in a run's JSON
    "be_tokens_s": ("be", "tokens_s"), "be_prefill_s": ("be", "prefill_tokens_s"),
    "be_latency_s": ("be", "latency_s"), "stock_gain_s": ("be", "stock_gain_s"),
    "attainment_pct": ("ls", "attainment_pct"), "ttft_pct": ("ls", "ttft_pct"), "tpot_pct": ("ls", "tpot_pct"),
    "attainment_admitted_pct": ("ls", "attainment_admitted_pct"), "gaps_in_slo_pct": ("ls", "gaps_in_slo_pct"),
    "offered": ("ls", "offered"), "admitted": ("ls", "admitted"),
    "device_rows": ("be", "device_rows"), "residents": ("be", "residents"),
    "cpu_engine_rows": ("be", "cpu_engine_rows"), "device_busy_pct": ("device_busy_pct",),
    "worker_busy_pct": ("worker_busy_pct",), "sweep_s": ("sweep_s",), "accuracy": ("accuracy_mean",),
    "bound": ("bounds", "joint"), "bound_p": ("bounds", "p"), "bound_k": ("bounds", "k"),
    "bound_w": ("bounds", "w"), "bound_d": ("bounds", "d"),
}


def warm_up(o, cell):
    """Long outputs take longer until as many end as begin."""
    n_out = cell.be.split("/")[1] if re.fullmatch(r"\d+/\d+", cell.be) else "0"
    return o.warm_up * (LONG_WARM_UP if int(n_out) >= LONG_OUTPUT or cell.be == o.reasoning else 1)


def words_of(o, cell, policy, seed, parameters=None, extra=()):
    """The command line of one run.  Parameters as paper_tune has them; extra: further words."""
    m = cell.machine
    words = [program("omni-sim"), "run", "--json", "--machine", m.machine, "--model", m.model,
             "--hosts", m.hosts, "--net", m.net, "--ls-rate", cell.rate, "--ls", o.ls, "--be", cell.be,
             "--policy", policy,
             "--ttft", m.ttft, "--tpot", m.tpot, "--warmup", warm_up(o, cell), "--duration", o.seconds,
             "--prefilled", o.prefilled, "--seed", seed]
    words += ["--profiles", o.profiles] if o.profiles else []
    named = {}
    for name, value in (parameters or {}).items():
        if name in ("chunk", "p_max"):
            words += ["--" + name.replace("_", "-"), value]
        else:
            named[name] = value
    if named:
        words += ["--params", ",".join(f"{k}={v}" for k, v in named.items())]
    return [str(w) for w in [*words, *extra]]


def simulate(words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"paper: {' '.join(words)}\n{done.stderr}")
    return json.loads(done.stdout)


def run_all(o, lists):
    """The results of these command lines, in order, o.jobs at a time."""
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        return list(pool.map(simulate, lists))


def figures(runs):
    """Means over runs of one cell and policy; the spread over seeds of what they are judged by."""
    out = {}
    for name, path in FIGURES.items():
        values = []
        for run in runs:
            for key in path:
                run = run[key]
            values.append(run)
        out[name] = statistics.fmean(values)
    out["be_by_seed"] = [r["be"]["tokens_s"] for r in runs]
    out["binds"] = runs[0]["bounds"]["binds"]
    out["timing"] = os.path.basename(runs[0]["run"]["timing"])  # a profile's name, or "first principles"
    return out


def over_seeds(o, jobs):
    """jobs: [(cell, policy, parameters, extra)] -> their figures, over the grid's seeds."""
    seeds = range(o.first_seed, o.first_seed + o.seeds)
    runs = run_all(o, [words_of(o, cell, policy, seed, parameters, extra)
                       for cell, policy, parameters, extra in jobs for seed in seeds])
    return [figures(runs[i * o.seeds:(i + 1) * o.seeds]) for i in range(len(jobs))]


def sustained(tokens_s, stock_gain_s, bound_p):
    """BE tokens/s as if the output still to come of begun requests were as much after the window as before:
    what was drawn from prompts that others paid for is taken off, what was paid for later tokens is added.
    Where prompts are what is scarce (tokens/s near the bound of prefill alone, P) a token's worth of stock
    is a token; where they cost little, as much less."""
    return tokens_s + stock_gain_s * (min(1, tokens_s / bound_p) if bound_p > 0 else 1)


def timing_name(timing):
    """What is said of where times are from."""
    return timing if timing == "first principles" else "published: " + os.path.basename(timing)
