"""Is this name dead at this yield? Answered from a generator's code object, before it runs.

Where the name that a generator has yielded is dead, no code of that generator can reach the value
by it any more. This file owns that question and nothing else: who else holds the value, and
whether the frame is being traced, is for the caller to ask. It must not know what values are, nor
where a yielded one goes.

"Dead" is proven, everything else is alive: on every way on from the yield (resumed, thrown into,
closed) the name is bound anew, deleted, or gone with its frame before an instruction reads it.
"""

import dis
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from types import CodeType
from typing import Final

# Another version may have instructions that these rules do not foresee.
_KNOWN_VERSIONS: Final = frozenset({(3, 11), (3, 12), (3, 13), (3, 14)})

# How many bytes f_lasti is past the yield at which a generator is suspended.
_LAG: Final = 2 if sys.version_info >= (3, 13) else 0

# What instructions do to the fast locals they name, in the order in which they do it: "r" reads,
# "w" binds or unbinds. LOAD_FAST_AND_CLEAR reads: what it takes away is put back after an inlined
# comprehension.
_TOUCHES: Final = {
    "LOAD_DEREF": "r",  # loads out of a cell; to dis that is a local from 3.14 on
    "LOAD_FAST": "r",
    "LOAD_FAST_BORROW": "r",
    "LOAD_FAST_CHECK": "r",
    "LOAD_FAST_AND_CLEAR": "r",
    "LOAD_FAST_LOAD_FAST": "rr",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": "rr",
    "STORE_FAST": "w",
    "DELETE_FAST": "w",
    "STORE_FAST_LOAD_FAST": "wr",
    "STORE_FAST_STORE_FAST": "ww",
}

