"""What the benchmarks share: how one is timed, how engines take turns, how rows are printed.

Owns the process that each engine runs in and the JSON that comes out of it. It must not know what
is measured, nor which bar a value has to pass (bars.py).
"""

import argparse
import importlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
BUILD: Final = HERE.parent / "build" / "bench"
OURS: Final = "ray_lite"
MACHINE: Final = "machine"  # the engine whose rows are limits
LESS_IS_BETTER: Final = frozenset({"s", "us", "MB", "wakes/s", "x"})
ENGINE_TIMEOUT_S: Final = 400
STORE_BYTES: Final = 4 << 30  # ample for all that is stored here

# {row: (value, unit)}: what one process measured.
Rows = dict[str, tuple[float, str]]


# ---- In an engine's process --------------------------------------------------------------------


@dataclass
class Recorder:
    """Times what it is given, and keeps the rows."""

    seconds: float  # how long a rate is measured
    quick: bool
    pattern: str = ""
    rows: Rows = field(default_factory=dict)

    def wants(self, *names: str) -> bool:
        """Return whether one of these rows was asked for."""
        return any(re.search(self.pattern, name) for name in names)

    def add(self, row: str, value: float, unit: str) -> None:
        """Keep a value that the caller has measured."""
        if self.wants(row):
            self.rows[row] = (value, unit)

    def rate(
        self, row: str, work: Callable[[], object], per_call: float, unit: str = "1/s"
    ) -> None:
        """Call `work`, which does `per_call` units of something, until the time is over."""
        if not self.wants(row):
            return
        self._repeat(work, self.seconds / 2)
        calls, elapsed = self._repeat(work, self.seconds)
        self.add(row, calls * per_call / elapsed, unit)

    @staticmethod
    def _repeat(work: Callable[[], object], seconds: float) -> tuple[int, float]:
        start = time.perf_counter()
        calls = 0
        while True:
            work()
            calls += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return calls, elapsed


Measure = Callable[[str, Recorder], None]
Engines = dict[str, Measure]


@contextmanager
def session(engine: str, num_cpus: int = 2) -> Iterator[Any]:
    """Import ray or ray_lite and have a session up, each in its best set-up."""
    ray = importlib.import_module(engine)
    start_session(ray, num_cpus)
    try:
        yield ray
    finally:
        ray.shutdown()


