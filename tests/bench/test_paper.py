#!/usr/bin/env python3
"""The bench `paper` does what it says: --quick ends with every key, twice the same, and every study, ablation
and ratio runs; its search keeps to its budget, its seeds and its values; a best other that gives LS up is none,
and an omni that gives it up has lost."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import paper_grid  # noqa: E402
import paper_report  # noqa: E402
import paper_runs  # noqa: E402
import paper_studies  # noqa: E402
import paper_tune  # noqa: E402

KEYS = ("ls_gap_points", "gaps_in_slo_pct", "omni_vs_best_other_min", "bound_pct", "bound_pct_5hosts",
        "small_gpu_vs_harvest", "h200_reasoning_vs_harvest", "cpu_path_vs_paper", "sim_s",
        "ls_gap_alone_points", "cells_ls_lost", "omni_vs_best_other_min_sustained")


def bench(*words):
    done = subprocess.run([os.path.join(HERE, "paper"), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stdout[-2000:] + done.stderr)
    return done.stdout


def figures(*words):
    """What a run writes, less the time that it took."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        bench("--json", file.name, *words)
        with open(file.name, encoding="utf-8") as written:
            out = json.load(written)
    out.get("keys", {}).pop("sim_s", None)
    return out


class Quick(unittest.TestCase):
    def test_every_key_is_in_the_last_line(self):
        lines = bench("--quick", "--studies", "none", "--evaluations", "1").splitlines()
        keys = dict(word.split("=") for word in lines[-1].split())
        self.assertEqual(tuple(keys), KEYS)
        for value in keys.values():
            self.assertGreaterEqual(float(value), 0)
        for policy in paper_grid.POLICIES:
            self.assertTrue(any(line.startswith(f"  {policy} ") for line in lines), policy)

    def test_two_runs_are_the_same(self):
        words = ("--quick", "--machines", "rtx4090", "--be", "DAILYMAIL", "--studies", "sigma")
        self.assertEqual(figures(*words), figures(*words))

    def test_what_was_written_is_printed_again(self):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            first = bench("--quick", "--machines", "rtx4090", "--be", "DAILYMAIL", "--studies", "none",
                          "--evaluations", "1", "--json", file.name)
            again = bench("--again", file.name)
        self.assertEqual(again.splitlines()[-1], first.splitlines()[-1])
        table = again[again.index("\nrtx4090"):again.index("\nomni, tuned")]
        self.assertIn(table, first)


class Instead(unittest.TestCase):
    """A second of each: that it runs, names every case and has figures of it."""

    SECOND = ("--quick", "--evaluations", "1", "--seconds", "1", "--warm-up", "1")

    def test_studies(self):
        out = figures(*self.SECOND, "--machines", "rtx4090", "--be", "DAILYMAIL", "--studies", "all")["studies"]
        traced = ("arrivals", "reasoning")  # these need published traces, and are left out without
        self.assertEqual([name for name in out if name not in traced],
                         [name for name in paper_studies.STUDIES if name not in traced])
        for name, rows in out.items():
            least = 0 if name in traced else 5
            self.assertGreaterEqual(len(rows), least, name)

    def test_ablations(self):
        out = figures(*self.SECOND, "--ablations")["ablations"]
        self.assertEqual([r["without"] for r in out["rows"]],
                         ["all of it", *(name for name, _ in paper_studies.ABLATIONS)])
        self.assertEqual({len(r["be_pct"]) for r in out["rows"]}, {len(paper_studies.ABLATION_CELLS)})

    def test_published_ratios(self):
        out = figures(*self.SECOND, "--paper-ratios")["ratios"]
        self.assertEqual({r["value"] for r in out["throughput"]}, {3.47, 9.85, 9.1})
        self.assertTrue(out["five_over_one"] and out["tpot"])


