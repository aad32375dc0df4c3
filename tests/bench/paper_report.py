"""What the grid of `tests/bench/run paper` says: tables, verdicts, the last line, plots.

Whoever is more than KEPT_POINTS of attainment below LS alone did not keep LS, omni included: of others, what
they made is not held against omni; of omni, the cell counts as lost: it is among the cells_ls_lost of the last
line, has no ratio to the best other, and adds nothing to the shares of the bound.
"""

import os
import statistics
import sys

import paper_grid
import paper_runs

KEPT_POINTS = 1
ENOUGH = 0.98  # of the best other: a cell is won
SERVES_PCT = 10  # of the LS requests that are admitted without best effort; below, a policy serves none


# ---- Verdicts ----------------------------------------------------------------------------------

def share_of_bound(r):
    """In percent, capped at 100; all of it where LS leaves nothing."""
    return min(100, 100 * r["be_tokens_s"] / r["bound"]) if r["bound"] > 0 else 100


def sustained(r):
    return paper_runs.sustained(r["be_tokens_s"], r["stock_gain_s"], r["bound_p"])


def over_best(omni, kept, measure):
    """(name of the best other, omni over it)."""
    best = max(kept, key=lambda p: measure(kept[p])) if kept else "nobody"
    most = measure(kept[best]) if kept else 0
    return best, measure(omni) / most if most > 0 else float("inf")


def least_attainment(results):
    """Of a policy that keeps LS.

    Within a point of the better of ls-first and LS alone (ls-first without best effort): beside best effort
    ls-first collapses at rates that it carries alone, and would pass by its own measure.
    """
    return max(results[p]["attainment_pct"] for p in ("ls-first", "ls-alone") if p in results) - KEPT_POINTS


def with_alone(row):
    """A cell's results, LS alone among them where it was run."""
    return {**row["policies"], "ls-alone": row["ls_alone"]} if "ls_alone" in row else row["policies"]


def judge(results):
    """omni against the best other that keeps LS, against ls-first and LS alone, and against the bound."""
    omni, base = results["omni"], results["ls-first"]["attainment_pct"]
    alone = results.get("ls-alone", results["ls-first"])["attainment_pct"]
    least = least_attainment(results)
    kept = {p: r for p, r in results.items() if p not in ("omni", "ls-alone") and r["attainment_pct"] >= least}
    best, ratio_ = over_best(omni, kept, lambda r: r["be_tokens_s"])
    best_sustained, ratio_sustained = over_best(omni, kept, sustained)
    return {"best_other": best, "vs_best_other": ratio_,
            "best_other_sustained": best_sustained, "vs_best_other_sustained": ratio_sustained,
            "keeps_ls": omni["attainment_pct"] >= least,
            "bound_pct": share_of_bound(omni),
            "above_bound": [p for p in ("omni", *kept) if results[p]["be_tokens_s"] > results[p]["bound"]],
            "serves_no_ls": serves_no_ls(results),
            "ls_gap_points": max(0, base - omni["attainment_pct"]),
            "ls_gap_alone_points": max(0, alone - omni["attainment_pct"])}


def serves_no_ls(results):
    """Policies that refuse nearly all that is admitted without best effort."""
    most = results.get("ls-alone", {}).get("admitted", 0)
    return [p for p, r in results.items() if most > 0 and r["admitted"] < SERVES_PCT / 100 * most]


def judged(row):
    """A cell's row with its verdict, and that of omni with nothing tuned, if it was run."""
    results = with_alone(row)
    row = {**row, **judge(results)}
    if "omni_default" in row:
        plain = judge({**results, "omni": row["omni_default"]})
        row.update({"default_" + k: plain[k] for k in ("vs_best_other", "vs_best_other_sustained", "keeps_ls")})
    return row


def counted(row, value):
    return value if row["keeps_ls"] else 0


# ---- A cell ------------------------------------------------------------------------------------

def print_policies(results):
    print("  policy      BE tok/s   stock  prefill latency  both %  TTFT %  TPOT %  gaps %  device resident  busy %"
          "  workers %  sweep ms")
    for policy, r in results.items():
        elsewhere = r["cpu_engine_rows"]
        print(f"  {policy:9} {r['be_tokens_s']:10.1f} {r['stock_gain_s']:+7.1f} {r['be_prefill_s']:8.0f}"
              f" {r['be_latency_s']:7.1f} {r['attainment_pct']:7.2f} {r['ttft_pct']:7.2f} {r['tpot_pct']:7.2f}"
              f" {r['gaps_in_slo_pct']:7.2f} {r['device_rows']:7.1f} {r['residents'] + elsewhere:8.1f}"
              f" {r['device_busy_pct']:7.1f} {r['worker_busy_pct']:10.1f} {1e3 * r['sweep_s']:9.1f}")


