"""What the benchmarks share: timing, alternating engines in processes of their own, the table."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

Row = dict[str, float]


def rate(work: Callable[[int], object], count: int) -> float:
    """Return how many operations a second `work(count)` does, once warm."""
    work(max(count // 10, 1))
    start = time.perf_counter()
    work(count)
    return count / (time.perf_counter() - start)


def run_engine(script: str, engine: str, python: str) -> Row:
    """Run `script` for one engine in a fresh process; its last line is its row as JSON."""
    command = [python, script, "--engine", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def alternate(script: str, engines: dict[str, str], repeats: int) -> dict[str, list[Row]]:
    """Run each engine `repeats` times in turn; `engines` maps a name to its interpreter."""
    rows: dict[str, list[Row]] = {engine: [] for engine in engines}
    for _ in range(repeats):
        for engine, python in engines.items():
            rows[engine].append(run_engine(str(Path(script).resolve()), engine, python))
    return rows


def print_table(rows: dict[str, list[Row]], ours: str) -> None:
    """Print medians, spread and the ratio of `ours` to every other engine."""
    names = list(next(iter(rows.values()))[0])
    for name in names:
        print(f"{name} (per second)")
        mine = statistics.median(row[name] for row in rows[ours])
        for engine, runs in rows.items():
            values = sorted(row[name] for row in runs if name in row)
            if not values:
                continue
            median = statistics.median(values)
            ratio = "" if engine == ours else f"   ray_lite is {mine / median:.1f} x"
            print(f"  {engine:22} {median:12,.0f}   {values[0]:,.0f} to {values[-1]:,.0f}{ratio}")
