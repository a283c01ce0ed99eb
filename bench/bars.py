"""What each row has to reach, and which limit of the machine it is held against.

Owns the table of bars and the judgement of one. It must not know how a row is measured.
"""

from dataclasses import dataclass
from typing import Final

from common import MACHINE, OURS, Results, lead

# The results of all scripts: {script: {row: runs}}.
AllResults = dict[str, Results]


@dataclass(frozen=True)
class Bar:
    """One demand on one row: so many times a peer, a share of a limit, or an absolute value."""

    script: str
    row: str
    peer: str = "ray"  # an engine; MACHINE for a share of `limit`; "" for an absolute value
    at_least: float = 0  # times the peer's best, or the share
    at_most: float = 0  # of our median, in the row's unit; for peer ""

    def text(self) -> str:
        """Return the demand as the table shows it."""
        return f"{self.at_least:g} x" if self.peer else f"at most {self.at_most:g}"


@dataclass(frozen=True)
class Verdict:
    """What became of a bar; None where there is nothing to judge."""

    bar: Bar
    ratio: float | None
    holds: bool | None


def judge(bar: Bar, results: AllResults) -> Verdict:
    """Hold a bar against what was measured."""
    runs = results.get(bar.script, {}).get(bar.row)
    if runs is None or OURS not in runs.values:
        return Verdict(bar, None, None)
    if not bar.peer:
        return Verdict(bar, None, runs.median(OURS) <= bar.at_most)
    if bar.peer == MACHINE:
        ratio = share_of_limit(bar.script, bar.row, results)
    else:
        ratio = lead(runs, bar.peer) if bar.peer in runs.values else None
    return Verdict(bar, ratio, None if ratio is None else ratio >= bar.at_least)


def share_of_limit(script: str, row: str, results: AllResults) -> float | None:
    """Return our median as a share of what the machine can do; None if that was not measured."""
    runs = results.get(script, {}).get(row)
    limit = results.get(script, {}).get(LIMITS.get((script, row), ""))
    if runs is None or limit is None or OURS not in runs.values or MACHINE not in limit.values:
        return None
    return runs.median(OURS) / limit.best(MACHINE)


def _times_ray(script: str, at_least: float, *rows: str) -> list[Bar]:
    return [Bar(script, row, "ray", at_least) for row in rows]


def _at_most(script: str, at_most: float, *rows: str) -> list[Bar]:
    return [Bar(script, row, "", at_most=at_most) for row in rows]


_ARRAYS: Final = [f"{kind}, 20 x 50 MB, second pass" for kind in ("static", "dynamic", "streaming")]
_ITEMS: Final = (
    "queued tasks",
    "live objects, put and dropped",
    "references in one get",
    "references in one wait",
)
_BORN: Final = [
    *(f"put of an array born in the store, {n}" for n in ("1 MB", "100 MB", "1 GB")),
    *(
        f"put of an array born in the store, {n}, each page just written"
        for n in ("100 MB", "1 GB")
    ),
]
_BORN_SIZES: Final = ("1 MB", "4 MB", "100 MB", "400 MB", "1 GB")
_FILLED_SIZES: Final = ("4 MB just filled", "400 MB just filled")
_RESUMED: Final = [
    *(f"yield to resume, {n}, nobody waits" for n in (*_BORN_SIZES, *_FILLED_SIZES)),
    *(f"yield to resume, {n}, sole reference" for n in _BORN_SIZES),
    *(f"yield to resume, {n}, two in a dict" for n in _BORN_SIZES),
    *(f"return to next task, {n}" for n in ("1 MB", "100 MB", "1 GB")),
]
_WOKEN: Final = [f"yield to resume, {n}, consumer sleeps" for n in (*_BORN_SIZES, *_FILLED_SIZES)]

LIMITS: Final = {
    ("tasks", "single client tasks sync"): "futex round trip, asleep",
    ("put_get", "put 1 MB"): "memcpy of 1 MB to one warm block",
    ("put_get", "put 800 MiB, first pass"): "memcpy to warm pages, two threads",
    ("put_get", "put 800 MiB, second pass"): "memcpy to warm pages, two threads",
    ("put_get", "single client put gigabytes"): "memcpy to warm pages, two threads",
    **{("generators", row): "fill of warm memory" for row in _ARRAYS},
    ("generators", "list, 20 x 50 MB, second pass"): "fill of warm memory",
}

BARS: Final = [
    *_times_ray("startup", 10, "import + init + first task"),
    *_at_most("startup", 1.5, "wheel"),
    *_times_ray("put_get", 150, "single client get calls (Plasma Store)"),
    *_times_ray("put_get", 400, "single client put calls (Plasma Store)"),
    *_times_ray("put_get", 50, "single client get object containing 10k refs"),
    *_times_ray("put_get", 8, "put 1 MB"),
    Bar("put_get", "put 800 MiB, second pass", MACHINE, 0.85),
    *_times_ray("put_get", 20, "get 1 KB", "get 1 MB", "get 100 MB", "get 1 GB"),
    *_at_most("put_get", 10, *_BORN),
    *_times_ray("tasks", 60, "single client tasks sync"),
    Bar("tasks", "single client tasks sync", "ProcessPoolExecutor", 6),
    *_times_ray("tasks", 15, "tasks sync, 1 ms pause"),
    *_times_ray("tasks", 150, "single client tasks async"),
    Bar("tasks", "single client tasks async", "Pool", 5),
    *_times_ray("tasks", 100, "tasks with a ref argument"),
    *_times_ray("wait", 150, "single client wait 1k refs"),
    *_times_ray("actors", 30, "1:1 actor calls sync", "1:1 actor calls async"),
    *_times_ray("actors", 30, "1:n actor calls async", "n:n actor calls async"),
    *_times_ray("actors", 30, "n:n actor calls with arg async"),
    *_times_ray("actors", 20, "1:1 async-actor calls sync", "1:1 async-actor calls async"),
    *_times_ray("actors", 20, "1:1 async-actor calls with args async"),
    *_times_ray("actors", 20, "1:n async-actor calls async", "n:n async-actor calls async"),
    *_at_most("generators", 50, *_RESUMED),
    *_at_most("generators", 150, *_WOKEN),
    *_times_ray("generators", 2.5, *_ARRAYS),
    *(Bar("generators", row, MACHINE, 0.7) for row in _ARRAYS),
    *(Bar("generators", row, "numpy", 1) for row in _ARRAYS),
    *_times_ray("generators", 3, "list, 20 x 50 MB, second pass"),
    *_times_ray("generators", 3, "list as one value, 20 x 50 MB, second pass"),
    *_times_ray("generators", 20, "streaming, 1000 x 1 MB"),
    *_times_ray("generators", 15, "small values, static"),
    *_times_ray("generators", 25, "small values, dynamic"),
    *_times_ray("generators", 60, "small values, streaming"),
    *_at_most("scaling", 3, *(f"{kind}, dearest / cheapest, all sizes" for kind in _ITEMS)),
    *_at_most("scaling", 1.5, *(f"{kind}, dearest / cheapest, from 300,000 on" for kind in _ITEMS)),
    *_at_most("memory", 2.1, "peak above base, 12 x 100 MB streamed, each dropped, in S"),
    *_at_most("memory", 1.06, "peak above base, 12 x 100 MB streamed, all kept, in 12 S"),
    *_at_most("memory", 80, "idle, PSS of all processes"),
    *_at_most("memory", 5, "idle, wake-ups"),
]  # fmt: skip
MEAN_AT_LEAST: Final = 50  # the geometric mean over the rows with a bar that Ray has
