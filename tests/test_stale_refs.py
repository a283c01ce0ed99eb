"""References that refer to nothing here: each use raises ValueError, none finds another's value."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import MIB

import ray_lite as ray
from ray_lite.session import Connection

SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * MIB}


def ended() -> Any:
    """Return a reference of a session that has ended, whose index is in use again by now."""
    ray.init(**SMALL)
    others = [ray.put(f"other {i}") for i in range(3)]
    ref = ray.put("gone")
    del others
    ray.shutdown()
    return ref


STRAYS = [
    pytest.param(ended, id="ended"),
    pytest.param(ray.ObjectRef.nil, id="nil"),
    pytest.param(ray.ObjectRef.from_random, id="random"),
]


@pytest.fixture(params=STRAYS)
def stray(request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    """[a reference that belongs to no session], with a session up in which its index is taken.

    In a list that is emptied in the end, for pytest keeps what a fixture gave.
    """
    box = [request.param()]
    ray.init(**SMALL)
    texts = [f"somebody else's value {i}" for i in range(20)]
    values = [ray.put(text) for text in texts]
    yield box
    assert ray.get(values) == texts
    box.clear()
    ray.shutdown()


same = ray.remote(lambda x: x)


@ray.remote(num_returns="streaming")
def stream(x: Any) -> Any:
    """Yield the argument."""
    yield x


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda ref: same.remote(ref), id="argument"),
        pytest.param(lambda ref: same.remote(x=ref), id="keyword argument"),
        pytest.param(lambda ref: same.remote([ref]), id="within an argument"),
        pytest.param(lambda ref: same.remote([ref] + [0] * 1000), id="within a long argument"),
        pytest.param(lambda ref: stream.remote(ref), id="argument of a generator"),
        pytest.param(lambda ref: ray.put([ref]), id="put"),
        pytest.param(lambda ref: ray.put({"a": (1, [ref])}), id="put, deep"),
        pytest.param(lambda ref: ray.get(ref), id="get"),
        pytest.param(lambda ref: ray.get([ref]), id="get a list"),
        pytest.param(lambda ref: ray.get([ray.put(1), ref]), id="get a list, not the first"),
        pytest.param(lambda ref: ray.wait([ref], timeout=0), id="wait"),
        pytest.param(lambda ref: ray.wait([ray.put(1), ref]), id="wait, not the first"),
    ],
)
def test_use_of_a_stray_ref_raises_value_error(stray: list[Any], use: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="belongs to no live session"):
        use(stray[0])
    assert ray.get(same.remote(1)) == 1


def test_future_of_a_stray_ref_raises_value_error(stray: list[Any]) -> None:
    async def await_it() -> None:
        await stray[0]

    async def gather_it() -> None:
        await asyncio.gather(stray[0], same.remote(1))

    for ask in (
        lambda: stray[0].future(),
        lambda: asyncio.run(await_it()),
        lambda: asyncio.run(gather_it()),
    ):
        with pytest.raises(ValueError, match="belongs to no live session"):
            ask()


def test_future_without_any_session_raises_value_error() -> None:
    gone = ended()
    for ref in (gone, ray.ObjectRef.nil(), ray.ObjectRef.from_random()):
        with pytest.raises(ValueError, match="belongs to no live session"):
            ref.future()
    assert not ray.is_initialized()


@pytest.mark.parametrize("make", [ray.ObjectRef.nil, ray.ObjectRef.from_random])
def test_stray_ref_in_what_a_task_returns_or_yields_fails_that_value(
    session: Connection, make: Callable[[], Any]
) -> None:
    @ray.remote
    def give() -> Any:
        return [make()]

    @ray.remote(num_returns=2)
    def give_each() -> Any:
        yield "whole"
        yield [make()]

    with pytest.raises(ValueError, match="belongs to no live session"):
        ray.get(give.remote())
    first, second = give_each.remote()
    assert ray.get(first) == "whole"
    with pytest.raises(ValueError, match="belongs to no live session"):
        ray.get(second)


def test_generator_of_an_ended_session_is_refused(session: Connection) -> None:
    generator = stream.remote(1)
    assert ray.get(next(generator)) == 1
    ray.shutdown()
    ray.init(**SMALL)
    with pytest.raises(ValueError, match="belongs to no live session"):
        ray.wait([generator], timeout=0)
    with pytest.raises(ray.exceptions.RaySystemError):
        next(generator)
    assert ray.get(same.remote(1)) == 1
