"""Stored payloads and Python: a value or a failure, in both directions.

Owns the meaning of a stored failure. It must not know tasks or sessions beyond the core it is
handed.
"""

from typing import Any

from ray_lite import _core
from ray_lite._codec import ErrorPayload, encode_error
from ray_lite.exceptions import ObjectStoreFullError, loads_error


def read(core: _core.Session, ref: _core.ObjectRef[Any]) -> Any:
    """Return the value of a sealed reference, or raise the failure that is stored in its place."""
    value = core.read(ref)
    if type(value) is ErrorPayload:
        raise loads_error(value.data)
    return value


def store_failure(core: _core.Session, data: bytes) -> _core.Stored:
    """Store the envelope of a failure (exceptions.dumps_error).

    A failure must always arrive: where the store has no room for its text, an empty one, which
    needs none, says at least that there was one.
    """
    try:
        return core.store(encode_error(data))
    except ObjectStoreFullError:
        return core.store(encode_error(b""))


def fail_open_returns(core: _core.Session, job: _core.Job, data: bytes) -> None:
    """Store the envelope of a failure in every return that is still open; end the task."""
    count = len(job.open_returns())
    job.conclude([store_failure(core, data) for _ in range(count)])
