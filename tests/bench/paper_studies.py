"""Questions beside the grid of `tests/bench/run paper`: bursts, objectives, overload, hosts, lengths,
arrivals; what each idea of omni brings; and under which assumptions the published ratios come out."""

import argparse
import statistics

import paper_grid
import paper_report
import paper_runs

# ---- Studies -----------------------------------------------------------------------------------


def cell(name, be="DAILYMAIL", rate=None, **changes):
    m = paper_grid.MACHINE[name]
    return paper_grid.Cell(m._replace(**changes), be, rate or paper_grid.middle(name))


def study_bursts(_):
    """The rate of LS is redrawn every 5 and 10 s, between 0.25 and 1.75 times."""
    return [(f"burst {s or 'none'}", cell(name, be), p, ["--burst", s] if s else [])
            for name, be in (("a100x4", "DAILYMAIL"), ("h200", "1000/4000"), ("rtx4090", "DAILYMAIL"))
            for s in (0, 5, 10) for p in ("omni", "paper", "harvest", "ls-first")]


def study_tpot(_):
    """The TPOT objective, from tight to loose."""
    return [(f"TPOT {t:g} s", cell("a100x4", rate=3, tpot=t), p, [])
            for t in (0.1, 0.15, 0.2, 0.25, 0.35) for p in ("omni", "paper", "headroom", "harvest", "ls-first")]


def study_admission(o):
    """Beyond what the machine carries: LS refused at the door, or all taken."""
    if not o.has_admission:
        return []
    return [(f"{rate:g}/s, admission {a}", cell("a100x4", rate=rate), p, ["--admission", a])
            for rate in (5, 6) for a in ("on", "off") for p in ("omni", "ls-first")]


def study_hosts(_):
    """Further hosts with a worker each, and their network."""
    return [(f"{1 + n} host(s), {net} Gbit/s", cell("a100x4", be, hosts=n, net=net), p, [])
            for be in ("DAILYMAIL", "1000/4000") for net in (100, 10) for n in range(5) if n > 0 or net == 100
            for p in ("omni", "paper")]


def study_sigma(_):
    """How far LongBench's lengths spread, which is not published; LS has ShareGPT's as measured throughout."""
    return [(f"sigma {s:g}", cell("a100x4", "LONGBENCH"), p, ["--sigma", s])
            for s in (0.3, 0.6, 1.0) for p in ("omni", "paper", "harvest")]


def study_arrivals(o):
    """Best effort arrives at the paper's 182.6 a minute, in the rhythm of the Azure conversation trace."""
    times = ["--be-arrivals", o.azure] if o.azure else []
    return [("Azure" if times else "Poisson (no trace here)", cell("a100x4", be), p,
             ["--be-rate", f"{paper_grid.AZURE_PER_S:.4f}", *times])
            for be in ("LONGBENCH", "DAILYMAIL") for p in ("omni", "paper", "harvest", "ls-first")]


def study_reasoning(o):
    """Lengths of a reasoning model in production (ServeGen)."""
    if not o.reasoning:
        return []
    return [("reasoning", cell(name, o.reasoning), p, [])
            for name in ("h200", "rtx4090", "a100x4") for p in ("omni", "paper", "harvest")]


STUDIES = {"bursts": study_bursts, "tpot": study_tpot, "admission": study_admission, "hosts": study_hosts,
           "sigma": study_sigma, "arrivals": study_arrivals, "reasoning": study_reasoning}


def run_studies(o, names, tuned):
    """Prints a table for each, of one seed; {name: rows}."""
    out = {}
    for name in names:
        jobs = STUDIES[name](o)
        print(f"\n{name}: {STUDIES[name].__doc__}")
        if not jobs:
            print("  not run: what it needs is not here")
            continue
        once = argparse.Namespace(**{**vars(o), "seeds": 1})
        results = paper_runs.over_seeds(once, [(c, p, tuned(c.machine, p), extra) for _, c, p, extra in jobs])
        print("  machine       BE           LS/s  case                      policy     BE tok/s  both %  TTFT %  TPOT %"
              "  admitted: both %  gaps %")
        out[name] = []
        for (case, c, p, _), r in zip(jobs, results):
            be = paper_grid.name_of(c.be)
            print(f"  {c.machine.name:13} {be:12} {c.rate:4g}  {case:25} {p:9} {r['be_tokens_s']:9.1f}"
                  f" {r['attainment_pct']:7.2f} {r['ttft_pct']:7.2f} {r['tpot_pct']:7.2f}"
                  f" {r['attainment_admitted_pct']:17.2f} {r['gaps_in_slo_pct']:7.2f}")
            out[name].append({"case": case, "machine": c.machine.name, "be": be, "ls_rate": c.rate, "policy": p, **r})
    return out


