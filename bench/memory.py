"""How much memory does a session use, and how often does it wake when it has nothing to do?

Method: the session runs in processes of its own, watched from outside. PSS is the sum over all its
processes, the driver included (/proc/*/smaps_rollup). The resident bytes of its segments are what
their files occupy. peak: 12 arrays of S = 100 MB through a streaming generator that may be one
value ahead, `x = np.full(...); yield x`; segments + anonymous PSS, sampled every few milliseconds,
less the same sum before, in units of what the consumer asked for: S if each reference and array is
read and dropped, 12 S if all are kept. idle: after init with two workers, some seconds later: PSS
in all, and voluntary context switches of all threads.
Unit: ratio, megabytes (1e6 bytes), wake-ups a second.
"""

import importlib
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from common import Engines, Recorder, main, start_session

MOST_REPEATS: Final = 3  # processes; sizes hardly vary

DROPPED: Final = "peak above base, 12 x 100 MB streamed, each dropped, in S"
KEPT: Final = "peak above base, 12 x 100 MB streamed, all kept, in 12 S"
IDLE: Final = "idle, PSS of all processes"
WAKES: Final = "idle, wake-ups"

COUNT: Final = 12
S: Final = 100_000_000
MARK: Final = "RAY_LITE_BENCH_SESSION"  # in the environment of all processes of the session
INTERVAL_S: Final = 0.002
LINE_TIMEOUT_S: Final = 120


# ---- The session, in a process of its own ------------------------------------------------------


def run_program(engine: str) -> None:
    """Have a session; do what each line of stdin says, and say when it is done."""
    import numpy as np

    ray = importlib.import_module(engine)
    start_session(ray)

    def produce(count: int, nbytes: int) -> Iterator[Any]:
        for i in range(count):
            x = np.full(nbytes // 8, i, dtype=np.int64)
            yield x

    arrays = ray.remote(num_returns="streaming", _generator_backpressure_num_objects=1)(produce)

    def drop(count: int, nbytes: int) -> None:
        for ref in arrays.remote(count, nbytes):
            value = ray.get(ref)
            value.sum()
            del ref, value

    def keep(count: int, nbytes: int) -> None:
        kept = [(ref, ray.get(ref)) for ref in arrays.remote(count, nbytes)]
        for _, value in kept:
            value.sum()

    orders = {"drop": drop, "keep": keep}
    print("ready", flush=True)
    for line in sys.stdin:
        orders[line.strip()](COUNT, S) if line.strip() in orders else drop(2, 8)
        print("done", flush=True)
    ray.shutdown()


# ---- Looking at it from outside ----------------------------------------------------------------


@dataclass
class Watch:
    """The processes of one session, and what they use."""

    mark: str
    mine: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)
    most_in_segments: int = 0  # bytes, of all samples

    def processes(self) -> list[int]:
        """Return the pids of the session, those that were just born too."""
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self.mine &= there
        self.others &= there
        for pid in there - self.mine - self.others:
            environment = _read(pid, "environ")
            if environment:  # it is empty for a moment in exec: then look again next time
                known = self.mine if self.mark.encode() in environment else self.others
                known.add(pid)
        return sorted(self.mine)

    def pss(self, key: str = "Pss") -> int:
        """Return the sum of one line of smaps_rollup, in bytes."""
        return sum(_pss_of(pid, f"{key}:".encode()) for pid in self.processes())

    def segments(self) -> int:
        """Return the bytes that the session's shared files occupy."""
        found = {}
        for pid in self.processes():
            for path in _descriptors(pid):
                try:
                    if os.readlink(path).startswith(("/memfd:", "/dev/shm/")):
                        stat = os.stat(path)
                        found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
                except OSError:
                    continue  # closed, or its process has ended
        return sum(found.values())

    def in_use(self) -> int:
        """Return what the peak is the peak of."""
        segments = self.segments()
        self.most_in_segments = max(self.most_in_segments, segments)
        return segments + self.pss("Pss_Anon")

    def wakes(self) -> int:
        """Return how often its threads have gone to sleep so far."""
        return sum(_switches(pid, path) for pid in self.processes() for path in _threads(pid))


