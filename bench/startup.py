"""How long until the first result, and how much has to be installed for it?

Method: a new interpreter; the clock runs from before the import of the engine (none has imported
numpy before) until the first no-op task's result is there, two workers. All engines have their
bytecode, as packages that pip has installed; in a fresh source tree the first process compiles
ours, which the median does not see. end: until the engine is shut down. installed: the size of all
files of the package, without those it depends on; wheel: the size of the wheel in dist/ (make
dist), or of one that is built for this run.
Unit: seconds, megabytes (1e6 bytes).
"""

import importlib.metadata
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Final

from common import HERE, OURS, Engines, Recorder, main, start_session

FIRST_TASK: Final = "import + init + first task"
END: Final = "shutdown"
WHEEL: Final = "wheel"
INSTALLED: Final = "installed"


def nothing() -> None:
    """Do nothing."""


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    start = time.perf_counter()
    ray = importlib.import_module(engine)
    start_session(ray)
    ray.get(ray.remote(nothing).remote())
    ready = time.perf_counter()
    ray.shutdown()
    _record_times(recorder, start, ready)
    if engine == OURS:
        _record_wheel(recorder)
    elif recorder.wants(INSTALLED):
        files = importlib.metadata.files(engine) or []
        sizes = [Path(str(file.locate())).stat().st_size for file in files if file.suffix != ".pyc"]
        recorder.add(INSTALLED, sum(sizes) / 1e6, "MB")


def _record_times(recorder: Recorder, start: float, ready: float) -> None:
    recorder.add(FIRST_TASK, ready - start, "s")
    recorder.add(END, time.perf_counter() - ready, "s")


def _record_wheel(recorder: Recorder) -> None:
    """Measure the wheel; built once, kept for the other processes of this run."""
    if not recorder.wants(WHEEL, INSTALLED):
        return
    root = HERE.parent
    wheels = sorted([*root.glob("dist/*.whl"), *root.glob("build/bench/*.whl")])
    if not wheels:
        with tempfile.TemporaryDirectory() as build:
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
            command += ["--wheel-dir", build, str(root)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            built = next(Path(build).glob("*.whl"))
            kept = root / "build" / "bench" / built.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(built.read_bytes())
        wheels = [kept]
    recorder.add(WHEEL, wheels[-1].stat().st_size / 1e6, "MB")
    with zipfile.ZipFile(wheels[-1]) as archive:
        recorder.add(INSTALLED, sum(info.file_size for info in archive.infolist()) / 1e6, "MB")


def measure_executor(engine: str, recorder: Recorder) -> None:
    """Measure concurrent.futures."""
    start = time.perf_counter()
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(2)
    pool.submit(nothing).result()
    ready = time.perf_counter()
    pool.shutdown()
    _record_times(recorder, start, ready)


def measure_pool(engine: str, recorder: Recorder) -> None:
    """Measure multiprocessing.Pool."""
    start = time.perf_counter()
    from multiprocessing import Pool

    pool = Pool(2)
    pool.apply(nothing)
    ready = time.perf_counter()
    pool.close()
    pool.join()
    _record_times(recorder, start, ready)


def measure_joblib(engine: str, recorder: Recorder) -> None:
    """Measure joblib's executor."""
    start = time.perf_counter()
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=2)
    pool.submit(nothing).result()
    ready = time.perf_counter()
    pool.shutdown()
    _record_times(recorder, start, ready)


ENGINES: Engines = {
    "ray_lite": measure_session,
    "ray": measure_session,
    "ProcessPoolExecutor": measure_executor,
    "Pool": measure_pool,
    "joblib": measure_joblib,
}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
