"""Why an actor died: the certificate that is sealed in the object that stands for the actor.

Owns its words, and how it is stored and read. It is an envelope of an ActorDiedError, kept as plain
bytes: as a failure it would be printed where nobody asked for it. It must not know who finds an
actor dead: the actor's own process (actor_worker.py), or the supervisor.
"""

from typing import Any, Final

from ray_lite._codec import encode
from ray_lite._core import Id, Job, ObjectRef, Session
from ray_lite.exceptions import ActorDiedError, dumps_error, error_text

ACTOR_ID_NBYTES: Final = 16
#: Reasons that somebody has asked for, in words that go on from "The actor is dead because".
EXITED: Final = "exit_actor() is called"
KILLED: Final = "it was killed by `ray.kill`"


def actor_id_of(ref: ObjectRef[Any]) -> Id:
    """Return the id of the actor that an object stands for."""
    return Id(ref.binary()[:ACTOR_ID_NBYTES])


def certify_death(
    core: Session, job: Job, reason: str, *, name: str, namespace: str, pid: int | None = None
) -> None:
    """End the task that is an actor, for this reason.

    Args:
        core: The session of this process.
        job: The task.
        reason: In words that go on from "The actor is dead because".
        name: The class's name.
        namespace: Of the actor's name.
        pid: Its process, where that is known.
    """
    actor_id = actor_id_of(job.return_ref(0)).hex()
    where = "" if pid is None else f"\n\tpid: {pid}"
    text = (
        "The actor died unexpectedly before finishing this task.\n"
        f"\tclass_name: {name}\n\tactor_id: {actor_id}{where}\n\tnamespace: {namespace}\n"
        f"\tip: 127.0.0.1\nThe actor is dead because {reason}."
    )
    _conclude(core, job, ActorDiedError(text, actor_id=actor_id))


def certify_failed_constructor(core: Session, job: Job, failure: bytes) -> None:
    """End the task that is an actor: the constructor, or an argument of it, failed so."""
    text = f"The actor died because of an error raised in its creation task, {error_text(failure)}"
    died = ActorDiedError(text, actor_id=actor_id_of(job.return_ref(0)).hex())
    died.actor_init_failed = True
    _conclude(core, job, died)


def _conclude(core: Session, job: Job, died: ActorDiedError) -> None:
    job.conclude([core.store(encode(dumps_error(died)))])


def was_asked_for(envelope: bytes) -> bool:
    """Whether a failure says that its actor ended because somebody wanted that."""
    text = error_text(envelope)
    return any(f"The actor is dead because {reason}" in text for reason in (EXITED, KILLED))


def read_certificate(core: Session, actor: ObjectRef[Any]) -> bytes:
    """Return the envelope of a dead actor's ActorDiedError."""
    envelope: bytes = core.read(actor)
    return envelope