class Search(unittest.TestCase):
    def setUp(self):
        self.runs = []
        self.real = paper_tune.paper_runs.run_all
        paper_tune.paper_runs.run_all = self.run_all

    def tearDown(self):
        paper_tune.paper_runs.run_all = self.real

    def run_all(self, _, lists):
        """The best is free_pct or headroom_pct 3 with use_pct 90; LS suffers at 100, and on one machine at 90."""
        self.runs += lists
        out = []
        for words in lists:
            text = words[words.index("--params") + 1] if "--params" in words else ""
            rate = 50 + 20 * ("use_pct=90" in text) + 10 * ("free_pct=3" in text)
            one = "use_pct=90" in text and words[words.index("--hosts") + 1] == "1"
            late = 5 if "use_pct=100" in text or one else 0
            out.append({"be": {"tokens_s": rate, "stock_gain_s": 0}, "bounds": {"joint": 100, "p": 100},
                        "ls": {"attainment_pct": 99.9 - late, "gaps_in_slo_pct": 100}})
        return out

    def options(self, n):
        return argparse.Namespace(be=["DAILYMAIL"], rates=None, evaluations=n, jobs=1, warm_up=1, seconds=1,
                                  prefilled=0, profiles="", reasoning=None, ls="SHAREGPT")

    def test_each_policy_gets_the_same_number_of_evaluations_on_other_seeds(self):
        found = paper_tune.search(self.options(8), paper_grid.MACHINE["a100x4"], paper_grid.POLICIES)
        self.assertEqual({f["tried"] for f in found.values()}, {8})
        for policy in paper_grid.POLICIES:
            own = [w for w in self.runs if w[w.index("--policy") + 1] == policy and "none" not in w]
            self.assertEqual(len(own), 8, policy)
        seeds = {int(w[w.index("--seed") + 1]) for w in self.runs}
        self.assertTrue(min(seeds) > paper_grid.SEED + 50, seeds)

    def test_it_finds_what_is_better_and_keeps_ls(self):
        found = paper_tune.search(self.options(40), paper_grid.MACHINE["a100x4"], ("harvest", "omni"))
        for f in found.values():
            self.assertEqual(f["parameters"].get("use_pct"), 90)
            self.assertGreater(f["worth"], f["default_worth"])

    def test_a_machine_like_another_takes_what_was_found_only_where_it_is_better(self):
        found = {p: {"parameters": {"use_pct": 90}} for p in ("omni", "ls-first")}
        like, unlike = (paper_grid.MACHINE["a100x4"]._replace(name="like", hosts=n) for n in (0, 1))
        for machine, expected in ((like, {"use_pct": 90}), (unlike, {})):
            for policy, own in paper_tune.taken(self.options(1), machine, found).items():
                self.assertEqual(own["parameters"], expected, policy)
                self.assertEqual(own["worth"], max(own["worth"], own["default_worth"]))

    def test_every_machine_of_the_grid_is_searched(self):
        self.assertFalse(set(paper_grid.TUNED_LIKE) & set(paper_grid.MACHINE))
        held_out = {c.machine.name for c in paper_grid.HELD_OUT}
        self.assertTrue(held_out <= {*paper_grid.MACHINE, *paper_grid.TUNED_LIKE})

    def test_values_are_within_what_is_declared(self):
        paper_tune.search(self.options(20), paper_grid.MACHINE["h200"], paper_grid.POLICIES)
        for words in self.runs:
            policy = words[words.index("--policy") + 1]
            text = words[words.index("--params") + 1] if "--params" in words else ""
            for name, value in (pair.split("=") for pair in text.split(",") if pair):
                self.assertIn(int(value), paper_tune.PARAMETERS[policy][name])


def result(tokens, attainment, **more):
    return {"be_tokens_s": tokens, "stock_gain_s": 0, "attainment_pct": attainment, "gaps_in_slo_pct": 100,
            "admitted": 100, "bound": 200, "bound_p": 200, **more}


