"""How many round trips and how many tasks a second?

Method: a task that returns its argument, two workers, warm. "round trips": submit one, get it, and
so on. "tasks": submit N, then get all. "small values, generator": one task with N return values.
Unit: operations a second, medians over alternating runs.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from common import alternate, print_table, rate

SCALE = {"ray": 1, "ray_lite": 20, "ProcessPoolExecutor": 5}


def same(value: int) -> int:
    """Return the argument."""
    return value


def measure_pool(count: int) -> dict[str, float]:
    """Measure the standard library's pool."""
    with ProcessPoolExecutor(2) as pool:

        def one_by_one(n: int) -> None:
            for i in range(n):
                pool.submit(same, i).result()

        def all_at_once(n: int) -> None:
            for future in [pool.submit(same, i) for i in range(n)]:
                future.result()

        return {"round trips": rate(one_by_one, count), "tasks": rate(all_at_once, 2 * count)}


def measure_ray(ray: Any, count: int) -> dict[str, float]:
    """Measure Ray, or ray_lite, by the API that they share."""
    if ray.__name__ == "ray":
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(num_cpus=2)
    task = ray.remote(same)

    @ray.remote
    def values(n: int) -> Any:
        yield from range(n)

    def one_by_one(n: int) -> None:
        for i in range(n):
            ray.get(task.remote(i))

    def all_at_once(n: int) -> None:
        ray.get([task.remote(i) for i in range(n)])

    def generated(n: int) -> None:
        ray.get(values.options(num_returns=max(n, 2)).remote(max(n, 2)))

    row = {
        "round trips": rate(one_by_one, count),
        "tasks": rate(all_at_once, 2 * count),
        "small values, generator": rate(generated, count),
        "put": rate(lambda n: [ray.put(i) for i in range(n)], count),
    }
    ref = ray.put(1)
    row["get"] = rate(lambda n: [ray.get(ref) for _ in range(n)], 4 * count)
    ray.shutdown()
    return row


def main() -> None:
    """Compare the engines, or measure one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=list(SCALE), help="measure this one and print JSON")
    parser.add_argument("--ray-python", help="an interpreter that has Ray")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.engine:
        count = 1000 * SCALE[options.engine]
        measure: Callable[[], dict[str, float]] = (
            (lambda: measure_pool(count))
            if options.engine == "ProcessPoolExecutor"
            else (lambda: measure_ray(importlib.import_module(options.engine), count))
        )
        print(json.dumps(measure()))
        return
    engines = {"ray_lite": sys.executable, "ProcessPoolExecutor": sys.executable}
    if options.ray_python:
        engines["ray"] = options.ray_python
    print_table(alternate(__file__, engines, options.repeats), ours="ray_lite")


if __name__ == "__main__":
    main()
