"""Which names are dead at this yield? Answered from a generator's code object, before it runs.

By a name that is dead where a generator has yielded, no code of that generator can reach a value
any more. This file owns that question and nothing else: who else holds a value, and whether the
frame is being traced, is for the caller to ask. It must not know what values are, nor where a
yielded one goes.

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


@dataclass(slots=True, frozen=True)
class DeadNames:
    """What is dead at the yields of one code object.

    A yield is known by what ``gi_frame.f_lasti`` (``ag_frame.f_lasti``) is while the generator is
    suspended at it. Only yields that are statements are there: within a larger expression, as in
    ``f(x, (yield x))``, the stack may hold a value, too, and from 3.14 on without counting it.
    """

    plain: frozenset[int]
    """The statements ``yield name`` at which that name is dead."""
    names: dict[int, tuple[str, ...]]
    """All names that are dead at a statement ``yield ...``."""


def dead_names(code: CodeType) -> DeadNames:
    """Find what is dead at each yield.

    The search costs about as much as disassembling `code`: make it once for each code object.

    Args:
        code: Of a generator or of an asynchronous generator; others have no such yields.

    Returns:
        It; empty where `code` could reach its locals in ways that cannot be seen.
    """
    if sys.version_info[:2] not in _KNOWN_VERSIONS or _reaches_frames(code):
        return DeadNames(frozenset(), {})
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    if any(map(_is_unknown, instructions)):
        return DeadNames(frozenset(), {})
    handlers = {
        offset: entry.target
        for entry in bytecode.exception_entries  # type: ignore[attr-defined]
        for offset in range(entry.start, entry.end)
    }
    live = _live_names(_steps(instructions, handlers))
    # What is in a cell is other functions' to read.
    names = set(code.co_varnames).difference(code.co_cellvars)
    plain: set[int] = set()
    dead: dict[int, tuple[str, ...]] = {}
    for offset, name in _statements(instructions):
        dead[offset + _LAG] = tuple(sorted(names - live[offset]))
        if name is not None and name not in live[offset]:
            plain.add(offset + _LAG)
    return DeadNames(frozenset(plain), dead)


@dataclass(slots=True, frozen=True)
class _Step:
    """What one instruction does to names, and the offsets where the frame can go from it."""

    touches: dict[str, str]  # a name to what happens to it first: "r" or "w"
    onward: tuple[int, ...]  # if it succeeds
    handler: tuple[int, ...]  # if it raises


def _live_names(steps: dict[int, _Step]) -> dict[int, frozenset[str]]:
    """Return for each offset the names that some way on from before it reads.

    For a yield, that is what is alive while it is suspended: it touches nothing itself, and an
    exception thrown into the generator is raised at it.
    """
    live: dict[int, frozenset[str]] = dict.fromkeys(steps, frozenset())
    changed = True
    while changed:
        changed = False
        for offset, step in reversed(steps.items()):
            names = {name for onward in step.onward for name in live[onward]}
            names.difference_update(step.touches)
            names.update(name for name, touch in step.touches.items() if touch == "r")
            # Raised, it may not have written yet.
            names.update(name for handler in step.handler for name in live[handler])
            if names != live[offset]:
                live[offset] = frozenset(names)
                changed = True
    return live


def _statements(instructions: list[dis.Instruction]) -> Iterator[tuple[int, str | None]]:
    """Yield the offset of each statement ``yield ...``; and of ``yield name`` the fast local.

    A statement drops the result of the yield at once.
    """
    for index, instruction in enumerate(instructions):
        after = [later.opname for later in instructions[index + 1 : index + 3]]
        if instruction.opname != "YIELD_VALUE" or after != ["RESUME", "POP_TOP"]:
            continue
        start = index - 1
        if _wraps_for_async(instructions[start]):
            start -= 1
        # Whoever jumps in behind the load, as `yield x or y` does, yields something else.
        entered = any(later.is_jump_target for later in instructions[start + 1 : index + 1])
        is_plain = instructions[start].opname in _LOADS and not entered
        yield instruction.offset, _names(instructions[start])[-1] if is_plain else None


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
