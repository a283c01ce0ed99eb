from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, final

from ray_lite._core import Job, Session

@final
class PlainTasks:
    def __new__(
        cls,
        session: Session,
        functions: dict[int, Callable[..., Any]],
        current_job: ContextVar[Job | None],
        not_plain: int,
    ) -> PlainTasks: ...
    @property
    def job(self) -> Job | None: ...
    def run(self) -> tuple[Job | None, Callable[[], Any] | None]: ...

@final
class Returned:
    def __call__(self) -> Any: ...

@final
class Raised:
    def __call__(self) -> Any: ...
