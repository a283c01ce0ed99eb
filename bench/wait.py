"""How fast does wait() find what is ready?

Method: two workers, warm. one by one: submit 1000 tasks, then wait for the next of those that are
left until none is (Ray's own benchmark; submitting is included). at once: submit 1000 and wait for
all of them in one call. concurrent.futures.wait and joblib's loky do the same with their futures.
Unit: rounds of 1000 a second.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, Final

from common import Engines, Recorder, main, session

ONE_BY_ONE: Final = "single client wait 1k refs"
AT_ONCE: Final = "wait for 1k refs at once"
COUNT: Final = 1000


def small_value() -> bytes:
    """Return next to nothing."""
    return b"ok"


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    with session(engine) as ray:
        task = ray.remote(small_value)
        ray.get([task.remote() for _ in range(COUNT)])

        def one_by_one() -> None:
            left = [task.remote() for _ in range(COUNT)]
            fetch = True
            while left:
                _, left = ray.wait(left, fetch_local=fetch)
                fetch = False  # once is enough, and what Ray's own benchmark does

        def at_once() -> None:
            ray.wait([task.remote() for _ in range(COUNT)], num_returns=COUNT)

        recorder.rate(ONE_BY_ONE, one_by_one, 1)
        recorder.rate(AT_ONCE, at_once, 1)


def _record_futures(recorder: Recorder, submit: Callable[[], Any]) -> None:
    def one_by_one() -> None:
        left = {submit() for _ in range(COUNT)}
        while left:
            _, left = wait(left, return_when=FIRST_COMPLETED)

    recorder.rate(ONE_BY_ONE, one_by_one, 1)
    recorder.rate(AT_ONCE, lambda: wait([submit() for _ in range(COUNT)]), 1)


def measure_executor(engine: str, recorder: Recorder) -> None:
    """Measure concurrent.futures; its wait returns all that are done, not one."""
    with ProcessPoolExecutor(2) as pool:
        _record_futures(recorder, lambda: pool.submit(small_value))


def measure_joblib(engine: str, recorder: Recorder) -> None:
    """Measure joblib's executor."""
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=2)
    _record_futures(recorder, lambda: pool.submit(small_value))
    pool.shutdown()


ENGINES: Engines = {
    "ray_lite": measure_session,
    "ray": measure_session,
    "ProcessPoolExecutor": measure_executor,
    "joblib": measure_joblib,
}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