def start_session(ray: Any, num_cpus: int = 2) -> None:
    """Call `init`, with an ample store."""
    options: dict[str, Any] = {"num_cpus": num_cpus, "object_store_memory": store_bytes()}
    if ray.__name__ == "ray":
        options |= {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(**options)


def store_bytes() -> int:
    """Return a size of the store that this machine has room for; Ray's has to fit /dev/shm."""
    shm = os.statvfs("/dev/shm")
    with open("/proc/meminfo") as lines:
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return min(STORE_BYTES, shm.f_bavail * shm.f_frsize * 8 // 10, available * 1024 // 2)


def measure_limits(*names: str) -> Measure:
    """Return an engine that asks limits.c for these limits of the machine."""

    def measure(engine: str, recorder: Recorder) -> None:
        command = [str(BUILD / "limits"), *names]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            row, value, unit = line.split("\t")
            recorder.add(row, float(value), unit)

    return measure


# ---- In the process that compares them ---------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a comparison is run."""

    interpreters: dict[str, str]  # of engines that do not run in this one
    repeats: int
    seconds: float
    quick: bool
    pattern: str
    failures: list[str] = field(default_factory=list)  # commands that ended badly

    def python(self, engine: str) -> str | None:
        """Return the interpreter of an engine; None if it is not here."""
        if engine == MACHINE and not (BUILD / "limits").exists():
            return None
        return self.interpreters.get(engine, None if engine == "ray" else sys.executable)


@dataclass
class Runs:
    """All values of one row: {engine: [one of each process]}."""

    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    @property
    def less_is_better(self) -> bool:
        """Return whether the smaller value wins."""
        return self.unit in LESS_IS_BETTER

    def median(self, engine: str) -> float:
        """Return the value that we claim for ourselves."""
        return statistics.median(self.values[engine])

    def best(self, engine: str) -> float:
        """Return the value that we grant a peer."""
        return (min if self.less_is_better else max)(self.values[engine])


Results = dict[str, Runs]


def collect(script: str, engines: Engines, plan: Plan) -> Results:
    """Run each engine of a script `plan.repeats` times, in turn, each time in a new process."""
    results: Results = {}
    for turn in range(plan.repeats):
        for engine in engines:
            python = plan.python(engine)
            if python is None:
                continue
            start = time.monotonic()
            rows, failed = _run_engine(script, engine, python, plan)
            if failed and not rows:  # Ray's start now and then times out on a busy machine
                rows, failed = _run_engine(script, engine, python, plan)
            plan.failures.extend(failed)
            took = time.monotonic() - start
            print(f"  {script} {turn + 1}/{plan.repeats} {engine}: {took:.1f} s", file=sys.stderr)
            for row, (value, unit) in rows.items():
                results.setdefault(row, Runs(unit)).values.setdefault(engine, []).append(value)
    return results


def _run_engine(script: str, engine: str, python: str, plan: Plan) -> tuple[Rows, list[str]]:
    """Return one process's rows, and its command if it failed; stderr then says why."""
    command = [python, str(HERE / f"{script}.py"), "--engine", engine, "--rows", plan.pattern]
    command += ["--seconds", str(plan.seconds), *(["--quick"] if plan.quick else [])]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=_environment(),
    )
    try:
        out, err = child.communicate(timeout=ENGINE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        err += f"\nnot done after {ENGINE_TIMEOUT_S} s"
    failed = []
    if child.returncode != 0:
        failed.append(" ".join(command))
        print(f"{failed[0]} failed:\n{err[-4000:]}", file=sys.stderr)
    rows = {}
    for line in out.splitlines():
        if line.startswith("{"):
            rows.update({row: (value, unit) for row, (value, unit) in json.loads(line).items()})
    return rows, failed


def _environment() -> dict[str, str]:
    """Return what an engine's process sees.

    Bytecode may be written, for an installed package has it: where it may not, we alone, who run
    from the source tree, would compile every module at each start.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}


# ---- The words of the command line -------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every script and run.py understand."""
    parser.add_argument(
        "--ray-python",
        default=os.environ.get("RAY_PYTHON", ""),
        help="an interpreter that has Ray (default: RAY_PYTHON); without it Ray is left out",
    )
    parser.add_argument("--repeats", type=int, help="processes for each engine (default: 5)")
    parser.add_argument("--seconds", type=float, help="how long a rate is measured (default: 0.3)")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it out")
    parser.add_argument("--rows", default="", help="only rows that match this expression")
    parser.add_argument("--json", type=Path, help="write the values of all processes to this file")


def plan_from(options: argparse.Namespace) -> Plan:
    """Return what the options ask for."""
    return Plan(
        interpreters={"ray": options.ray_python} if options.ray_python else {},
        repeats=options.repeats or (1 if options.quick else 5),
        seconds=options.seconds or (0.1 if options.quick else 0.3),
        quick=options.quick,
        pattern=options.rows,
    )


def main(path: str, doc: str | None, engines: Engines) -> None:
    """Compare a script's engines, or be the process of one of them."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--engine", choices=list(engines), help="measure this one, print JSON")
    options = parser.parse_args()
    plan = plan_from(options)
    if options.engine:
        recorder = Recorder(plan.seconds, plan.quick, plan.pattern)
        try:
            engines[options.engine](options.engine, recorder)
        finally:
            print(json.dumps(recorder.rows), flush=True)
        return
    results = collect(Path(path).stem, engines, plan)
    print_rows(results)
    if options.json:
        options.json.write_text(json.dumps(as_json(results), indent=1) + "\n")
    if plan.failures:
        sys.exit(1)


def as_json(results: Results) -> dict[str, Any]:
    """Return the results as JSON knows them."""
    return {row: {"unit": runs.unit, "values": runs.values} for row, runs in results.items()}


# ---- Printing ----------------------------------------------------------------------------------


def print_rows(results: Results) -> None:
    """Print every engine's median, its spread, and how we compare with the best of a peer."""
    for row, runs in results.items():
        print(f"{row} ({runs.unit})")
        for engine, values in runs.values.items():
            low, high = shown(min(values)), shown(max(values))
            line = f"  {engine:24} {shown(statistics.median(values)):>10}   {low} to {high}"
            if engine != OURS and OURS in runs.values:
                line += f"   {OURS} is {shown(lead(runs, engine))} x its best"
            print(line)


def lead(runs: Runs, peer: str) -> float:
    """Return how many times better our median is than the best of a peer."""
    ours, theirs = runs.median(OURS), runs.best(peer)
    return theirs / ours if runs.less_is_better else ours / theirs


def shown(value: float) -> str:
    """Return a number with three digits that mean something."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.0f}" if size >= 100 else f"{value:.3g}"
