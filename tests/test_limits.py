"""What the machine allows: /proc/meminfo and both kinds of cgroup, from files made for the test."""

import os
from pathlib import Path
from typing import Any

import pytest

from ray_lite import _limits

GIB = 1 << 30
NO_LIMIT_V1 = 9223372036854771712


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A machine of 16 GiB, 8 of them available, in a cgroup whose files the test writes."""
    memory = {"MemTotal": 16 * GIB, "MemAvailable": 8 * GIB}
    monkeypatch.setattr(_limits, "_meminfo", memory.__getitem__)
    monkeypatch.setattr(_limits, "_cgroup_paths", lambda: [tmp_path / "inner", tmp_path])
    (tmp_path / "inner").mkdir()

    def write(**files: object) -> None:
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(f"{content}\n")

    return write


def test_store_is_thirty_percent_of_the_memory_by_default(machine: Any) -> None:
    assert _limits.default_store_size() == int(16 * GIB * 0.3) // 4096 * 4096


def test_store_is_thirty_percent_of_a_cgroups_memory_by_default(machine: Any) -> None:
    machine(memory__max=4 * GIB, memory__current=GIB)
    assert _limits.default_store_size() == int(4 * GIB * 0.3) // 4096 * 4096


def test_store_takes_no_more_than_what_is_available(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(memory__max=4 * GIB, memory__current=4 * GIB - 100 * (1 << 20))
    assert _limits.default_store_size() == int(100 * (1 << 20) * 0.95) // 4096 * 4096


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, 8 * GIB),
        ({"memory__max": "max", "memory__current": 7 * GIB}, 8 * GIB),
        ({"memory__max": 4 * GIB, "memory__current": 3 * GIB}, GIB),
        ({"memory__max": 4 * GIB, "memory__current": 5 * GIB}, 0),
        ({"memory__max": 64 * GIB, "memory__current": GIB}, 8 * GIB),
        ({"memory__limit_in_bytes": NO_LIMIT_V1, "memory__usage_in_bytes": GIB}, 8 * GIB),
        ({"memory__limit_in_bytes": 2 * GIB, "memory__usage_in_bytes": GIB}, GIB),
        ({"memory__max": 4 * GIB}, 8 * GIB),
        ({"memory__max": "", "memory__current": ""}, 8 * GIB),
    ],
    ids=str,
)
def test_available_memory_is_what_machine_and_cgroup_both_leave(
    machine: Any, files: dict[str, Any], available: int
) -> None:
    machine(**files)
    assert _limits.available_memory() == available


def test_store_that_does_not_fit_is_refused_with_the_numbers(machine: Any) -> None:
    machine(memory__max=4 * GIB, memory__current=3 * GIB)
    _limits.check_store_size(GIB)
    with pytest.raises(ValueError, match=f"{2 * GIB:,} does not fit: {GIB:,} bytes"):
        _limits.check_store_size(2 * GIB)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
    ],
)
def test_usable_cpus_are_what_affinity_and_cgroup_both_allow(
    machine: Any, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    machine(cpu__max=quota)
    assert _limits.usable_cpus() == cpus


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("0::/\n", ["/sys/fs/cgroup"]),
        ("0::/a/b\n", ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]),
        (
            "5:cpu,memory:/a\n4:cpuset:/b\n",
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"],
        ),
        ("", []),
    ],
    ids=["v2 root", "v2", "v1", "none"],
)
def test_cgroup_paths_lead_from_the_innermost_out(
    monkeypatch: pytest.MonkeyPatch, text: str, paths: list[str]
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert [str(path) for path in _limits._cgroup_paths()] == paths


def test_meminfo_of_this_machine_is_read_in_bytes() -> None:
    assert _limits._meminfo("MemTotal") == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(OSError, match="no Nothing"):
        _limits._meminfo("Nothing")
