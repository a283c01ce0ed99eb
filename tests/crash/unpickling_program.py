"""A driver that unpickles a value which goes off.

unpickling_program.py WAY NUM_CPUS
"""

import sys

from support import MIB

import ray_lite as ray
from crash.bombs import OffWhenUnpickled


@ray.remote
def give(way: str) -> OffWhenUnpickled:
    """Return what goes off when somebody reads it."""
    return OffWhenUnpickled(way)


if __name__ == "__main__":
    ray.init(num_cpus=int(sys.argv[2]), object_store_memory=80 * MIB)
    ref = give.remote(sys.argv[1])
    ray.wait([ref])
    print("ready", flush=True)
    ray.get(ref)
