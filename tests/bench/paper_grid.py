"""What is simulated: machines, loads and rates of `tests/bench/run paper`.

What stood when: omni and the six others were there an hour before the first grid, which had four machines
(a100x4, a100x4+4, h200, rtx4090).  Its rates for the A100s, up to 6/s, were cut to 4/s right after its first run, since
LS alone does not keep more.  Searches, published timings and the other five machines came together, with rates of
their own; after a look at results, 8/s on the H200 and 4/s on the 24 GB card were dropped, where LS alone keeps
97.5 and 98.8 % (omni had made 0.74x of the best other at the worst of them).  The rule for all: ls-first without best
effort keeps both objectives of at least 99 % of its requests at the highest rate, and one request a second more
breaks that (--feasible shows it).  It held for lognormal lengths of LS and holds for ShareGPT's as measured, which
took their place later.  The paper's own rates go to 6/s (70B) and 10/s (34B): neither published timings nor
first principles carry them.  Policies were worked on with this grid in view; the search gives all the same
budget and other seeds.

HELD_OUT are cells of other lengths, rates and hosts, committed (86e5215) seconds after omni's last change (e558630)
and run once after it, as results/paper-2026-11-24-d has them; no policy was changed in between, and no search sees
them.  That nobody had run them before is said, and cannot be shown.  Whoever changes a policy later has seen them, so
they hold for that state alone; a later claim needs cells of its own.  The machines of two are not searched (TUNED_LIKE).
"""

import os
import random
from collections import namedtuple

from traces import Histogram, Missing, read_azure2023, read_servegen_clients

HERE = os.path.dirname(os.path.abspath(__file__))
OWN_PROFILES = os.path.join(HERE, "profiles")
SHAREGPT = os.path.join(OWN_PROFILES, "sharegpt.lengths")  # prompts and outputs of LS, as measured

POLICIES = ("omni", "paper", "sync", "headroom", "ls-first", "harvest", "stream")

Machine = namedtuple("Machine", "name machine model hosts net rates ttft tpot")
Cell = namedtuple("Cell", "machine be rate")

MACHINES = (
    #       name            machine          model          further hosts, Gbit/s   LS/s        TTFT, TPOT
    Machine("a100x4",       "a100x4-nvlink", "llama-2-70b", 0, 100,                 (2, 3, 4),   3.0, 0.25),
    Machine("a100x4+4",     "a100x4-nvlink", "llama-2-70b", 4, 100,                 (2, 3, 4),   3.0, 0.25),
    Machine("a100x4+4-10g", "a100x4-nvlink", "llama-2-70b", 4, 10,                  (3,),        3.0, 0.25),
    Machine("a100x4-pcie",  "a100x4-pcie",   "llama-2-70b", 0, 100,                 (1, 1.5),    3.0, 0.25),
    Machine("a100x2",       "a100x2-nvlink", "yi-34b",      0, 100,                 (2, 3, 4),   2.0, 0.2),
    Machine("a100x2+4",     "a100x2-nvlink", "yi-34b",      4, 100,                 (3,),        2.0, 0.2),
    Machine("a100x2-pcie",  "a100x2-pcie",   "yi-34b",      0, 100,                 (1, 2),      2.0, 0.2),
    Machine("h200",         "h200",          "yi-34b",      0, 100,                 (3, 5, 7),   2.0, 0.2),
    Machine("rtx4090",      "rtx4090",       "llama-3-8b",  0, 10,                  (1, 2, 3),   2.0, 0.2),
)
MACHINE = {m.name: m for m in MACHINES}
LENGTHS = ("LONGBENCH", "DAILYMAIL", "1000/4000")

# Every machine of the grid is searched; those of held-out cells take the parameters of the one most like them.
TUNED_LIKE = {"a100x4+2": "a100x4+4", "h200+1": "h200"}

# Lengths and rates of no other cell, and two machines of no other cell.
HELD_OUT = (
    Cell(MACHINE["a100x4"], "4000/500", 2.5),
    Cell(MACHINE["a100x2"], "600/1500", 2.5),
    Cell(Machine("a100x4+2", "a100x4-nvlink", "llama-2-70b", 2, 25, (2.5,), 3.0, 0.25), "2500/800", 2.5),
    Cell(MACHINE["h200"], "6000/1000", 4),
    Cell(Machine("h200+1", "h200", "yi-34b", 1, 50, (4,), 2.0, 0.2), "1500/2500", 4),
    Cell(MACHINE["rtx4090"], "4000/500", 1.5),
    Cell(MACHINE["rtx4090"], "500/1000", 2.5),
)

# Cells of these are simulated with every length at every rate; of the others with DAILYMAIL alone.
MAIN = ("a100x4", "a100x4+4", "a100x2", "h200", "rtx4090")

AZURE_PER_S = 182.6 / 60  # best effort's arrivals in the paper
TRAIN_SEED, SEED = 101, 1  # first seeds of the loads that parameters are searched with, and of the grid


def lengths_of(machine, lengths, rates=None):
    """Those of the lengths asked for that are simulated on that machine."""
    every = machine.name in MAIN or rates or "DAILYMAIL" not in lengths
    return tuple(lengths) if every else ("DAILYMAIL",)


def cells_of(names, lengths, rates=None, middle_only=False):
    cells = []
    for name in names:
        m = MACHINE[name]
        own = tuple(rates) if rates else m.rates
        own = (own[len(own) // 2],) if middle_only else own
        cells += [Cell(m, be, rate) for be in lengths_of(m, lengths, rates) for rate in own]
    return cells


def name_of(be):
    """Of lengths: a file without its folder."""
    return os.path.basename(be) if os.path.exists(be) else be


def middle(name):
    rates = MACHINE[name].rates
    return rates[len(rates) // 2]


# ---- Published data ----------------------------------------------------------------------------

def profiles_folder(chosen):
    """The folder asked for, the environment's, or the one beside this file; '' for first principles."""
    return chosen or os.environ.get("OMNI_SIM_PROFILES") or OWN_PROFILES


def azure_times(folder):
    """A file of arrival times from the Azure conversation trace, or None where the data is not."""
    try:
        times = sorted(at for at, *_ in read_azure2023())
    except Missing:
        return None
    path = os.path.join(folder, "azure.times")
    with open(path, "w", encoding="utf-8") as out:
        for at in times:
            print(f"{at - times[0]:.6f}", file=out)
    return path


def reasoning_lengths(folder, n=4000, seed=1):
    """A file of "in out" lines drawn from ServeGen's reasoning model, clients weighted by their rate;
    None where the data is not.  Prompts are cut at 4,000 and outputs at 8,000 tokens."""
    try:
        clients = read_servegen_clients("deepseek-r1")
    except Missing:
        return None
    rates = {client: sum(float(row[1] or 0) for row in rows) for client, (rows, _) in clients.items()}
    busy, draw = [c for c in clients if rates[c] > 0], random.Random(seed)
    times = {c: [[Histogram(text) for text in pair] for pair in clients[c][1].values() if Histogram(pair[0])]
             for c in busy}
    path = os.path.join(folder, "reasoning.lengths")
    with open(path, "w", encoding="utf-8") as out:
        for client in draw.choices(busy, [rates[c] for c in busy], k=n):
            if times[client]:
                prompts, outputs = draw.choice(times[client])
                print(max(1, min(4000, prompts.draw(draw))), max(2, min(8000, outputs.draw(draw))), file=out)
    return path
