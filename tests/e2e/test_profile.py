#!/usr/bin/env python3
"""A group keeps a profile and uses it again; a damaged one is refused by its field and replaced; `omni
profile` shows, checks and refuses; the sweep log has a line per sweep, predicted before measured."""

import glob
import json
import os

from omni_e2e import Group, tiny_model


def profile_in(folder):
    found = glob.glob(os.path.join(folder, "*.profile"))
    assert len(found) == 1, found
    return found[0]


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def expect(done, code, word):
    text = done.stdout + done.stderr
    assert done.returncode == code and word in text, f"exit {done.returncode}, expected {code} and '{word}':\n{text}"


def restart_engine(group):
    group.signal("engine-0", 15)
    group.start_program("engine-0")
    group.wait_ready()
    return group.log("engine-0", 50)


def test_kept_and_refused(group, folder):
    path = profile_in(folder)
    assert "profile_taken" in group.log("engine-0", 50)
    first = text_of(path)
    log = restart_engine(group)
    assert "profile_loaded" in log
    assert text_of(path) == first
    with open(path, "w", encoding="utf-8") as file:
        file.write(first.replace("row_ns=", "row_ns=x", 1))
    log = restart_engine(group)
    assert "profile_refused" in log and "row_ns" in log
    assert "row_ns=x" not in text_of(path)


def test_plot(group):
    """Drawn where matplotlib is; else, and without the script, said so."""
    drawn = os.path.join(group.dir, "profile.png")
    done = group.omni("profile", "--plot", drawn)
    if done.returncode == 0:
        with open(drawn, "rb") as file:
            assert file.read(4) == b"\x89PNG"
    else:
        assert "matplotlib" in done.stderr, done.stderr
    nowhere = group.omni("profile", "--plot", drawn, env=dict(os.environ, OMNI_PLOT="/nowhere/plot.py"))
    expect(nowhere, 1, "it was not drawn")


def test_command(group, folder):
    path = profile_in(folder)
    expect(group.omni("profile"), 0, "mean accuracy")
    report = json.loads(group.omni("profile", "--json").stdout)
    assert {"dense", "decodes", "chunk", "head"} <= {one["module"] for one in report["shapes"]}
    assert len(report["panels"]) == 4 and all(
        len(line["x"]) == len(line["y"]) > 1 and line["x"] == sorted(line["x"])
        for panel in report["panels"] for line in panel["series"]), report["panels"]
    test_plot(group)
    expect(group.omni("profile", "--check", path), 0, "a profile of this model and device")
    expect(group.omni("profile", "--check", path + ".none"), 1, "No such file")
    other = tiny_model(group.dir, "--seed", "99", name="other.gguf")
    expect(group.omni("profile", "--model", other, "--check", path), 1, "model_hash")
    expect(group.omni("profile", "--nope"), 2, "see omni profile --help")
    bad = os.path.join(group.dir, "bad.profile")
    with open(bad, "w", encoding="utf-8") as file:
        file.write(text_of(path).replace("kv_type=f16", "kv_type=f64", 1))
    expect(group.omni("profile", "--check", bad), 1, "kv_type")


def test_sweep_log(group, path):
    group.run([{"prompt": "one two three", "max_tokens": 40}] * 3, cls="be")
    group.signal("engine-0", 15)  # the rest of the buffer is written at the end
    lines = text_of(path).splitlines()
    names, rows = lines[0].split(), [line.split() for line in lines[1:]]
    assert len(rows) > 10 and all(len(row) == len(names) for row in rows)
    assert names.index("p_total_ns") < names.index("m_total_ns")
    total = [float(row[names.index("m_total_ns")]) for row in rows]
    parts = [sum(float(row[names.index(f"m_{part}_ns")]) for part in ("dense", "attention", "head")) for row in rows]
    assert all(abs(a - b) <= 0.01 * a + 1000 for a, b in zip(total, parts)), "the modules are the sweep"
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))


def main():
    with Group(n_workers=1) as group:
        folder, log = os.path.join(group.dir, "kept"), os.path.join(group.dir, "sweeps")
        group.write_config({"engine.profile": "auto", "engine.profile_dir": folder, "engine.sweep_log": log,
                            "engine.threads": 1})
        group.start()
        test_kept_and_refused(group, folder)
        test_command(group, folder)
        test_sweep_log(group, log)
    print("ok")


if __name__ == "__main__":
    main()
