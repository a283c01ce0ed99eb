"""A stored payload is a value or a failure; a failure always arrives."""

import numpy as np
import pytest
from support import MIB

import ray_lite as ray
from ray_lite._codec import encode
from ray_lite._values import read, store_failure
from ray_lite.exceptions import (
    ObjectStoreFullError,
    RayError,
    WorkerCrashedError,
    dumps_error,
    make_task_error,
)
from ray_lite.session import Connection


def fill(session: Connection) -> "list[ray.ObjectRef[object]]":
    """Leave no room for anything that needs a block."""
    refs = []
    for exponent in range(27, 5, -1):
        while session.core.usage()["largest"] >= 2**exponent + 4096:
            refs.append(ray.put(np.zeros(2**exponent, np.uint8)))
    while True:
        try:
            refs.append(ray.put(np.zeros(256, np.uint8)))
        except ObjectStoreFullError:
            return refs


def test_read_of_a_value_returns_it(shared_session: Connection) -> None:
    core = shared_session.core
    assert read(core, core.put(encode({"a": [1]}))) == {"a": [1]}


def test_read_of_a_failure_raises_a_fresh_exception_each_time(shared_session: Connection) -> None:
    core = shared_session.core
    ref = core.put_stored(store_failure(core, dumps_error(WorkerCrashedError("gone"))))
    errors = []
    for _ in range(2):
        with pytest.raises(WorkerCrashedError, match="gone") as info:
            read(core, ref)
        errors.append(info.value)
    assert errors[0] is not errors[1]


def test_read_of_an_exception_that_was_stored_as_a_value_returns_it(
    shared_session: Connection,
) -> None:
    value = ray.get(ray.put(KeyError("a value, not a failure")))
    assert type(value) is KeyError


@pytest.mark.session(patience=0.0)
def test_failure_arrives_even_where_the_store_has_no_room_for_its_text(
    session: Connection,
) -> None:
    kept = fill(session)
    error = make_task_error("task", ValueError("x" * MIB), pid=1)
    ref = session.core.put_stored(store_failure(session.core, dumps_error(error)))
    with pytest.raises(RayError):
        read(session.core, ref)
    assert ray.get(kept[0]) is not None


@pytest.mark.session(patience=0.0)
def test_task_that_fails_while_the_store_is_full_says_at_least_that_it_failed(
    session: Connection,
) -> None:
    @ray.remote
    def fail():
        raise ValueError("x" * MIB)

    ray.wait([fail.remote()])  # the function is exported while there is room
    kept = fill(session)
    with pytest.raises(RayError):
        ray.get(fail.remote())
    assert ray.get(kept[0]) is not None
