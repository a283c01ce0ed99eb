"""Ray's helpers on top of tasks and actors. Everything here uses the public API alone."""

from typing import Any

from ray_lite.util.actor_pool import ActorPool

__all__ = ["ActorPool", "list_named_actors"]


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Return the names of this namespace's actors, or {"name", "namespace"} of all of them."""
    from ray_lite.actor import list_named_actors as names  # util is below actor in the imports

    return names(all_namespaces)