def cpu_path(o, tuned):
    """omni over paper where best effort may decode at workers alone: LongBench, one host, real prefill."""
    cells = [paper_grid.Cell(paper_grid.MACHINE["a100x4"], "LONGBENCH", rate)
             for rate in paper_grid.MACHINE["a100x4"].rates]
    jobs = [(c, p, tuned(c.machine, p), ["--offload", "always"]) for c in cells for p in ("omni", "paper")]
    results = paper_runs.over_seeds(o, jobs)
    print("\nbest effort decodes at workers alone (--offload always), LONGBENCH, one host")
    ratios = []
    for c, omni, paper in zip(cells, results[::2], results[1::2]):
        print(f"LS {c.rate:g}/s")
        paper_report.print_policies({"omni": omni, "paper": paper})
        if paper["be_tokens_s"] > 0:
            ratios.append(omni["be_tokens_s"] / paper["be_tokens_s"])
    return statistics.fmean(ratios) if ratios else None


# ---- Ablations ---------------------------------------------------------------------------------

ABLATIONS = (  # (what is taken out, or put in; further words)
    ("deadline order of jobs", ["--without", "deadlines"]),
    ("riding along", ["--without", "riding"]),
    ("two batches", ["--without", "two-batch"]),
    ("funded waiting", ["--without", "waiting"]),
    ("spread", ["--without", "spread"]),
    ("oldest first", ["--without", "oldest-first"]),
    ("admission", ["--admission", "off"]),
    ("delayed copy back", ["--without", "copy-back"]),
    ("staircase chunks", ["--without", "stairs"]),
    ("placement by worth", ["--without", "placement"]),
    ("staging place", ["--without", "staging"]),
    ("share for decodes", ["--without", "share"]),
    ("(with int8 KV)", ["--kv", "int8"]),
)
ABLATION_CELLS = (("a100x4", "DAILYMAIL"), ("a100x4+4", "1000/4000"), ("h200", "1000/4000"),
                  ("rtx4090", "DAILYMAIL"), ("rtx4090", "1000/4000"))


def run_ablations(o, tuned):
    """omni less one idea at a time: BE tokens/s against all of it, in percent; LS attainment's change."""
    cells = [cell(name, be) for name, be in ABLATION_CELLS]
    known = [a for a in ABLATIONS if a[0] != "admission" or o.has_admission]
    cases = [("all of it", []), *known]
    jobs = [(c, "omni", tuned(c.machine, "omni"), extra) for c in cells for _, extra in cases]
    results = paper_runs.over_seeds(o, jobs)
    by_cell = [results[i * len(cases):(i + 1) * len(cases)] for i in range(len(cells))]
    print("\nablations of omni: BE decode tokens/s in percent of all of it (LS attainment, points)")
    print("  without              " + "".join(f"{c.machine.name + ' ' + c.be:>22}" for c in cells))
    rows = []
    for k, (name, _) in enumerate(cases):
        shown = []
        for own in by_cell:
            whole, less = own[0], own[k]
            pct = 100 * less["be_tokens_s"] / whole["be_tokens_s"] if whole["be_tokens_s"] > 0 else float("nan")
            shown.append((pct, less["attainment_pct"] - whole["attainment_pct"]))
        print(f"  {name:21}" + "".join(f"{pct:13.1f} ({d:+6.2f})" for pct, d in shown))
        rows.append({"without": name, "be_pct": [s[0] for s in shown], "attainment_points": [s[1] for s in shown]})
    print("  all of it, tok/s     " + "".join(f"{own[0]['be_tokens_s']:22.1f}" for own in by_cell))
    return {"cells": [f"{c.machine.name} {c.be} {c.rate:g}/s" for c in cells], "rows": rows}


# ---- The published ratios ----------------------------------------------------------------------

def be_of(o, c, policy, tuned, extra):
    return (c, policy, tuned(c.machine, policy), extra)


def throughput_ratios(o, tuned):
    """The policy `paper` over each baseline, prompts and device decodes as assumed."""
    rates = paper_grid.MACHINE["a100x4"].rates
    wanted = (("3.47x, LongBench, one host", "a100x4", "LONGBENCH", 3.47),
              ("9.85x, LongBench, five hosts", "a100x4+4", "LONGBENCH", 9.85),
              ("9.1x, DailyMails, five hosts", "a100x4+4", "DAILYMAIL", 9.1))
    prompts = (("computed on the GPU", []), ("computed elsewhere", ["--be-computed"]))
    places = (("device and workers", []), ("workers alone", ["--offload", "always"]))
    baselines = (("ls-first", []), ("headroom", []), ("headroom, no CPU engine", ["--offload", "never"]),
                 ("harvest", []),
                 # all of the device's KV is kept for LS: one BE request at most is there
                 ("headroom, CPU engine alone", ["--params", "headroom_pct=100"]))
    jobs, keys = [], []
    for title, name, be, said in wanted:
        for rate in (rates[0], rates[-1]):
            c = paper_grid.Cell(paper_grid.MACHINE[name], be, rate)
            for prompt, more in prompts:
                for place, extra in places:
                    keys.append((title, said, rate, prompt, "paper", place))
                    jobs.append(be_of(o, c, "paper", tuned, more + extra))
                for base, extra in baselines:
                    keys.append((title, said, rate, prompt, "base", base))
                    jobs.append(be_of(o, c, base.split(",")[0], tuned, more + extra))
    return dict(zip(keys, paper_runs.over_seeds(o, jobs)))


