"""What the code that runs now can ask about itself and its session.

Owns `get_runtime_context`, `nodes`, `cluster_resources`, `available_resources`: one machine, seen
as a cluster of one node. It must not know how tasks are run; it reads what the session says of the
current one.
"""

import os
from typing import Any, final

from ray_lite import api, session
from ray_lite._core import Job
from ray_lite._options import UNITS
from ray_lite.exceptions import RaySystemError


@final
class RuntimeContext:
    """Facts about the running task, actor and session. Ids are hexadecimal digits."""

    def __init__(self, connection: session.Connection) -> None:
        """Look at this process's connection."""
        self._connection = connection

    @property
    def _job(self) -> Job | None:
        job = session.current_job.get()
        if job is not None:
            return job
        actor = session.current_actor()
        return None if actor is None else actor[1]

    @property
    def namespace(self) -> str:
        """Where unqualified actor names are looked up."""
        return self._connection.current_namespace

    def get_job_id(self) -> str:
        """Return the session's id."""
        return self._connection.session_id

    def get_node_id(self) -> str:
        """Return the id of the one node."""
        return self._connection.node_id

    def get_worker_id(self) -> str:
        """Return the id of this process."""
        return f"{self._connection.core.slot:024x}{os.getpid():032x}"

    def get_task_id(self) -> str | None:
        """Return the running task's id, the first 48 digits of its references; None: no task."""
        job = self._job
        return None if job is None else job.task_id.hex()

    def get_task_name(self) -> str | None:
        """Return the running task's name: its function's, or that of its options."""
        job = self._job
        return None if job is None else job.name

    def get_task_function_name(self) -> str | None:
        """Return `module.name` of the running task's function; in an actor, module.Class.method."""
        job = session.current_job.get()
        if job is None:
            return None
        function = job.function()[0]
        if isinstance(function, str):
            actor = session.current_actor()
            return f"{actor[0].module}.{actor[0].name}.{function}" if actor else function
        return f"{function.__module__}.{function.__name__}"

    def get_actor_id(self) -> str | None:
        """Return the id of the actor that this process is, or None."""
        if session.current_actor() is None:
            return None
        return self.current_actor._actor_id.hex()  # type: ignore[no-any-return]

    def get_actor_name(self) -> str | None:
        """Return the actor's name, "" if it has none; None outside actors."""
        actor = session.current_actor()
        return None if actor is None else actor[0].actor_name

    @property
    def current_actor(self) -> Any:
        """A handle of the actor that this process is.

        Raises:
            RuntimeError: It is none.
        """
        actor = session.current_actor()
        if actor is None:
            raise RuntimeError("current_actor: this code does not run in an actor")
        from ray_lite.actor import ActorHandle

        info, job = actor
        return ActorHandle(job.return_ref(0), job.function_ref(), info)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor has been restarted."""
        actor = session.current_actor()
        return actor is not None and actor[1].attempt > 0

    def get_assigned_resources(self) -> dict[str, float]:
        """Return what the running task, or the actor, holds: resource name to amount.

        Raises:
            AssertionError: On a driver, which holds nothing.
        """
        actor = session.current_actor()
        job = actor[1] if actor else self._job
        is_driver = not self._connection.is_worker and job is None
        assert not is_driver, "get_assigned_resources() is for tasks and actors"
        demand = {} if job is None else job.demand()
        return {name: units / UNITS for name, units in demand.items()}

    def is_canceled(self) -> bool:
        """Whether somebody has cancelled the running task.

        Raises:
            RuntimeError: On a driver.
        """
        job = session.current_job.get()
        if job is None:
            raise RuntimeError("is_canceled() is for code that runs in a task or an actor's method")
        return job.is_cancelled

    def get(self) -> dict[str, Any]:
        """Return the main facts by name."""
        return {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "namespace": self.namespace,
            "task_id": self.get_task_id(),
            "actor_id": self.get_actor_id(),
        }


def get_runtime_context() -> RuntimeContext:
    """Return the context of the code that calls this."""
    return RuntimeContext(api.connect())


# ---- the cluster of one node ----


def nodes() -> list[dict[str, Any]]:
    """Return the one node, as a dict.

    Raises:
        RaySystemError: There is no session; unlike other calls this one does not start it.
    """
    connection = _connected()
    node_id = connection.node_id
    return [
        {
            "NodeID": node_id,
            "Alive": True,
            "alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": os.uname().nodename,
            "Resources": cluster_resources(),
            "Labels": {"ray.io/node-id": node_id},
        }
    ]


def cluster_resources() -> dict[str, float]:
    """Return how much of each resource the session has; memory in bytes."""
    connection = _connected()
    totals = {name: total / UNITS for name, (total, _) in connection.core.resources().items()}
    return {name: total for name, total in totals.items() if total > 0} | _memory(connection)


def available_resources() -> dict[str, float]:
    """Return how much of each resource is free now; one of which nothing is left is not there."""
    connection = _connected()
    free = {name: units / UNITS for name, (_, units) in connection.core.resources().items()}
    return {name: amount for name, amount in free.items() if amount > 0} | _memory(connection)


def _memory(connection: session.Connection) -> dict[str, float]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "memory": float(pages),
        "object_store_memory": float(connection.core.segments.capacity),
        "node:127.0.0.1": 1.0,
        "node:__internal_head__": 1.0,
    }


def _connected() -> session.Connection:
    connection = session.current()
    if connection is None:
        raise RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return connection
