"""actor.py: what is done once for a class and not again for each of its actors."""

from typing import Any

import pytest

import ray_lite as ray
from ray_lite import actor


def test_class_is_inspected_once_for_all_its_actors(
    shared_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected: list[type] = []
    inspect_class = actor._inspect_class

    def note(cls: type) -> Any:
        inspected.append(cls)
        return inspect_class(cls)

    monkeypatch.setattr(actor, "_inspect_class", note)

    class Plain:
        def __init__(self, value: int) -> None:
            self.value = value

        def get(self) -> int:
            return self.value

    made = ray.remote(Plain)
    assert inspected == []
    actors = [made.remote(1), made.remote(2), made.options(max_concurrency=2).remote(3)]
    assert ray.get([each.get.remote() for each in actors]) == [1, 2, 3]
    assert inspected == [Plain]


def test_actors_with_the_same_options_share_what_is_stored_of_their_class(
    shared_session: Any,
) -> None:
    class Plain:
        pass

    made = ray.remote(Plain)
    first, second, other = made.remote(), made.remote(), made.options(max_concurrency=2).remote()
    assert first._exported == second._exported != other._exported


@pytest.mark.usefixtures("shared_session")
def test_name_in_another_namespace_is_not_found_but_said_where_it_is() -> None:
    @ray.remote(num_cpus=0)
    class Anything:
        pass

    there = Anything.options(name="somebody", namespace="elsewhere").remote()
    with pytest.raises(ValueError, match="but in 'elsewhere': name the namespace"):
        ray.get_actor("somebody")
    with pytest.raises(ValueError, match="was never made or has died"):
        ray.get_actor("nobody")
    del there
