"""Run every benchmark in one go, and say which bars hold.

Writes a table (results.md), all values (results.json) and a chart (results.png) into a directory,
and prints the table. `make bench` calls it; README.md of this directory says what the rows mean.
"""

import argparse
import dataclasses
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bars import BARS, MEAN_AT_LEAST, AllResults, Bar, judge, share_of_limit
from common import BUILD, MACHINE, OURS, Plan, Runs, add_options, as_json, collect, lead, plan_from
from common import shown as number

SCRIPTS: Final = (
    "startup",
    "tasks",
    "wait",
    "actors",
    "put_get",
    "attached",
    "generators",
    "scaling",
    "memory",
)
HEADER: Final = ("row", "ray_lite", "spread", "peer", "its best", "ratio", "bar", "", "of limit")
VERSION: Final = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


def run_all(scripts: list[str], plan: Plan) -> AllResults:
    """Run the scripts one after the other."""
    results: AllResults = {}
    for script in scripts:
        module = importlib.import_module(script)
        most = getattr(module, "MOST_REPEATS", plan.repeats)
        repeats = min(plan.repeats, most)
        results[script] = collect(
            script, module.ENGINES, dataclasses.replace(plan, repeats=repeats)
        )
    return results


# ---- The table ---------------------------------------------------------------------------------


def table(results: AllResults) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each line: one for each row and peer, and for each bar without a peer."""
    bars: dict[tuple[str, str], list[Bar]] = {}
    for bar in BARS:
        bars.setdefault((bar.script, bar.row), []).append(bar)
    for script, rows in results.items():
        missing = [row for name, row in bars if name == script and row not in rows]
        for row in [*rows, *missing]:
            runs = rows.get(row, Runs(""))
            yield from _lines_of(script, row, runs, bars.get((script, row), []), results)


def _lines_of(
    script: str, row: str, runs: Runs, bars: list[Bar], results: AllResults
) -> Iterator[tuple[str, ...]]:
    share = share_of_limit(script, row, results)
    start: tuple[str, ...] = (f"{row} ({runs.unit})", "not there", "")
    if OURS in runs.values:
        values = runs.values[OURS]
        spread = f"{number(min(values))} to {number(max(values))}"
        start = (start[0], number(runs.median(OURS)), spread)
    elif MACHINE in runs.values:
        start = (start[0], "", "")
    elif not runs.values:
        start = (row, "not measured", "")
    of_limit = "" if share is None else f"{share:.2f}"
    for peer, cells in _peers_of(runs, bars, results):
        yield (*start, peer, *cells, of_limit)
        start, of_limit = ("", "", ""), ""


def _peers_of(
    runs: Runs, bars: list[Bar], results: AllResults
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (peer, (its best, ratio, bar, holds)) for each; one line at least.

    A bar without a peer is in the first line, whatever peer is there.
    """
    by_peer = {bar.peer: bar for bar in bars}
    absolute = by_peer.pop("", None)
    peers = [engine for engine in runs.values if engine != OURS]
    others = [peer for peer in by_peer if peer not in peers]
    for peer in [*peers, *others] or [""]:
        has = peer in runs.values
        best = number(runs.best(peer)) if has else ""
        ratio = number(lead(runs, peer)) if has and OURS in runs.values else ""
        bar, absolute = by_peer.get(peer) or absolute, None
        demand = _demand_of(bar, results) if bar else ("", "")
        yield "the limit" if peer == MACHINE and not has else peer, (best, ratio, *demand)


def _demand_of(bar: Bar, results: AllResults) -> tuple[str, str]:
    return bar.text(), {True: "holds", False: "MISSED", None: "?"}[judge(bar, results).holds]


def print_markdown(lines: list[tuple[str, ...]]) -> str:
    """Return a Markdown table that is also readable as it is."""
    rows = [HEADER, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    shown = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    shown.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(shown) + "\n"


def geometric_mean(results: AllResults) -> float | None:
    """Return the mean of our lead over Ray, each row with a bar once."""
    leads = {}
    for bar in BARS:
        runs = results.get(bar.script, {}).get(bar.row)
        if runs and OURS in runs.values and "ray" in runs.values:
            leads[bar.script, bar.row] = math.log(lead(runs, "ray"))
    return math.exp(sum(leads.values()) / len(leads)) if leads else None


def summary(results: AllResults) -> str:
    """Return how many bars hold, and the mean."""
    verdicts = [judge(bar, results) for bar in BARS]
    held = sum(verdict.holds is True for verdict in verdicts)
    missed = sum(verdict.holds is False for verdict in verdicts)
    text = f"{held} bars hold, {missed} are missed, {len(verdicts) - held - missed} not measured."
    mean = geometric_mean(results)
    if mean is not None:
        word = "holds" if mean >= MEAN_AT_LEAST else "MISSED"
        text += (
            f"\nGeometric mean of the lead over Ray: {number(mean)} x "
            f"(bar: {MEAN_AT_LEAST} x, {word})."
        )
    return text


# ---- What else is written down -----------------------------------------------------------------


def machine_facts(plan: Plan) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    with open("/proc/cpuinfo") as lines:
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages * page / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {
            name: _version(plan.interpreters.get(name, sys.executable), name)
            for name in (OURS, "ray", "joblib", "numpy")
        },
        "load_at_start": os.getloadavg()[0],
        "command": " ".join(["bench/run.py", *sys.argv[1:]]),
    }


def _version(python: str, name: str) -> str | None:
    command = [python, "-c", VERSION, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def write_results(out: Path, results: AllResults, facts: dict[str, Any]) -> str:
    """Write the three files; return the table and the summary."""
    out.mkdir(parents=True, exist_ok=True)
    text = print_markdown(list(table(results))) + "\n" + summary(results) + "\n"
    values = {
        "facts": facts,
        "geometric_mean": geometric_mean(results),
        "rows": {script: as_json(rows) for script, rows in results.items()},
    }
    (out / "results.md").write_text(text)
    (out / "results.json").write_text(json.dumps(values, indent=1) + "\n")
    try:
        from chart import draw
    except ImportError as error:
        print(f"No chart: {error}. Install ray_lite[bench].", file=sys.stderr)
    else:
        draw(results, facts, out / "results.png")
    return text


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--scripts", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--out", type=Path, default=BUILD, help="directory (default: build/bench)")
    options = parser.parse_args()
    plan = plan_from(options)
    facts = machine_facts(plan)
    start = time.monotonic()
    results = run_all(options.scripts, plan)
    facts["seconds"] = round(time.monotonic() - start)
    print(write_results(options.out, results, facts))
    if plan.failures:
        sys.exit("\n".join(["These processes failed (see above):", *plan.failures]))


if __name__ == "__main__":
    main()
