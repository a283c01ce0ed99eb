"""How many threads BLAS and OpenMP use in a worker. Owns that; must not know anything else."""

import contextlib
import ctypes
import os
from collections.abc import Mapping
from typing import Final

VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_SETTERS: Final = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


def pinned() -> dict[str, str]:
    """Return the variables with which numpy starts no threads: the supervisor must have one."""
    return dict.fromkeys(VARIABLES, "1")


def unpinned(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return what the workers shall see of those variables: the user's word, else one thread.

    One, because each task holds one CPU; as Ray does. Others stay unset: OMP_NUM_THREADS is the
    default for all of them.
    """
    seen: dict[str, str | None] = {name: environment.get(name) for name in VARIABLES}
    seen["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS", "1")
    return seen


def set_blas_threads() -> None:
    """Give numpy's OpenBLAS, loaded with one thread, as many as the environment says."""
    wanted = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1"
    if not wanted.isdigit() or int(wanted) <= 1:
        return
    for path in _loaded_libraries("openblas"):
        library = ctypes.CDLL(path)
        for name in _SETTERS:
            with contextlib.suppress(AttributeError):
                getattr(library, name)(int(wanted))


def _loaded_libraries(word: str) -> set[str]:
    with open("/proc/self/maps") as lines:
        paths = {line.split(maxsplit=5)[5].strip() for line in lines if line.count(" ") > 5}
    return {path for path in paths if word in os.path.basename(path)}