def _read(pid: int, name: str) -> bytes:
    """Return a file of /proc/<pid>; nothing if the process has ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _pss_of(pid: int, key: bytes) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def _descriptors(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def _threads(pid: int) -> list[str]:
    try:
        return [f"task/{tid}/status" for tid in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _switches(pid: int, name: str) -> int:
    for line in _read(pid, name).splitlines():
        if line.startswith(b"voluntary_ctxt_switches:"):
            return int(line.split()[1])
    return 0


# ---- The measurement ---------------------------------------------------------------------------


@dataclass
class Program:
    """A session that does what it is told, under watch."""

    child: subprocess.Popen[str]
    watch: Watch

    def tell(self, order: str) -> int:
        """Have it do that, and return the peak of what was in use meanwhile."""
        assert self.child.stdin is not None
        self.child.stdin.write(f"{order}\n")
        self.child.stdin.flush()
        return self.await_line()

    def await_line(self) -> int:
        """Sample until it says something; return the peak."""
        assert self.child.stdout is not None
        peak = self.watch.in_use()
        deadline = time.monotonic() + LINE_TIMEOUT_S
        while not _readable(self.child.stdout):
            peak = max(peak, self.watch.in_use())
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing done after {LINE_TIMEOUT_S} s")
        if not self.child.stdout.readline():
            raise RuntimeError("the session's driver has ended")
        return max(peak, self.watch.in_use())


def _readable(stream: IO[str]) -> bool:
    return bool(select.select([stream], [], [], INTERVAL_S)[0])


@contextmanager
def program(engine: str) -> Iterator[Program]:
    """Start a session in a process of its own."""
    mark = uuid.uuid4().hex
    child = subprocess.Popen(
        [sys.executable, __file__, "--program", engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark},
    )
    started = Program(child, Watch(mark))
    try:
        started.await_line()
        yield started
    finally:
        child.communicate(timeout=60)


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    if recorder.wants(IDLE, WAKES, DROPPED):
        with program(engine) as started:
            if recorder.wants(IDLE, WAKES):
                _record_idle(started.watch, recorder)
            _record_peak(started, recorder, DROPPED, "drop", S)
    if recorder.wants(KEPT) and not recorder.quick:
        with program(engine) as started:
            _record_peak(started, recorder, KEPT, "keep", COUNT * S)


def _record_peak(
    started: Program, recorder: Recorder, row: str, order: str, unit_bytes: int
) -> None:
    if not recorder.wants(row):
        return
    started.tell("warm up")
    _let_settle(started.watch)
    base = started.watch.in_use()
    peak = started.tell(order)
    if started.watch.most_in_segments < S:
        raise RuntimeError("the session's store was not seen: its processes are not all watched")
    recorder.add(row, (peak - base) / unit_bytes, "x")


def _record_idle(watch: Watch, recorder: Recorder) -> None:
    _let_settle(watch)
    recorder.add(IDLE, watch.pss() / 1e6, "MB")
    seconds = 2 if recorder.quick else 5
    before, start = watch.wakes(), time.monotonic()
    time.sleep(seconds)  # the time is what is measured
    recorder.add(WAKES, (watch.wakes() - before) / (time.monotonic() - start), "wakes/s")


def _let_settle(watch: Watch) -> None:
    """Wait until the session's processes are all there: a second without a change."""
    processes, since = watch.processes(), time.monotonic()
    deadline = since + 15
    while time.monotonic() < min(since + 1, deadline):
        time.sleep(0.05)
        if watch.processes() != processes:
            processes, since = watch.processes(), time.monotonic()


ENGINES: Engines = {"ray_lite": measure_session, "ray": measure_session}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--program"]:
        run_program(sys.argv[2])
    else:
        main(__file__, __doc__, ENGINES)