# Those after which the top of the stack is the value of one local, the last they name. LOAD_DEREF
# is not among them: other functions read and bind what is in a cell.
_LOADS: Final = frozenset(
    {"LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "STORE_FAST_LOAD_FAST"}
)

_JUMPS: Final = frozenset({*dis.hasjrel, *dis.hasjabs})
_NEVER_FALL_THROUGH: Final = frozenset(
    {
        "JUMP_FORWARD",
        "JUMP_BACKWARD",
        "JUMP_BACKWARD_NO_INTERRUPT",
        "RAISE_VARARGS",
        "RERAISE",
        "RETURN_CONST",
        "RETURN_VALUE",
    }
)

# By these, code gets at locals that no instruction of their own names. A bare super() is one: it
# takes the first argument out of the frame.
_WAYS_INTO_FRAMES: Final = frozenset(
    {
        "__class__",
        "_current_frames",
        "_getframe",
        "ag_frame",
        "breakpoint",
        "cr_frame",
        "currentframe",
        "dir",
        "eval",
        "exec",
        "f_back",
        "f_locals",
        "get_objects",
        "get_referents",
        "get_referrers",
        "gi_frame",
        "locals",
        "set_trace",
        "setprofile",
        "settrace",
        "super",
        "tb_frame",
        "vars",
    }
)


def dead_yields(code: CodeType) -> frozenset[int]:
    """Find the statements ``yield name`` after which that name is dead.

    The search costs about as much as disassembling `code`: make it once for each code object.

    Args:
        code: Of a generator or of an asynchronous generator; others have no such yields.

    Returns:
        What ``gi_frame.f_lasti`` (``ag_frame.f_lasti``) is while the generator is suspended at one
        of these yields. Empty where `code` could reach its locals in ways that cannot be seen.
    """
    if sys.version_info[:2] not in _KNOWN_VERSIONS or _reaches_frames(code):
        return frozenset()
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    if any(map(_is_unknown, instructions)):
        return frozenset()
    handlers = {
        offset: entry.target
        for entry in bytecode.exception_entries  # type: ignore[attr-defined]
        for offset in range(entry.start, entry.end)
    }
    steps = _steps(instructions, handlers)
    return frozenset(
        offset + _LAG
        for offset, name in _plain_yields(instructions)
        if _is_dead(name, offset, steps)
    )


@dataclass(slots=True, frozen=True)
class _Step:
    """What one instruction does to names, and the offsets where the frame can go from it."""

    touches: dict[str, str]  # a name to what happens to it first: "r" or "w"
    onward: tuple[int, ...]  # if it succeeds
    handler: tuple[int, ...]  # if it raises


def _is_dead(name: str, suspended_at: int, steps: dict[int, _Step]) -> bool:
    """Return whether no way on from the yield at that offset reads the name."""
    # The yield itself touches nothing, and an exception thrown into the generator is raised at it.
    pending = [suspended_at]
    seen: set[int] = set()
    while pending:
        offset = pending.pop()
        if offset in seen:
            continue
        seen.add(offset)
        step = steps[offset]
        touch = step.touches.get(name)
        if touch == "r":
            return False
        # Raised, it may not have written yet.
        pending += step.handler
        if touch is None:
            pending += step.onward
    return True


def _plain_yields(instructions: list[dis.Instruction]) -> Iterator[tuple[int, str]]:
    """Yield offset and name of each statement ``yield name`` of a fast local.

    The result of the yield has to be dropped at once: within a larger expression, as in
    ``f(x, (yield x))``, the stack may hold the value too, and from 3.14 on without counting it.
    """
    for index, instruction in enumerate(instructions):
        if instruction.opname != "YIELD_VALUE":
            continue
        start = index - 1
        if _wraps_for_async(instructions[start]):
            start -= 1
        # Whoever jumps in behind the load, as `yield x or y` does, yields something else.
        entered = any(later.is_jump_target for later in instructions[start + 1 : index + 1])
        after = [later.opname for later in instructions[index + 1 : index + 3]]
        if instructions[start].opname in _LOADS and not entered and after == ["RESUME", "POP_TOP"]:
            yield instruction.offset, _names(instructions[start])[-1]


def _wraps_for_async(instruction: dis.Instruction) -> bool:
    """Return whether the compiler puts this before each yield of an asynchronous generator."""
    return (
        instruction.opname == "ASYNC_GEN_WRAP" or instruction.argrepr == "INTRINSIC_ASYNC_GEN_WRAP"
    )


def _steps(instructions: list[dis.Instruction], handlers: dict[int, int]) -> dict[int, _Step]:
    """Return the step at each offset."""
    return {
        instruction.offset: _Step(
            touches=_first_touches(instruction),
            onward=tuple(_onward(instruction, following)),
            handler=(handlers[instruction.offset],) if instruction.offset in handlers else (),
        )
        for instruction, following in zip_longest(instructions, instructions[1:])
    }


def _onward(instruction: dis.Instruction, following: dis.Instruction | None) -> Iterator[int]:
    """Yield the offsets that can come next if `instruction` raises nothing."""
    if instruction.opcode in _JUMPS:
        yield instruction.argval
    if following is not None and instruction.opname not in _NEVER_FALL_THROUGH:
        yield following.offset


def _first_touches(instruction: dis.Instruction) -> dict[str, str]:
    """Return each fast local that `instruction` names, with what it does to that first."""
    touches: dict[str, str] = {}
    if instruction.opname in _TOUCHES:
        for name, touch in zip(_names(instruction), _TOUCHES[instruction.opname], strict=True):
            touches.setdefault(name, touch)
    return touches


def _names(instruction: dis.Instruction) -> tuple[str, ...]:
    """Return the fast locals that an instruction of _TOUCHES names, in order."""
    argument = instruction.argval
    return argument if isinstance(argument, tuple) else (argument,)


def _is_unknown(instruction: dis.Instruction) -> bool:
    """Return whether `instruction` does something to fast locals that these rules do not know."""
    names_local = instruction.opcode in dis.haslocal or "FAST" in instruction.opname
    return names_local and instruction.opname not in _TOUCHES


def _reaches_frames(code: CodeType) -> bool:
    """Return whether `code`, or code defined in it, names a way to the locals of a frame."""
    if not _WAYS_INTO_FRAMES.isdisjoint(code.co_names + code.co_freevars):
        return True
    return any(
        _reaches_frames(constant)
        if isinstance(constant, CodeType)
        else constant in _WAYS_INTO_FRAMES
        for constant in code.co_consts
    )