def print_ratios(results):
    rows = []
    for title, said, rate, prompt, kind, place in results:
        if kind != "paper":
            continue
        ours = results[title, said, rate, prompt, kind, place]
        for (t, s, r, q, k, base), other in results.items():
            if (t, s, r, q, k) != (title, said, rate, prompt, "base"):
                continue
            x = ours["be_tokens_s"] / other["be_tokens_s"] if other["be_tokens_s"] > 0 else float("inf")
            rows.append({"published": title, "value": said, "ls_rate": rate, "prompts": prompt, "decodes": place,
                         "baseline": base, "paper_tokens_s": ours["be_tokens_s"],
                         "baseline_tokens_s": other["be_tokens_s"], "ratio": x,
                         "ls_kept": other["attainment_pct"] >= 99 and ours["attainment_pct"] >= 99})
    print("\nthe published ratios: policy `paper` over a baseline; * within a quarter of what was published")
    print("  published                      LS/s  prompts             paper decodes at     over"
          "                         tok/s   over tok/s   ratio")
    for r in rows:
        mark = "*" if abs(r["ratio"] / r["value"] - 1) <= 0.25 else " "
        print(f"  {r['published']:30} {r['ls_rate']:4g}  {r['prompts']:19} {r['decodes']:20} {r['baseline']:26}"
              f" {r['paper_tokens_s']:7.1f} {r['baseline_tokens_s']:12.1f} {r['ratio']:7.2f}{mark}"
              + ("" if r["ls_kept"] else "  (LS not kept by both)"))
    return rows


def five_over_one(results, tuned):
    """3.43x: five CPUs over one, of the policy `paper` itself, under the same assumptions."""
    rows = []
    print("\n3.43x, five hosts over one, of `paper` itself (LongBench)")
    for (title, said, rate, prompt, kind, place), one in results.items():
        if kind != "paper" or not title.startswith("3.47x"):
            continue
        five = next(r for (t, _, rt, q, k, p), r in results.items()
                    if t.startswith("9.85x") and (rt, q, k, p) == (rate, prompt, kind, place))
        x = five["be_tokens_s"] / one["be_tokens_s"] if one["be_tokens_s"] > 0 else float("inf")
        print(f"  LS {rate:g}/s, prompts {prompt}, decodes at {place}: {one['be_tokens_s']:.1f} -> "
              f"{five['be_tokens_s']:.1f} tok/s, {x:.2f}x" + (" *" if abs(x / 3.43 - 1) <= 0.25 else ""))
        rows.append({"ls_rate": rate, "prompts": prompt, "decodes": place, "ratio": x})
    return rows


def tpot_ratio(o, tuned):
    """1.48x: TPOT attainment at an objective of 0.15 s, 70B, 3 requests/s, over Llumnix."""
    cases = [("with its CPU engine", []), ("without", ["--offload", "never"])]
    rows = []
    print("\n1.48x (91.6 % over 62 %), LS TPOT attainment at 0.15 s, one host, 3 requests/s")
    for link in ("a100x4", "a100x4-pcie"):
        for rate in (2, 3):
            c = cell(link, "DAILYMAIL", rate, tpot=0.15)
            ours, *others = paper_runs.over_seeds(
                o, [be_of(o, c, "paper", tuned, [])] + [be_of(o, c, "headroom", tuned, e) for _, e in cases])
            for (name, _), other in zip(cases, others):
                x = ours["tpot_pct"] / other["tpot_pct"] if other["tpot_pct"] > 0 else float("inf")
                print(f"  {link:12} LS {rate}/s: paper {ours['tpot_pct']:.1f} %, headroom {name} "
                      f"{other['tpot_pct']:.1f} %: {x:.2f}x" + (" *" if abs(x / 1.48 - 1) <= 0.25 else ""))
                rows.append({"machine": link, "ls_rate": rate, "baseline": name, "ratio": x,
                             "paper_pct": ours["tpot_pct"], "baseline_pct": other["tpot_pct"]})
    return rows


def run_ratios(o, tuned):
    results = throughput_ratios(o, tuned)
    return {"throughput": print_ratios(results), "five_over_one": five_over_one(results, tuned),
            "tpot": tpot_ratio(o, tuned)}
