"""Values to payload bytes and back. See _codec.pyx for the formats, _codec.pxd for C callers."""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, final

import numpy as np
from typing_extensions import Buffer

# Before Python 3.12 numpy's stubs do not say that an array is a buffer.
_Buffer: TypeAlias = Buffer | np.ndarray[Any, Any]

KIND_NONE: int
KIND_TRUE: int
KIND_FALSE: int
KIND_INT: int
KIND_FLOAT: int
KIND_STR: int
KIND_BYTES: int
KIND_BYTEARRAY: int
KIND_ARRAY: int
KIND_PICKLE: int
KIND_DYNAMIC: int
KIND_ERROR: int
KIND_CALL: int
KIND_REF_LIST: int
KIND_PLAIN: int

@final
class Encoded:
    @property
    def kind(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def refs(self) -> list[Any]: ...
    @property
    def ndeps(self) -> int: ...
    @property
    def moves(self) -> list[Any] | None: ...
    def to_bytes(self) -> bytes: ...
    def write_into(self, buffer: _Buffer) -> None: ...

@final
class ErrorPayload:
    @property
    def data(self) -> bytes: ...
    def __new__(cls, data: bytes) -> ErrorPayload: ...

def configure(
    ref_type: type[Hashable] | None,
    make_dynamic: Callable[[list[Any]], object] | None,
    movable_type: type[Any] | None,
    read_part: Callable[[Any], object] | None,
) -> tuple[
    type[Hashable] | None,
    Callable[[list[Any]], object] | None,
    type[Any] | None,
    Callable[[Any], object] | None,
]: ...
def encode(value: object) -> Encoded: ...
def encode_call(args: tuple[object, ...], kwargs: dict[str, object]) -> Encoded: ...
def encode_refs(refs: list[Any]) -> Encoded: ...
def encode_error(data: bytes) -> Encoded: ...
def decode(kind: int, pin: _Buffer | None, refs: list[Any]) -> Any: ...
def decode_call(
    kind: int, pin: _Buffer | None, refs: list[Any], resolved: list[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]: ...
