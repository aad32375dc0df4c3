"""What the benchmarks that load a real server share: running omni-bench-load, and reading what it measured.

A load is a list of asks (seconds, class, prompt, output), seconds None for the backlog, or options of the
generator.  Attainment is the share of offered LS requests whose TTFT and TPOT both met their objective: a
refused or failed one has not met it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile

from omni_e2e import program

LATE_MS = 5  # a generator whose 99th percentile is later than this was a part of what it measured


# ---- Running -----------------------------------------------------------------------------------


def write_plan(asks, path):
    with open(path, "w", encoding="utf-8") as file:
        for at, name, prompt, output in asks:
            file.write(f"{'-' if at is None else f'{at:.6f}'} {name} {prompt} {output}\n")


def run(target, options, asks=None):
    """One load against a target: ("--config", FILE) or ("--http", PORT).  The generator's report."""
    command = [program("omni-bench-load"), *map(str, target)]
    for key, value in options.items():
        command += ["--" + key.replace("_", "-"), str(value)]
    with tempfile.NamedTemporaryFile("w", suffix=".plan") as plan:
        if asks is not None:
            write_plan(asks, plan.name)
            command += ["--plan", plan.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"omni-bench-load failed: {done.stderr.strip()[-1000:]}")
    return dict(json.loads(done.stdout), said=done.stderr[-1000:])


@contextlib.contextmanager
def niceness(nice):
    """This process and what it starts, at that nice value; below 0 needs root.  Where sessions share the
    cores before processes do (sched_autogroup), it is the session's."""
    path = "/proc/self/autogroup"
    was = open(path, encoding="ascii").read().split()[-1] if nice and os.path.exists(path) else None
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        set_autogroup(path, was and nice)
        yield
    finally:
        set_autogroup(path, was)


def set_autogroup(path, nice):
    if nice is not None:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(nice))


def core_time(processes):
    """Nanoseconds that they ran, and that they were ready to run and did not."""
    ran = waited = 0
    for process in processes:
        for task in os.listdir(f"/proc/{process.pid}/task"):
            with open(f"/proc/{process.pid}/task/{task}/schedstat", encoding="ascii") as file:
                one, two, _ = file.read().split()
            ran, waited = ran + int(one), waited + int(two)
    return ran, waited


def run_watched(target, processes, options, asks=None):
    """run, and the share of the core time wanted by the processes that others on the machine had."""
    before = core_time(processes)
    report = run(target, options, asks)
    ran, waited = (after - was for after, was in zip(core_time(processes), before))
    return dict(report, waited_share=waited / (ran + waited) if ran + waited else 0)


def end_cleanly():
    """Makes SIGTERM and SIGINT end this program by an exception, so that what it started ends too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("interrupted"))


# ---- Figures -----------------------------------------------------------------------------------


def percentile(values, share):
    """The nearest rank; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def ratio(part, whole):
    return part / whole if part is not None and whole else None


def attainment(requests, ttft_ms, tpot_ms):
    """Of measured LS requests: shares that met both objectives, each alone, and of the admitted."""
    def met(one, key, limit):
        return one["outcome"] == "done" and (one[key] is None or one[key] <= limit)

    both = sum(met(one, "ttft_ms", ttft_ms) and met(one, "tpot_ms", tpot_ms) for one in requests)
    admitted = sum(one["outcome"] != "refused" for one in requests)
    return {"attained": ratio(both, len(requests)), "attained_admitted": ratio(both, admitted),
            "ttft_attained": ratio(sum(met(one, "ttft_ms", ttft_ms) for one in requests), len(requests)),
            "tpot_attained": ratio(sum(met(one, "tpot_ms", tpot_ms) for one in requests), len(requests)),
            "n_met": both}


def ls_requests(reports):
    return [one for report in reports for one in report["requests"] if one["class"] == "ls"]


def summary(reports, ttft_ms=None, tpot_ms=None):
    """Of one or several runs of the same load, taken together."""
    ls = ls_requests(reports)
    gaps = [gap for report in reports for gap in report["ls_gaps_ms"]]
    seconds = sum(report["seconds"] for report in reports)

    def total(key):
        return sum(report["window"][key] for report in reports)

    out = {f"{what}_{name}": percentile([one[what + "_ms"] for one in ls if one[what + "_ms"] is not None], at)
           for what in ("ttft", "tpot") for name, at in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    out.update({f"gap_{name}": percentile(gaps, at)
                for name, at in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1))})
    out.update({"ls_" + key: sum(one["outcome"] == key for one in ls)
                for key in ("done", "refused", "failed", "cancelled", "unfinished")})
    out.update(
        ls_offered=len(ls), ls_per_s=len(ls) / seconds,
        be_tok_s=total("be_decode_tokens") / seconds, be_prefill_tok_s=total("be_prefill_tokens") / seconds,
        worker_share=ratio(total("be_worker_tokens"), total("be_worker_tokens") + total("be_device_tokens")),
        rode_share=ratio(total("be_ridealong_jobs"), total("be_ridealong_jobs") + total("be_parked_jobs")),
        late_p99_ms=max(report["lateness_ms"]["p99"] for report in reports),
        waited_share=max(report.get("waited_share", 0) for report in reports))
    if ttft_ms:
        out.update(attainment(ls, ttft_ms, tpot_ms), slo_ttft_ms=ttft_ms, slo_tpot_ms=tpot_ms,
                   gaps_in_slo=ratio(sum(gap <= tpot_ms for gap in gaps), len(gaps)))
        out["goodput"] = out["n_met"] / seconds
    return out


def problems_of(name, reports, quick=False):
    """Why this run is no figure: requests that are in no book, failures, a generator that was late.  A quick run
    shows that all of it works, and makes no figure: it may be late, on a machine that others use."""
    found = []
    for report in reports:
        for key, book in report["books"].items():
            ended = sum(book[what] for what in ("done", "refused", "failed", "cancelled", "unfinished"))
            if ended != book["offered"]:
                found.append(f"{name}: {key}: {book['offered']} offered, {ended} in the books")
            if book["failed"]:
                found.append(f"{name}: {key}: {book['failed']} failed: {report['said'][-200:]}")
        if report["lateness_ms"]["p99"] > LATE_MS and not quick:
            found.append(f"{name}: the generator itself sent {report['lateness_ms']['p99']:.1f} ms late (p99)")
    return found


# ---- Report ------------------------------------------------------------------------------------


def cell(key, value):
    if value is None:
        return "-"
    if "share" in key or "attained" in key or key == "gaps_in_slo":
        return f"{100 * value:.1f} %"
    return str(value) if isinstance(value, (int, str)) else f"{value:.4g}" if abs(value) < 10 else f"{value:.0f}"


def print_table(rows, columns):
    """rows: name -> figures; columns: (title, key)."""
    wide = max((len(name) for name in rows), default=0) + 1
    widths = [max(len(title), 7) + 1 for title, _ in columns]
    print(" " * wide + "".join(f"{title:>{w}}" for (title, _), w in zip(columns, widths)))
    for name, one in rows.items():
        print(f"{name:{wide}}" + "".join(f"{cell(key, one.get(key)):>{w}}" for (_, key), w in zip(columns, widths)))


def last_line(values):
    print(" ".join(f"{key}={'-' if value is None else f'{value:.4g}' if isinstance(value, float) else value}"
                   for key, value in values.items()))


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else 'unknown cpu'}, {len(os.sched_getaffinity(0))} cpus"