def above(row, policy):
    r = row["policies"][policy]
    return f"{policy} {r['be_tokens_s']:.1f} (sustained {sustained(r):.1f})"


def print_cell(row):
    """row: as judged() has it."""
    omni = row["policies"]["omni"]
    print(f"\n{row['machine']}, {row['model']}, BE {row['be']}, LS {row['ls_rate']:g}/s: "
          f"bounds P {omni['bound_p']:.0f} K {omni['bound_k']:.0f} W {omni['bound_w']:.0f} D {omni['bound_d']:.0f}, "
          f"together {omni['bound']:.0f} ({omni['binds']}); times: {paper_runs.timing_name(omni['timing'])}")
    extra = {"(default)": row["omni_default"]} if "omni_default" in row else {}
    extra.update({"ls-alone": row["ls_alone"]} if "ls_alone" in row else {})
    print_policies({**row["policies"], **extra})
    print(f"  omni: {row['vs_best_other']:.2f}x {row['best_other']}, sustained "
          f"{row['vs_best_other_sustained']:.2f}x {row['best_other_sustained']}, {row['bound_pct']:.0f} % of the "
          f"bound; LS {row['ls_gap_points']:.2f} below ls-first, {row['ls_gap_alone_points']:.2f} below LS alone")
    for said, holds in (
            (f"omni does not keep LS within {KEPT_POINTS} point of LS alone: lost", not row["keeps_ls"]),
            ("below the best other", row["keeps_ls"] and row["vs_best_other"] < ENOUGH),
            ("LS later than with ls-first", row["ls_gap_points"] > 0.3),
            (f"above the bound of {omni['bound']:.1f}: " + ", ".join(above(row, p) for p in row["above_bound"]),
             row["above_bound"]),
            ("serves no LS: " + ", ".join(row["serves_no_ls"]), row["serves_no_ls"])):
        if holds:
            print("  <-- " + said)


# ---- All cells ---------------------------------------------------------------------------------

def mean_over_best(rows, key):
    return statistics.fmean(min(r[key], 10) for r in rows)


def print_summary(rows, key, what):
    """How omni did in these cells; key: "" or "default_"."""
    kept = [r for r in rows if r[key + "keeps_ls"]]
    text = f"{what}: {len(rows)} cells, LS not kept in {len(rows) - len(kept)}"
    for measure in ("vs_best_other", "vs_best_other_sustained"):
        name = key + measure
        if kept:
            text += (f"; over the best other{' (sustained)' if measure != 'vs_best_other' else ''}: mean "
                     f"{mean_over_best(kept, name):.3f}, worst {min(r[name] for r in kept):.3f}, "
                     f"{sum(r[name] >= ENOUGH for r in kept)} at {ENOUGH} and more")
    print(text)


def print_odd_cells(rows):
    """What each table says below it, together: cells lost, bounds exceeded, policies that serve nobody."""
    for r in rows:
        where = f"{r['machine']}, BE {r['be']}, LS {r['ls_rate']:g}/s"
        if not r["keeps_ls"]:
            print(f"omni does not keep LS: {where}: {r['policies']['omni']['attainment_pct']:.2f} % of "
                  f"{r['policies']['omni']['attainment_pct'] + r['ls_gap_alone_points']:.2f} alone")
        if r["above_bound"]:
            print(f"above the bound of {r['policies']['omni']['bound']:.1f}: {where}: "
                  + ", ".join(above(r, p) for p in r["above_bound"]))
        if r["serves_no_ls"]:
            print(f"serves no LS: {where}: " + ", ".join(r["serves_no_ls"]))


def print_all(rows, held_out):
    print()
    print_summary(rows, "", "omni, tuned")
    for those, name in ((rows, "omni at its defaults"), (held_out, "held out, at its defaults")):
        if those and all("default_keeps_ls" in r for r in those):
            print_summary(those, "default_", name)
    if held_out:
        print_summary(held_out, "", "held out, tuned")
    print_odd_cells(rows + held_out)


# ---- The last line -----------------------------------------------------------------------------

def ratio(rows, machine, lengths, over="harvest"):
    """Mean of omni over another policy on that machine and these lengths, or None."""
    all_ = [counted(r, r["policies"]["omni"]["be_tokens_s"] / r["policies"][over]["be_tokens_s"]) for r in rows
            if r["machine"] == machine and r["be"] in lengths and r["policies"].get(over, {}).get("be_tokens_s")]
    return statistics.fmean(all_) if all_ else None


def worst(rows, key):
    """Of the cells in which omni keeps LS."""
    kept = [r[key] for r in rows if r["keeps_ls"]]
    return min(kept) if kept else None


def lost(rows):
    return sum(not r["keeps_ls"] for r in rows) if rows else None


