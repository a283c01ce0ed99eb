"""Ray's tasks, objects and remote generators on one machine: `import ray_lite as ray`."""

import sys

if sys.platform != "linux":
    raise ImportError(f"ray_lite runs on Linux only; this is {sys.platform}")

try:
    from ray_lite import _codec, _core, exceptions
except ImportError as error:
    raise ImportError(
        "the compiled part of ray_lite is missing or was built for another Python; in a source "
        "tree run `make build`, elsewhere reinstall it: pip install --force-reinstall ray_lite "
        f"({error})"
    ) from error
from ray_lite import actor, remote_function, util
from ray_lite._core import ObjectRef
from ray_lite.actor import get_actor, kill, method
from ray_lite.api import cancel, get, init, is_initialized, memory_summary, put, shutdown, wait
from ray_lite.arrays import empty, empty_like, full, ones, zeros
from ray_lite.generator import DynamicObjectRefGenerator, ObjectRefGenerator
from ray_lite.remote import remote
from ray_lite.runtime_context import (
    available_resources,
    cluster_resources,
    get_runtime_context,
    nodes,
)

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "empty",
    "empty_like",
    "exceptions",
    "full",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "memory_summary",
    "method",
    "nodes",
    "ones",
    "put",
    "remote",
    "remote_function",
    "shutdown",
    "util",
    "wait",
    "zeros",
]
__version__ = "0.1.0"

_codec.configure(_core.ObjectRef, DynamicObjectRefGenerator, ObjectRefGenerator, _core.read_part)
