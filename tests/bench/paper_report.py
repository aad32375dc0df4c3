"""What the grid of `tests/bench/run paper` says: tables, verdicts, the last line, plots."""

import os
import statistics
import sys

import paper_grid
import paper_runs

KEPT_POINTS = 1  # a policy whose attainment is further below that of LS alone did not keep LS


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


def judge(results):
    """omni against the best other that keeps LS, against ls-first, and against the bound.

    LS is kept within a point of the better of ls-first and LS alone (ls-first without best effort): beside
    best effort ls-first collapses at rates that it carries alone, and would pass by its own measure.
    """
    omni, base = results["omni"], results["ls-first"]["attainment_pct"]
    others = {p: r for p, r in results.items() if p not in ("omni", "ls-alone")}
    reference = max(base, results["ls-alone"]["attainment_pct"]) if "ls-alone" in results else base
    kept = {p: r for p, r in others.items() if r["attainment_pct"] >= reference - KEPT_POINTS}
    best, ratio_ = over_best(omni, kept, lambda r: r["be_tokens_s"])
    best_sustained, ratio_sustained = over_best(omni, kept, sustained)
    return {"best_other": best, "vs_best_other": ratio_,
            "best_other_sustained": best_sustained, "vs_best_other_sustained": ratio_sustained,
            "bound_pct": share_of_bound(omni),
            "ls_gap_points": max(0, base - omni["attainment_pct"]),
            "ls_gap_alone_points": max(0, reference - omni["attainment_pct"])}


def print_policies(results):
    print("  policy      BE tok/s   stock  prefill latency  both %  TTFT %  TPOT %  gaps %  device resident  busy %"
          "  workers %  sweep ms")
    for policy, r in results.items():
        elsewhere = r["cpu_engine_rows"]
        print(f"  {policy:9} {r['be_tokens_s']:10.1f} {r['stock_gain_s']:+7.1f} {r['be_prefill_s']:8.0f}"
              f" {r['be_latency_s']:7.1f} {r['attainment_pct']:7.2f} {r['ttft_pct']:7.2f} {r['tpot_pct']:7.2f}"
              f" {r['gaps_in_slo_pct']:7.2f} {r['device_rows']:7.1f} {r['residents'] + elsewhere:8.1f}"
              f" {r['device_busy_pct']:7.1f} {r['worker_busy_pct']:10.1f} {1e3 * r['sweep_s']:9.1f}")


def print_cell(cell, results, verdict):
    omni = results["omni"]
    print(f"\n{cell.machine.name}, {cell.machine.model}, BE {paper_grid.name_of(cell.be)}, LS {cell.rate:g}/s: "
          f"bounds P {omni['bound_p']:.0f} K {omni['bound_k']:.0f} W {omni['bound_w']:.0f} D {omni['bound_d']:.0f}, "
          f"together {omni['bound']:.0f} ({omni['binds']}); times: {paper_runs.timing_name(omni['timing'])}")
    print_policies(results)
    print(f"  omni: {verdict['vs_best_other']:.2f}x {verdict['best_other']}, sustained "
          f"{verdict['vs_best_other_sustained']:.2f}x {verdict['best_other_sustained']}, "
          f"{verdict['bound_pct']:.0f} % of the bound"
          + ("  <-- below the best other" if verdict["vs_best_other"] < 0.98 else "")
          + ("  <-- LS later than with ls-first" if verdict["ls_gap_points"] > 0.3 else ""))


# ---- The last line -----------------------------------------------------------------------------

def ratio(rows, machine, lengths, over="harvest"):
    """Mean of omni over another policy on that machine and these lengths, or None."""
    all_ = [r["policies"]["omni"]["be_tokens_s"] / r["policies"][over]["be_tokens_s"] for r in rows
            if r["machine"] == machine and r["be"] in lengths and r["policies"].get(over, {}).get("be_tokens_s")]
    return statistics.fmean(all_) if all_ else None


def worst(rows, key):
    return min(r[key] for r in rows) if rows else None


def last_line(rows, held_out, cpu_path, sim_s):
    one = [r["bound_pct"] for r in rows if r["hosts"] == 0]
    five = [r["bound_pct"] for r in rows if r["hosts"] == 4]
    keys = {"ls_gap_points": max(r["ls_gap_points"] for r in rows),
            "gaps_in_slo_pct": min(r["policies"]["omni"]["gaps_in_slo_pct"] for r in rows),
            "omni_vs_best_other_min": worst(rows, "vs_best_other"),
            "bound_pct": statistics.fmean(one) if one else None,
            "bound_pct_5hosts": statistics.fmean(five) if five else None,
            "small_gpu_vs_harvest": ratio(rows, "rtx4090", ("DAILYMAIL", "1000/4000")),
            "h200_reasoning_vs_harvest": ratio(rows, "h200", ("1000/4000",)),
            "cpu_path_vs_paper": cpu_path,
            "sim_s": sim_s,
            "omni_vs_best_other_min_sustained": worst(rows, "vs_best_other_sustained"),
            "omni_vs_best_other_min_held_out": worst(held_out, "vs_best_other"),
            "omni_vs_best_other_min_held_out_sustained": worst(held_out, "vs_best_other_sustained")}
    for key in [k for k, v in keys.items() if v is None]:
        print(f"left out: {key} (its cells were not run)")
    return {k: round(v, 3) for k, v in keys.items() if v is not None}


def bars(rows, policies):
    """For plot.py: each policy's share of the bound, by cell."""
    label = [f"{r['machine']}\n{r['be']}\n{r['ls_rate']:g}/s" for r in rows]
    return {"title": "BE decode tokens/s, of the joint bound (at most 100)",
            "x_label": "machine, BE in/out, LS rate", "y_label": "%",
            "series": [{"name": p, "x": label, "y": [share_of_bound(r["policies"][p]) for r in rows]}
                       for p in policies]}


# ---- Plots -------------------------------------------------------------------------------------

def panels_of(rows):
    """{(machine, be): rows by LS rate}, of those that have more than one rate."""
    panels = {}
    for r in rows:
        panels.setdefault((r["machine"], r["be"]), []).append(r)
    return {k: sorted(v, key=lambda r: r["ls_rate"]) for k, v in panels.items() if len(v) > 1}


def draw(path, rows, policies, value, y_label, bound=False):
    """A panel for each machine and lengths: a line per policy over the LS rate."""
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
            axis.plot(x, [value(r["policies"][p]) for r in own], marker="o", label=p,
                      linewidth=2.2 if p == "omni" else 1.2)
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
