"""The list of compiled rooms, and how a compiler is to treat them.

Owns the extension modules and their flags. All metadata lives in pyproject.toml.

Three environment variables choose another flavour of the build:

* ``RAY_LITE_DEBUG=1``: the core checks its invariants as it goes, and carries debug symbols.
* ``RAY_LITE_FAULTS=1``: kill points are compiled in, for the crash tests.
* ``RAY_LITE_SANITIZE=address,undefined``: any value that gcc's ``-fsanitize=`` takes.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup


def unsupported() -> str | None:
    """Return why this machine or interpreter cannot run ray_lite; None if it can."""
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.platform != "linux":
        return f"it runs on Linux only, and this is {sys.platform}"
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"it runs on x86-64 and aarch64 only, and this is {platform.machine()}"
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return f"it needs CPython 3.11 to 3.14, and this is {found}; use one of those"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return f"it needs CPython with the GIL, and this {found} is built without; use a usual one"
    return None


def switched_on(name: str) -> bool:
    """Return whether environment variable `name` asks for something."""
    return os.environ.get(name, "0") not in ("", "0")


reason = unsupported()
if reason:
    sys.exit(f"ray_lite cannot be built here: {reason}.")

# Only now: the requirements of a build need not exist where we cannot be built at all.
import numpy as np  # noqa: E402
from Cython.Build import cythonize  # noqa: E402

debug = switched_on("RAY_LITE_DEBUG")
faults = switched_on("RAY_LITE_FAULTS")
sanitizers = os.environ.get("RAY_LITE_SANITIZE", "")

macros: list[tuple[str, str | None]] = [
    ("_GNU_SOURCE", None),
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
]
compile_args = ["-std=c11", "-fvisibility=hidden", "-pthread"]
link_args = ["-pthread"]

if debug:
    # -U because Python's own flags bring -DNDEBUG.
    compile_args += ["-O1", "-g", "-UNDEBUG"]
    macros.append(("RL_CHECKS", None))
else:
    # -g0 because Python's own flags bring -g, which makes the wheel several times as large.
    compile_args += ["-O2", "-g0"]
if faults:
    macros.append(("RL_FAULTS", None))
if sanitizers:
    compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
    link_args.append(f"-fsanitize={sanitizers}")

# Objects of two flavours must never meet, so each has its own directory under build/.
words = ["debug"] * debug + ["faults"] * faults + sanitizers.replace(",", " ").split()
flavour = "-".join(words) or "release"

CORE = "ray_lite/_core.pyx"
core_sources = sorted(glob("csrc/rl_*.c"))
headers = sorted(glob("csrc/*.h") + glob("ray_lite/*.pxd"))

extensions = [
    Extension(
        name=room.removesuffix(".pyx").replace("/", "."),
        # The core is compiled into _core alone; the other rooms reach it by cimport, so that a
        # process has its state once.
        sources=[room, *core_sources] if room == CORE else [room],
        depends=headers,
        include_dirs=["csrc", np.get_include()],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for room in sorted(glob("ray_lite/*.pyx"))
]

setup(
    ext_modules=cythonize(extensions, build_dir="build"),
    options={
        "build": {"build_base": f"build/{flavour}"},
        "build_ext": {"parallel": True},
    },
)
