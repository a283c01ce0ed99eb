from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, final

from ray_lite._core import Job, Session

class PlainTasks:
    def __init__(
        self,
        session: Session,
        functions: dict[int, Callable[..., Any] | str],
        current_job: ContextVar[Job | None],
        not_plain: int,
    ) -> None: ...
    @property
    def job(self) -> Job | None: ...
    def run(self) -> tuple[Job | None, Callable[[], Any] | None]: ...

@final
class Returned:
    def __new__(cls, value: object) -> Returned: ...
    def __call__(self) -> Any: ...

@final
class Raised:
    def __new__(cls, error: BaseException) -> Raised: ...
    def __call__(self) -> Any: ...

@final
class PlainCalls(PlainTasks):
    def __init__(
        self,
        session: Session,
        functions: dict[int, Callable[..., Any] | str],
        current_job: ContextVar[Job | None],
        not_plain: int,
        actor: Job,
        group: int,
        instance: object,
    ) -> None: ...
