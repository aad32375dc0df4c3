#!/usr/bin/env python3
"""The bench `paper` does what it says: --quick ends with every key, twice the same; its search keeps to
its budget, its seeds and its values; a best other that gives LS up is not one."""

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
import paper_tune  # noqa: E402

KEYS = ("ls_gap_points", "gaps_in_slo_pct", "omni_vs_best_other_min", "bound_pct", "bound_pct_5hosts",
        "small_gpu_vs_harvest", "h200_reasoning_vs_harvest", "cpu_path_vs_paper", "sim_s",
        "omni_vs_best_other_min_sustained")


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
    out["keys"].pop("sim_s")
    return out


class Quick(unittest.TestCase):
    def test_every_key_is_in_the_last_line(self):
        lines = bench("--quick", "--studies", "tpot", "--evaluations", "1").splitlines()
        keys = dict(word.split("=") for word in lines[-1].split())
        self.assertEqual(tuple(keys), KEYS)
        for value in keys.values():
            self.assertGreaterEqual(float(value), 0)
        for policy in paper_grid.POLICIES:
            self.assertTrue(any(line.startswith(f"  {policy} ") for line in lines), policy)

    def test_two_runs_are_the_same(self):
        words = ("--quick", "--machines", "rtx4090", "--be", "DAILYMAIL", "--studies", "sigma")
        self.assertEqual(figures(*words), figures(*words))


class Search(unittest.TestCase):
    def setUp(self):
        self.runs = []
        self.real = paper_tune.paper_runs.run_all
        paper_tune.paper_runs.run_all = self.run_all

    def tearDown(self):
        paper_tune.paper_runs.run_all = self.real

    def run_all(self, _, lists):
        """The best is free_pct or headroom_pct 3 with use_pct 90; LS suffers at 100."""
        self.runs += lists
        out = []
        for words in lists:
            text = words[words.index("--params") + 1] if "--params" in words else ""
            rate = 50 + 20 * ("use_pct=90" in text) + 10 * ("free_pct=3" in text)
            late = 5 if "use_pct=100" in text else 0
            out.append({"be": {"tokens_s": rate, "stock_gain_s": 0}, "bounds": {"joint": 100, "p": 100},
                        "ls": {"attainment_pct": 99.9 - late, "gaps_in_slo_pct": 100}})
        return out

    def options(self, n):
        return argparse.Namespace(be=["DAILYMAIL"], evaluations=n, jobs=1, warm_up=1, seconds=1, prefilled=0,
                                  profiles="", reasoning=None)

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

    def test_values_are_within_what_is_declared(self):
        paper_tune.search(self.options(20), paper_grid.MACHINE["h200"], paper_grid.POLICIES)
        for words in self.runs:
            policy = words[words.index("--policy") + 1]
            text = words[words.index("--params") + 1] if "--params" in words else ""
            for name, value in (pair.split("=") for pair in text.split(",") if pair):
                self.assertIn(int(value), paper_tune.PARAMETERS[policy][name])


class Verdict(unittest.TestCase):
    def test_who_gives_ls_up_is_not_held_against_omni(self):
        def result(tokens, attainment):
            return {"be_tokens_s": tokens, "stock_gain_s": 0, "attainment_pct": attainment, "bound": 200,
                    "bound_p": 200}
        verdict = paper_report.judge({"omni": result(100, 99.5), "ls-first": result(50, 99.8),
                                      "harvest": result(110, 99.0), "sync": result(180, 90)})
        self.assertEqual(verdict["best_other"], "harvest")
        self.assertAlmostEqual(verdict["vs_best_other"], 100 / 110)
        self.assertAlmostEqual(verdict["ls_gap_points"], 0.3)
        self.assertEqual(verdict["bound_pct"], 50)

    def test_profiles_that_are_kept_are_read(self):
        o = argparse.Namespace(warm_up=0, seconds=2, prefilled=0, profiles=paper_grid.OWN_PROFILES, reasoning=None)
        for m in paper_grid.MACHINES:
            cell = paper_grid.Cell(m, "DAILYMAIL", 1)
            timing = paper_runs.simulate(paper_runs.words_of(o, cell, "omni", 1))["run"]["timing"]
            self.assertTrue(timing.endswith(f"{m.machine}-{m.model}.profile"), timing)


if __name__ == "__main__":
    paper_runs.program("omni-sim")  # or skipped
    unittest.main()
