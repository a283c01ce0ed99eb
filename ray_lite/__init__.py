"""Ray's tasks, objects and remote generators on one machine: `import ray_lite as ray`."""

import sys

if sys.platform != "linux":
    raise ImportError(f"ray_lite runs on Linux only; this is {sys.platform}")

from ray_lite import _codec, _core, exceptions
from ray_lite._core import ObjectRef
from ray_lite.api import get, init, is_initialized, put, shutdown, wait
from ray_lite.generator import DynamicObjectRefGenerator
from ray_lite.remote import remote

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "exceptions",
    "get",
    "init",
    "is_initialized",
    "put",
    "remote",
    "shutdown",
    "wait",
]
__version__ = "0.1.0"

_codec.configure(_core.ObjectRef, DynamicObjectRefGenerator)
