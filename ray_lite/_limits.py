"""What this machine, or the container around it, lets a session use.

Owns the reading of /proc and of cgroup limits (v1 and v2). It must not know what is stored.
"""

import os
from pathlib import Path
from typing import Final

DEFAULT_SHARE: Final = 0.3  # of the memory, as in Ray
DEFAULT_MOST: Final = 200_000_000_000  # bytes, as in Ray
USABLE_SHARE: Final = 0.95  # of what is available may be asked for


def usable_cpus() -> int:
    """Return how many CPUs this process may use, >= 1."""
    return max(1, min(len(os.sched_getaffinity(0)), _cgroup_cpus() or os.cpu_count() or 1))


def default_store_size() -> int:
    """Return the default size of the object store in bytes."""
    total = _meminfo("MemTotal")
    limit = _cgroup_memory("memory.max", "memory.limit_in_bytes")
    size = int(min(total, limit or total) * DEFAULT_SHARE)
    available = int(available_memory() * USABLE_SHARE)
    return max(1 << 20, min(size, DEFAULT_MOST, available) // 4096 * 4096)


def available_memory() -> int:
    """Return how many bytes can still be used, by this machine and by its cgroup."""
    available = _meminfo("MemAvailable")
    limit = _cgroup_memory("memory.max", "memory.limit_in_bytes")
    used = _cgroup_memory("memory.current", "memory.usage_in_bytes")
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used))
    return available


def check_store_size(nbytes: int) -> None:
    """Refuse a store that does not fit: its pages would end in the out-of-memory killer.

    Raises:
        ValueError: `nbytes` is more than is available.
    """
    available = available_memory()
    if nbytes > available:
        raise ValueError(
            f"object_store_memory={nbytes:,} does not fit: {available:,} bytes of memory are "
            "available here; ask for less, or end what uses the memory"
        )


def _meminfo(key: str) -> int:
    with open("/proc/meminfo") as lines:
        for line in lines:
            name, value = line.split(":")
            if name == key:
                return int(value.split()[0]) * 1024
    raise OSError(f"/proc/meminfo has no {key}")


def _cgroup_paths() -> list[Path]:
    """Return the directories whose limits bind this process, innermost first."""
    paths = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root = Path("/sys/fs/cgroup")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
        else:
            continue
        inner = root / group.lstrip("/")
        paths += [inner, *(p for p in inner.parents if p.is_relative_to(root))]
    return paths


def _cgroup_memory(v2: str, v1: str) -> int | None:
    """Return the smallest number in any file of that name, or None where there is none."""
    found = []
    for path in _cgroup_paths():
        for name in (v2, v1):
            number = _read_number(path / name)
            # cgroup v1 says "no limit" with a number near 2**63.
            if number is not None and number < 1 << 60:
                found.append(number)
    return min(found, default=None)


def _cgroup_cpus() -> int | None:
    """Return the CPU quota of cgroup v2, rounded up, or None."""
    for path in _cgroup_paths():
        try:
            quota, period = (path / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            return max(1, -(-int(quota) // int(period)))
    return None


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
