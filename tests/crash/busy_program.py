"""A driver that never rests, to be killed at any moment.

    busy_program.py [--rounds N]

Prints "importing", "starting", "ready", then works: for ever, or N rounds; then "stopping", and
"stopped". Owns a mixture of work that has every kind of process and memory in use.
"""

import argparse
import itertools

print("importing", flush=True)

import numpy as np  # noqa: E402
from support import MIB  # noqa: E402

import ray_lite as ray  # noqa: E402


@ray.remote(max_retries=-1)
def double(array: np.ndarray) -> np.ndarray:
    """Return a new array."""
    print("doubling")
    return array * 2


@ray.remote(num_returns=3)
def three(i: int) -> object:
    """Yield arrays one by one."""
    for k in range(3):
        yield np.full(100_000, i + k)


@ray.remote
def with_a_child(i: int) -> int:
    """Leave a process behind, in a group of its own."""
    import subprocess

    subprocess.Popen(["sleep", "1000"], start_new_session=i % 2 == 0)
    return i


def work(i: int) -> None:
    """One round."""
    kept = [ray.put(np.full(100_000, i)) for _ in range(3)]
    doubled = [double.remote(ref) for ref in kept] + [double.remote(ref) for ref in three.remote(i)]
    child = with_a_child.remote(i) if i % 10 == 0 else None
    assert [int(array[0]) for array in ray.get(doubled)][:3] == [2 * i] * 3
    assert child is None or ray.get(child) == i


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int)
    rounds = parser.parse_args().rounds
    print("starting", flush=True)
    ray.init(num_cpus=2, object_store_memory=80 * MIB, log_to_driver=False)
    work(0)
    print("ready", flush=True)
    for i in itertools.count(1) if rounds is None else range(rounds):
        work(i)
    print("stopping", flush=True)
    ray.shutdown()
    print("stopped", flush=True)