def last_line(rows, held_out, cpu_path, sim_s):
    one = [counted(r, r["bound_pct"]) for r in rows if r["hosts"] == 0]
    five = [counted(r, r["bound_pct"]) for r in rows if r["hosts"] == 4]
    keys = {"ls_gap_points": max(r["ls_gap_points"] for r in rows),
            "gaps_in_slo_pct": min(r["policies"]["omni"]["gaps_in_slo_pct"] for r in rows),
            "omni_vs_best_other_min": worst(rows, "vs_best_other"),
            "bound_pct": statistics.fmean(one) if one else None,
            "bound_pct_5hosts": statistics.fmean(five) if five else None,
            "small_gpu_vs_harvest": ratio(rows, "rtx4090", ("DAILYMAIL", "1000/4000")),
            "h200_reasoning_vs_harvest": ratio(rows, "h200", ("1000/4000",)),
            "cpu_path_vs_paper": cpu_path,
            "sim_s": sim_s,
            "ls_gap_alone_points": max(r["ls_gap_alone_points"] for r in rows),
            "cells_ls_lost": lost(rows),
            "omni_vs_best_other_min_sustained": worst(rows, "vs_best_other_sustained"),
            "omni_vs_best_other_min_held_out": worst(held_out, "vs_best_other"),
            "omni_vs_best_other_min_held_out_sustained": worst(held_out, "vs_best_other_sustained"),
            "cells_ls_lost_held_out": lost(held_out)}
    for key in [k for k, v in keys.items() if v is None]:
        print(f"left out: {key} (its cells were not run)")
    return {k: round(v, 3) for k, v in keys.items() if v is not None}


def print_again(written):
    """The tables of an earlier run's --json, by the rules of now; returns the last line."""
    for cells in ("cells", "held_out"):
        written[cells] = [judged(r) for r in written.get(cells, [])]
    for r in written["cells"]:
        print_cell(r)
    if written["held_out"]:
        print("\nheld out: lengths, rates and hosts that no search saw")
    for r in written["held_out"]:
        print_cell(r)
    print_all(written["cells"], written["held_out"])
    earlier = written["keys"]
    return last_line(written["cells"], written["held_out"], earlier.get("cpu_path_vs_paper"), earlier.get("sim_s"))


# ---- Plots -------------------------------------------------------------------------------------

def bars(rows, policies):
    """For plot.py: each policy's share of the bound, by cell."""
    label = [f"{r['machine']}\n{r['be']}\n{r['ls_rate']:g}/s" for r in rows]
    return {"title": "BE decode tokens/s, of the joint bound (at most 100)",
            "x_label": "machine, BE in/out, LS rate", "y_label": "%",
            "series": [{"name": p, "x": label, "y": [share_of_bound(r["policies"][p]) for r in rows]}
                       for p in policies]}


def panels_of(rows):
    """{(machine, be): rows by LS rate}, of those that have more than one rate."""
    panels = {}
    for r in rows:
        panels.setdefault((r["machine"], r["be"]), []).append(r)
    return {k: sorted(v, key=lambda r: r["ls_rate"]) for k, v in panels.items() if len(v) > 1}


def draw(path, rows, policies, value, y_label, bound=False):
    """A panel for each machine and lengths: a line per policy over the LS rate, open where it does not keep LS."""
    from matplotlib import pyplot
    panels = panels_of(rows)
    if not panels:
        return False
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(5 * across, 3.4 * down), squeeze=False)
    for axis, ((machine, be), own) in zip(axes.flat, panels.items()):
        x = [r["ls_rate"] for r in own]
        for p in policies:
            line = axis.plot(x, [value(r["policies"][p]) for r in own], marker="o", label=p,
                             linewidth=2.2 if p == "omni" else 1.2)[0]
            lost = [r for r in own if r["policies"][p]["attainment_pct"] < least_attainment(with_alone(r))]
            axis.plot([r["ls_rate"] for r in lost], [value(r["policies"][p]) for r in lost], linestyle="", marker="o",
                      markerfacecolor="white", markeredgecolor=line.get_color())
        if bound:
            axis.plot(x, [r["policies"]["omni"]["bound"] for r in own], "k--", label="joint bound")
        axis.set(title=f"{machine}, BE {be}", xlabel="LS requests/s", ylabel=y_label)
        axis.grid(True, alpha=0.3)
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def draw_all(folder, rows, policies):
    try:
        import matplotlib
        matplotlib.use("Agg")
    except ImportError:
        print("no plots: python3-matplotlib is not installed", file=sys.stderr)
        return
    os.makedirs(folder, exist_ok=True)
    for name, value, label, bound in (
            ("be-tokens.png", lambda r: r["be_tokens_s"], "BE decode tokens/s", True),
            ("be-prefill.png", lambda r: r["be_prefill_s"], "BE prefill tokens/s", False),
            ("attainment.png", lambda r: r["attainment_pct"], "LS attainment, %", False)):
        if draw(os.path.join(folder, name), rows, policies, value, label, bound):
            print(f"plot: {os.path.join(folder, name)}")