def row(policies, alone=99.8, be="DAILYMAIL"):
    return paper_report.judged({"machine": "rtx4090", "be": be, "hosts": 0, "ls_rate": 1,
                                "policies": policies, "ls_alone": result(0, alone)})


class Verdict(unittest.TestCase):
    def test_who_gives_ls_up_is_not_held_against_omni(self):
        verdict = paper_report.judge({"omni": result(100, 99.5), "ls-first": result(50, 99.8),
                                      "harvest": result(110, 99.0), "sync": result(180, 90)})
        self.assertEqual(verdict["best_other"], "harvest")
        self.assertAlmostEqual(verdict["vs_best_other"], 100 / 110)
        self.assertAlmostEqual(verdict["ls_gap_points"], 0.3)
        self.assertEqual(verdict["bound_pct"], 50)
        self.assertTrue(verdict["keeps_ls"])

    def test_where_omni_gives_ls_up_the_cell_is_lost(self):
        lost = row({"omni": result(190, 98.7), "ls-first": result(10, 70), "harvest": result(100, 99.5)})
        kept = row({"omni": result(90, 99.7), "ls-first": result(10, 99.7), "harvest": result(100, 99.5)})
        self.assertFalse(lost["keeps_ls"])
        self.assertEqual(lost["ls_gap_points"], 0)  # ls-first itself has collapsed
        self.assertAlmostEqual(lost["ls_gap_alone_points"], 1.1)
        keys = paper_report.last_line([lost, kept], [], None, None)
        self.assertEqual(keys["cells_ls_lost"], 1)
        self.assertAlmostEqual(keys["ls_gap_alone_points"], 1.1)
        self.assertAlmostEqual(keys["omni_vs_best_other_min"], 0.9)
        self.assertAlmostEqual(keys["bound_pct"], (0 + 45) / 2)
        self.assertAlmostEqual(keys["small_gpu_vs_harvest"], (0 + 0.9) / 2)

    def test_who_is_above_the_bound_and_who_serves_nobody_is_named(self):
        own = row({"omni": result(90, 99.7), "ls-first": result(300, 0, admitted=0),
                   "stream": result(210, 99.7, stock_gain_s=-60), "sync": result(400, 80)})
        self.assertEqual(own["above_bound"], ["stream"])  # of those that keep LS
        self.assertEqual(own["serves_no_ls"], ["ls-first"])
        self.assertEqual((own["best_other"], own["best_other_sustained"]), ("stream", "stream"))
        self.assertAlmostEqual(own["vs_best_other_sustained"], 90 / 150)

    def test_tokens_out_of_the_stock_are_taken_off_at_what_their_prompts_cost(self):
        sustained = paper_runs.sustained
        self.assertEqual(sustained(100, 0, 400), 100)
        # Prompts are all that is scarce: 100 tokens/s as prompts pay for, 30 of them out of the stock.
        self.assertEqual(sustained(100, -30, 100), 70)
        # Four times as many prompts would fit: a token of stock cost a quarter of the time of one made.
        self.assertEqual(sustained(100, -40, 400), 90)
        self.assertEqual(sustained(100, 40, 400), 110)
        # More made than prompts pay for at all: never more than token for token.
        self.assertEqual(sustained(100, -60, 50), 40)
        self.assertEqual(sustained(0, 40, 0), 40)

    def test_profiles_that_are_kept_are_read(self):
        o = argparse.Namespace(warm_up=0, seconds=2, prefilled=0, profiles=paper_grid.OWN_PROFILES, reasoning=None,
                               ls=paper_grid.SHAREGPT)
        for m in paper_grid.MACHINES:
            cell = paper_grid.Cell(m, "DAILYMAIL", 1)
            timing = paper_runs.simulate(paper_runs.words_of(o, cell, "omni", 1))["run"]["timing"]
            self.assertTrue(timing.endswith(f"{m.machine}-{m.model}.profile"), timing)


if __name__ == "__main__":
    paper_runs.program("omni-sim")  # or skipped
    unittest.main()
