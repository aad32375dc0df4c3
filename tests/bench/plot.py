"""Draws a benchmark's JSON: plot.py IN.json OUT.png

Expected: {"title": ..., "x_label": ..., "y_label": ..., "log_x": bool, "log_y": bool,
           "series": [{"name": ..., "x": [...], "y": [...]}, ...]}
Numbers as x make lines; words as x make groups of bars.
"""

import json
import sys

try:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
except ImportError:
    sys.exit("plot.py needs matplotlib: apt-get install python3-matplotlib")


def draw_bars(axes, series):
    words = list(dict.fromkeys(x for one in series for x in one["x"]))
    width = 0.8 / len(series)
    for i, one in enumerate(series):
        places = [words.index(x) + (i - (len(series) - 1) / 2) * width for x in one["x"]]
        axes.bar(places, one["y"], width, label=one["name"])
    axes.set_xticks(range(len(words)), words)


def draw_lines(axes, series):
    for one in series:
        axes.plot(one["x"], one["y"], marker="o", label=one["name"])


def main(source, target):
    with open(source, encoding="utf-8") as file:
        bench = json.load(file)
    series = bench.get("series") or sys.exit(f"{source} has no series to draw")
    figure, axes = pyplot.subplots(figsize=(8, 5))
    words = any(isinstance(x, str) for one in series for x in one["x"])
    (draw_bars if words else draw_lines)(axes, series)
    if bench.get("log_x"):
        axes.set_xscale("log", base=2)
    if bench.get("log_y"):
        axes.set_yscale("log")
    axes.set(title=bench.get("title", ""), xlabel=bench.get("x_label", ""), ylabel=bench.get("y_label", ""))
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:3])
