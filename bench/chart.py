"""The picture of the results: how many times Ray's speed, row by row.

Owns the drawing. It must not know how a row was measured. By itself it draws a results.json again.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from bars import BARS, LIMITS, AllResults
from common import MACHINE, OURS, Runs, shown
from matplotlib import pyplot

OUR_COLOUR: Final = "#2a6f97"
BAR_COLOUR: Final = "#d1495b"
# {engine: (marker, colour)}
PEERS: Final = {
    "ProcessPoolExecutor": ("o", "#edae49"),
    "Pool": ("s", "#66a182"),
    "joblib": ("^", "#8d6a9f"),
    "shared_memory": ("D", "#5c4d3c"),
    "numpy": ("v", "#7f7f7f"),
    MACHINE: ("*", "#000000"),
}


def times_ray(runs: Runs, engine: str) -> float:
    """Return an engine's value as a multiple of Ray's best; ours is the median."""
    value = runs.median(engine) if engine == OURS else runs.best(engine)
    ray = runs.best("ray")
    return ray / value if runs.less_is_better else value / ray


def draw(results: AllResults, facts: dict[str, Any], path: Path) -> None:
    """Draw the rows with a bar that Ray and we have, the highest lead at the top."""
    judged = {(bar.script, bar.row) for bar in BARS}
    rows = [
        (times_ray(runs, OURS), script, row, runs)
        for script, by_row in results.items()
        for row, runs in by_row.items()
        if (script, row) in judged and OURS in runs.values and "ray" in runs.values
    ]
    if not rows:
        return
    rows.sort(key=lambda row: row[0])
    figure, axes = pyplot.subplots(figsize=(11, 1.8 + 0.26 * len(rows)))
    axes.barh(range(len(rows)), [row[0] - 1 for row in rows], left=1, color=OUR_COLOUR, height=0.62)
    demands = {(bar.script, bar.row): bar.at_least for bar in BARS if bar.peer == "ray"}
    for y, (lead, script, row, runs) in enumerate(rows):
        _write_lead(axes, y, lead)
        if (script, row) in demands:
            axes.vlines(demands[script, row], y - 0.42, y + 0.42, color=BAR_COLOUR, linewidth=1.8)
        _draw_peers(axes, y, runs, results[script].get(LIMITS.get((script, row), "")))
    _label(axes, [row[2] for row in rows], facts)
    _explain(axes)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(figure)


def _write_lead(axes: Any, y: int, lead: float) -> None:
    where = axes.get_yaxis_transform()  # x: a share of the width, clear of all that is drawn
    axes.text(1.01, y, f"{shown(lead)} x", va="center", fontsize=8, transform=where)


def _draw_peers(axes: Any, y: int, runs: Runs, limit: Runs | None) -> None:
    for engine, (marker, colour) in PEERS.items():
        if engine in runs.values:
            x = times_ray(runs, engine)
        elif engine == MACHINE and limit is not None and MACHINE in limit.values:
            x = limit.best(MACHINE) / runs.best("ray")
        else:
            continue
        edge = colour if engine == MACHINE else "white"
        axes.plot(x, y, marker, color=colour, markersize=6, markeredgecolor=edge, zorder=3)


def _label(axes: Any, names: list[str], facts: dict[str, Any]) -> None:
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(-0.8, len(names) - 0.2)
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_xlabel("times Ray, in the same run (logarithmic; more is better on every row)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    ray = facts.get("versions", {}).get("ray")
    axes.set_title(
        f"ray_lite (median) against Ray {ray} and others (best), "
        f"{facts.get('cpus')} CPUs, Python {facts.get('python')}",
        fontsize=10,
        loc="left",
    )


def _explain(axes: Any) -> None:
    axes.plot([], [], "-", color=OUR_COLOUR, linewidth=6, label=OURS)
    axes.plot([], [], "|", color=BAR_COLOUR, markersize=9, markeredgewidth=2, label="the bar")
    for engine, (marker, colour) in PEERS.items():
        name = "the machine's limit" if engine == MACHINE else engine
        axes.plot([], [], marker, color=colour, markersize=5, label=name)
    axes.legend(fontsize=8, loc="lower right", framealpha=1)


def main() -> None:
    """Draw a results.json again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("png", type=Path)
    options = parser.parse_args()
    values = json.loads(options.json.read_text())
    results = {
        script: {row: Runs(runs["unit"], runs["values"]) for row, runs in rows.items()}
        for script, rows in values["rows"].items()
    }
    draw(results, values["facts"], options.png)


if __name__ == "__main__":
    main()
