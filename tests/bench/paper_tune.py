"""Every policy's free parameters, and the one search that all of them are tuned by.

On every machine of the grid, with the same number of evaluations for each policy, on loads whose seeds the
grid does not use.  First what the engine has by default, then points drawn at random, then single steps from
the best so far.  An evaluation is a run in each training cell; its worth is the mean share of the
joint bound, of which is taken for LS requests late beyond those that LS alone would have.  Machines of held-out
cells are not searched: each policy takes what was found for the machine most like it, unless the defaults are worth
more on a training load there, since tokens a sweep that one machine carries may leave another no time for LS at all.

What no search sets: omni's LS_SPREADS, HASTE, DECODE_SHARE, LEAST_OWN_SHARE (policy_omni.c), PLACE_MARGIN and
HORIZON_NS (policy_omni_place.c) were set by hand, on loads of this grid.
"""

import argparse
import random
import statistics

import paper_grid
import paper_runs

SHARES = (70, 80, 85, 90, 95, 100)
FREE = (1, 3, 5, 10, 15, 25)
ROWS = (16, 32, 64, 128, 256)
CHUNKS = (0, 512, 1024, 2048)  # 0: what the objective admits
TOKENS = (0, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048)

PARAMETERS = {
    "omni":     {"use_pct": SHARES, "free_pct": FREE, "p_max": ROWS, "chunk": CHUNKS},
    "paper":    {"use_pct": SHARES, "free_pct": FREE, "p_max": ROWS, "chunk": CHUNKS},
    "sync":     {"use_pct": SHARES, "p_max": ROWS, "chunk": CHUNKS},
    "headroom": {"use_pct": SHARES, "headroom_pct": FREE, "token_budget": TOKENS},
    "ls-first": {"use_pct": SHARES, "token_budget": TOKENS},
    "harvest":  {"use_pct": SHARES, "free_pct": FREE, "chunk": CHUNKS},
    "stream":   {"use_pct": SHARES, "free_pct": FREE, "chunk": CHUNKS},
}

TRAIN_SHARE = 0.4        # of the grid's warm-up and measured time
LATE_POINTS_FREE = 0.3   # of attainment below LS alone: what omni itself is held to
WORTH_OF_A_POINT = 0.1   # of the bound, for each further point
GAPS_PCT, WORTH_OF_GAPS = 99.5, 0.02


def worth(runs, alone):
    """Of an evaluation's runs, beside those of LS alone in the same cells."""
    total = []
    for run, base in zip(runs, alone):
        rate = paper_runs.sustained(run["be"]["tokens_s"], run["be"]["stock_gain_s"], run["bounds"]["p"])
        share = rate / run["bounds"]["joint"] if run["bounds"]["joint"] > 0 else 1
        late = base["ls"]["attainment_pct"] - LATE_POINTS_FREE - run["ls"]["attainment_pct"]
        gaps = GAPS_PCT - run["ls"]["gaps_in_slo_pct"]
        total.append(share - WORTH_OF_A_POINT * max(0, late) - WORTH_OF_GAPS * max(0, gaps))
    return statistics.fmean(total)


def draw_point(space, draw):
    return {name: draw.choice(values) for name, values in space.items()}


def step_from(space, point, draw):
    """One parameter one place up or down; those that were not given begin anywhere."""
    name = draw.choice(list(space))
    values = space[name]
    if name not in point:
        return {**point, name: draw.choice(values)}
    at = values.index(point[name]) + draw.choice((-1, 1))
    return {**point, name: values[min(max(at, 0), len(values) - 1)]}


def next_point(space, tried, draw, budget):
    """A point that was not tried, if a few draws find one."""
    for _ in range(20):
        if len(tried) < max(2, budget // 2):
            point = draw_point(space, draw)
        else:
            point = step_from(space, max(tried, key=lambda t: t[1])[0], draw)
        if all(point != p for p, _ in tried):
            break
    return point


def training(o):
    """Shorter loads than the grid's: a search wants many."""
    return argparse.Namespace(**{**vars(o), "warm_up": o.warm_up * TRAIN_SHARE, "seconds": o.seconds * TRAIN_SHARE})


def training_cells(o, machine):
    """The highest rate with each length that the grid has there: where it is hardest to keep LS."""
    return [paper_grid.Cell(machine, be, machine.rates[-1]) for be in paper_grid.lengths_of(machine, o.be, o.rates)]


def run_alone(o, cells):
    """LS alone in these cells."""
    return paper_runs.run_all(o, [paper_runs.words_of(
        o, c._replace(be="none"), "ls-first", paper_grid.TRAIN_SEED) for c in cells])


def worths(o, cells, alone, points):
    """{policy: worth} of its point, {policy: point}, in these cells."""
    runs = paper_runs.run_all(o, [paper_runs.words_of(o, c, p, paper_grid.TRAIN_SEED, point)
                                  for p, point in points.items() for c in cells])
    return {p: worth(runs[k * len(cells):(k + 1) * len(cells)], alone) for k, p in enumerate(points)}


def search(o, machine, policies):
    """{policy: {"parameters", "worth", "default_worth", "tried"}} on that machine."""
    cells, o = training_cells(o, machine), training(o)
    alone = run_alone(o, cells)
    tried = {p: [] for p in policies}
    draws = {p: random.Random(f"{machine.name} {p}") for p in policies}
    for i in range(o.evaluations):
        points = {p: next_point(PARAMETERS[p], tried[p], draws[p], o.evaluations) if i > 0 else {}
                  for p in policies}
        for p, value in worths(o, cells, alone, points).items():
            tried[p].append((points[p], value))
    found = {}
    for p in policies:
        best = max(tried[p], key=lambda t: t[1])
        found[p] = {"parameters": best[0], "worth": best[1], "default_worth": tried[p][0][1],
                    "tried": len(tried[p])}
    return found


def taken(o, machine, found):
    """What another machine's search found, where it is worth more here than the defaults."""
    cells, o = training_cells(o, machine), training(o)
    alone = run_alone(o, cells)
    plain = worths(o, cells, alone, {p: {} for p in found})
    theirs = worths(o, cells, alone, {p: f["parameters"] for p, f in found.items()})
    return {p: {"parameters": f["parameters"] if theirs[p] >= plain[p] else {}, "worth": max(theirs[p], plain[p]),
                "default_worth": plain[p], "tried": 2} for p, f in found.items()}


def print_found(name, found):
    print(f"\ntuned on {name} (worth: share of the bound less what late LS costs; default -> found)")
    for policy, f in found.items():
        text = ", ".join(f"{k} {v}" for k, v in f["parameters"].items()) or "as by default"
        print(f"  {policy:9} {f['default_worth']:7.3f} -> {f['worth']:6.3f} after {f['tried']}: {text}")
