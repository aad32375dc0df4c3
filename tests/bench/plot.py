"""Draws a benchmark's JSON: plot.py IN.json OUT.png

Expected: {"title": ..., "x_label": ..., "y_label": ..., "log_x": bool, "log_y": bool,
           "series": [{"name": ..., "x": [...], "y": [...]}, ...]}
Numbers as x make lines; words as x make groups of bars; "plain": lines without marks.

Several plots in one picture: "panels": a list of such objects, three in a row (then "series" is not drawn).
"""

import json
import sys

try:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
except ImportError:
    sys.exit("plot.py needs matplotlib: apt-get install python3-matplotlib")

COLUMNS = 3


def draw_bars(axes, series):
    words = list(dict.fromkeys(x for one in series for x in one["x"]))
    width = 0.8 / len(series)
    for i, one in enumerate(series):
        places = [words.index(x) + (i - (len(series) - 1) / 2) * width for x in one["x"]]
        axes.bar(places, one["y"], width, label=one["name"])
    axes.set_xticks(range(len(words)), words)


def draw_lines(axes, series, plain):
    for one in series:
        axes.plot(one["x"], one["y"], marker=None if plain else "o", label=one["name"])


def draw_panel(axes, panel):
    series = panel.get("series") or []
    if any(isinstance(x, str) for one in series for x in one["x"]):
        draw_bars(axes, series)
    else:
        draw_lines(axes, series, panel.get("plain"))
    if panel.get("log_x"):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    if panel.get("log_y"):
        axes.set_yscale("log")
    axes.set(title=panel.get("title", ""), xlabel=panel.get("x_label", ""), ylabel=panel.get("y_label", ""))
    axes.grid(True, alpha=0.3)
    if series:
        axes.legend(fontsize="small")


def main(source, target):
    with open(source, encoding="utf-8") as file:
        bench = json.load(file)
    panels = bench.get("panels") or ([bench] if bench.get("series") else sys.exit(f"{source} has no series to draw"))
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(rows, columns, squeeze=False,
                                   figsize=(8, 5) if len(panels) == 1 else (5 * columns, 4 * rows))
    for axes, panel in zip(grid.flat, panels):
        draw_panel(axes, panel)
    for axes in list(grid.flat)[len(panels):]:
        axes.set_visible(False)
    if len(panels) > 1:
        figure.suptitle(bench.get("title", ""))
    figure.tight_layout()
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:3])
