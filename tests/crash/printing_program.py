"""A driver whose log process is killed; what is printed afterwards must still arrive.

Prints the lines of forty tasks, twenty before and twenty after the kill. Owns nothing else.
"""

import os
import sys

from support import MIB, eventually

import ray_lite as ray
from crash.processes import children_of, connection, signal_children, supervisor_of, workers_of


@ray.remote(max_retries=3)
def say(i: int) -> int:
    """Print a line."""
    print(f"line {i}")
    return i


@ray.remote
def fail() -> None:
    """Leave a failure that nobody reads: the supervisor itself prints it."""
    raise ValueError("nobody reads this")


ray.init(num_cpus=2, object_store_memory=80 * MIB)
session = connection()
supervisor = supervisor_of(session)
assert ray.get([say.remote(i) for i in range(20)], timeout=20) == list(range(20))
assert eventually(lambda: len(workers_of(session)) == 2)  # both have joined: what is left is
log = set(children_of(supervisor)) - set(workers_of(session))
assert len(log) == 1, log
assert signal_children(log, supervisor) == 1
fail.remote()
assert ray.get([say.remote(i) for i in range(20, 40)], timeout=20) == list(range(20, 40))
assert eventually(lambda: session.core.usage()["tasks"] == 0)
assert children_of(os.getpid()) == [supervisor], "the supervisor has died"
ray.shutdown()
print("done", file=sys.stderr)
