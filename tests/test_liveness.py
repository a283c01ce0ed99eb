"""Dead names at yields: a table of verdicts, one control a rule, and programs made at random."""

import sys
import textwrap
from collections.abc import (
    AsyncGenerator,
    Container,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import count
from types import CodeType, FunctionType
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_lite import liveness
from ray_lite.liveness import dead_names

AnyGenerator: TypeAlias = Generator[Any, Any, Any] | AsyncGenerator[Any, Any]

# --- a table of verdicts -----------------------------------------------------------------------

# Each yield says what becomes of its name. One that the compiler has copied (a `finally` serves
# more than one way out) is dead if it is in one of the copies.
VERDICTS = {
    "the end of the frame": """
        def g():
            x = make()
            yield x  # dead
        """,
    "the end of the frame, with a value": """
        def g():
            x = make()
            y = make()
            yield x  # dead
            return y
        """,
    "a read": """
        def g():
            x = make()
            yield x  # alive
            use(x)
        """,
    "bound anew before it is read": """
        def g():
            x = make()
            yield x  # dead
            x = make()
            use(x)
            yield x  # dead
        """,
    "on one line": """
        def g():
            x = make(); yield x  # dead
            x = make(); yield x  # alive
            use(x)
        """,
    "on one line with another": """
        def g(x):
            y = make(); yield x  # alive
            use(x)
            y = make(); yield x  # dead
            use(y)
        """,
    "an argument": """
        def g(x, y):
            yield x  # dead
            yield y  # alive
            use(y)
        """,
    "another name of the value is not asked about": """
        def g():
            x = y = make()
            yield x  # dead
            use(y)
        """,
    "read by what binds it anew": """
        def g():
            x = make()
            yield x  # alive
            x = use(x)
        """,
    "read by an augmented assignment": """
        def g():
            x = make()
            yield x  # alive
            x += 1
        """,
    "an item is set": """
        def g():
            x = make()
            yield x  # alive
            x[0] = make()
        """,
    "swapped": """
        def g(x, y):
            yield x  # alive
            x, y = y, x
            use(y)
        """,
    "unpacked into": """
        def g(x, y):
            yield x  # dead
            y, x = make()
            use(x, y)
        """,
    "bound by a walrus": """
        def g(x):
            yield x  # dead
            use((x := make()), x)
        """,
    "unpacked into, then read": """
        def g(x, y):
            yield x  # alive
            y, z = make()
            use(x, y)
        """,
    "deleted": """
        def g():
            x = make()
            yield x  # dead
            del x
        """,
    "deleted, then read in vain": """
        def g():
            x = make()
            yield x  # dead
            del x
            use(x)
        """,
    "deleted on one way": """
        def g():
            x = make()
            yield x  # alive
            if make():
                del x
            use(x)
        """,
    "a loop that makes a new one": """
        def g():
            for i in make():
                x = make(i)
                yield x  # dead
        """,
    "a loop's own variable": """
        def g():
            for x in make():
                yield x  # dead
        """,
    "a loop's own variable, read after the loop": """
        def g():
            for x in make():
                yield x  # alive
            use(x)
        """,
    "read in the next round": """
        def g():
            x = make()
            for i in make():
                use(x)
                yield x  # alive
        """,
    "yielded in the next round": """
        def g():
            x = make()
            while make():
                yield x  # alive
        """,
    "a buffer that is filled again": """
        def g():
            x = make()
            while True:
                fill(x)
                yield x  # alive
        """,
    "read after a break": """
        def g():
            while True:
                x = make()
                yield x  # alive
                if make():
                    break
            use(x)
        """,
    "read before a continue only": """
        def g():
            for i in make():
                x = make()
                if use(x):
                    continue
                yield x  # dead
        """,
    "read by the else of a loop": """
        def g():
            for i in make():
                x = make()
                yield x  # alive
            else:
                use(x)
        """,
    "read in one branch": """
        def g():
            x = make()
            yield x  # alive
            if make():
                use(x)
        """,
    "bound anew in one branch": """
        def g():
            x = make()
            yield x  # alive
            if make():
                x = make()
            use(x)
        """,
    "bound anew in each branch": """
        def g():
            x = make()
            yield x  # dead
            if make():
                x = make(1)
            else:
                x = make(2)
            use(x)
        """,
    "read by a handler": """
        def g():
            x = make()
            try:
                yield x  # alive
                x = make()
            except Exception:
                use(x)
        """,
    "read by a handler that covers what comes later": """
        def g():
            x = make()
            yield x  # alive
            try:
                x = make()
            except Exception:
                use(x)
        """,
    "read by a handler that is out of reach": """
        def g():
            x = make()
            try:
                make(x)
            except Exception:
                use(x)
            yield x  # dead
        """,
    "bound anew by a handler": """
        def g():
            x = make()
            try:
                yield x  # dead
                x = make()
            except Exception:
                x = make()
            use(x)
        """,
    "the name of the exception": """
        def g():
            x = make()
            try:
                yield x  # dead
            except Exception as x:
                use(x)
        """,
    "read by a handler of a handler": """
        def g():
            x = make()
            try:
                try:
                    yield x  # alive
                except KeyError:
                    make()
            except ValueError:
                use(x)
        """,
    "read by a finally, which a close runs": """
        def g():
            x = make()
            try:
                yield x  # alive
                x = None
            finally:
                use(x)
        """,
    "deleted by a finally": """
        def g():
            x = make()
            try:
                yield x  # dead
            finally:
                del x
        """,
    "deleted where a handler reads": """
        def g():
            x = make()
            yield x  # alive
            try:
                del x
            except Exception:
                use(x)
        """,
    "in a finally, read after it": """
        def g():
            x = make()
            try:
                make()
            finally:
                yield x  # dead
            use(x)
        """,
    "read by the else of a try": """
        def g():
            x = make()
            try:
                yield x  # alive
            except Exception:
                x = make()
            else:
                use(x)
        """,
    "returned through a finally": """
        def g():
            for i in make():
                x = make()
                try:
                    yield x  # alive
                    return x
                finally:
                    make()
        """,
    "read after a context that may swallow": """
        def g():
            x = make()
            with make():
                yield x  # alive
                x = make()
            use(x)
        """,
    "not read after a context": """
        def g():
            with make() as y:
                x = make(y)
                yield x  # dead
            use(y)
        """,
    "the name of a context": """
        def g():
            with make() as x:
                yield x  # dead
        """,
    "the subject of a match": """
        def g(x):
            yield x  # alive
            match x:
                case [y]:
                    use(y)
        """,
    "bound by each case of a match": """
        def g(x):
            yield x  # dead
            match make():
                case [x]:
                    use(x)
                case x:
                    use(x)
        """,
    "bound by one case of a match": """
        def g(x):
            yield x  # alive
            match make():
                case [x]:
                    make()
            use(x)
        """,
    "read by a guard of a match": """
        def g(x, y):
            yield x  # alive
            match y:
                case [z] if use(x):
                    use(z)
        """,
    "read by a comprehension": """
        def g():
            x = make()
            yield x  # alive
            use([y for y in x])
        """,
    "read within a comprehension": """
        def g():
            x = make()
            yield x  # alive
            use([x for y in make()])
        """,
    "read after a comprehension of its name": """
        def g():
            x = make()
            yield x  # alive
            use([x for x in make()])
            use(x)
        """,
    "made by a comprehension": """
        def g():
            for i in make():
                y = [x for x in make()]
                yield y  # dead
        """,
    "read by a generator expression": """
        def g():
            x = make()
            yield x  # alive
            use(y for y in x)
        """,
    "the name of a nested function's own": """
        def g():
            x = make()
            yield x  # dead
            def f():
                x = make()
                return x
            use(f)
        """,
    "a default of a nested function": """
        def g():
            x = make()
            yield x  # alive
            def f(x=x):
                return x
            use(f)
        """,
    "delegated to": """
        def g():
            x = make()
            yield x  # alive
            yield from x  # alive
            y = make()
            yield y  # dead
            yield from make()  # alive
        """,
    "beside a delegation that reads": """
        def g():
            x = make()
            yield x  # alive
            yield from make()  # alive
            use(x)
        """,
    "one of two values": """
        def g(x, y):
            yield x if make() else y  # alive
            yield x and y  # alive
            yield x or y  # alive
        """,
    "not a name": """
        def g(x):
            yield x[:]  # alive
            yield x.y  # alive
            yield make()  # alive
            yield [x]  # alive
            yield  # alive
            yield CONSTANT  # alive
        """,
    "within a larger expression": """
        def g(x, y):
            use(x, (yield x))  # alive
            use(x, 0, (yield x))  # alive
            y += (yield y)  # alive
            y = x, (yield x)  # alive
        """,
    "what is sent is kept": """
        def g(x):
            y = yield x  # alive
        """,
    "an asynchronous generator": """
        async def g():
            x = make()
            yield x  # dead
            x = make()
            yield x  # alive
            use(x)
        """,
    "an asynchronous loop": """
        async def g():
            async for x in make():
                yield x  # dead
            async for y in make():
                yield y  # alive
                await use(y)
        """,
    "an asynchronous context": """
        async def g():
            x = make()
            async with make() as y:
                yield x  # alive
                yield y  # dead
            await use(x)
        """,
    "awaited": """
        async def g():
            x = make()
            yield x  # alive
            x = await x
            yield x  # dead
            y = await make()
            yield y  # dead
        """,
    "beside more names and calls than one byte counts": """
        def g():
            MANY
            x = make()
            y = make()
            yield y  # dead
            yield x  # alive
            if make():
                MANY
                x = make()
            use(x)
        """.replace("MANY", "; ".join(f"n{i} = make()" for i in range(300))),
}


def compiled(source: str) -> CodeType:
    """Return the code of the function g in `source`, lines counted from the first of `source`."""
    lines = source.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    module = compile("\n".join(line[indent:] for line in lines), "<generated>", "exec")
    (code,) = (code for code in codes_in(module) if code.co_name == "g")
    return code


def codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def dead_yields(code: CodeType) -> frozenset[int]:
    return dead_names(code).plain


def lines_of_dead_yields(code: CodeType) -> set[int | None]:
    dead = dead_yields(code)
    return {line for start, end, line in code.co_lines() if dead.intersection(range(start, end))}


@pytest.mark.parametrize("source", VERDICTS.values(), ids=VERDICTS.keys())
def test_each_yield_of_the_table_is_judged_as_it_says(source: str) -> None:
    lines = list(enumerate(source.strip("\n").splitlines(), 1))
    marked = {number for number, line in lines if line.endswith(("# dead", "# alive"))}
    assert marked == {number for number, line in lines if "yield" in line}
    expected = {number for number, line in lines if line.endswith("# dead")}
    assert lines_of_dead_yields(compiled(source)) == expected


def test_value_of_f_lasti_at_each_dead_yield_is_what_is_returned() -> None:
    def numbers() -> Generator[list[int]]:
        for i in range(2):
            x = [i]
            yield x
        y = [2]
        yield y
        yield y

    generator = numbers()
    dead = dead_yields(generator.gi_code)
    seen = [(value, generator.gi_frame.f_lasti) for value in generator]
    assert [value for value, lasti in seen if lasti in dead] == [[0], [1], [2]]
    assert len(seen) == 4
    assert dead == {seen[0][1], seen[3][1]}


def test_value_of_f_lasti_at_each_dead_yield_of_an_asynchronous_generator_is_too() -> None:
    async def numbers() -> AsyncGenerator[list[int]]:
        x = [0]
        yield x
        yield x

    generator = numbers()
    seen = []
    for _ in range(2):
        with pytest.raises(StopIteration):
            generator.asend(None).send(None)
        seen.append(generator.ag_frame.f_lasti)
    assert dead_yields(generator.ag_code) == {seen[1]}


NAMES_AT_YIELDS = """
    def g(a, b):
        x, y, z = make(), make(), make()
        yield x, y                      # y
        yield [a, z]                    # a y
        for x in z:
            y = use(x)
            yield {"x": x, "y": y + 1}  # a y
        try:
            y = make()
            b = use(y)
            yield use(y)                # a y
            y = use(z)
        finally:
            use(b)
        use(x, (yield y), z)            # not dropped at once
        held = make()
        yield held, lambda: held        # a b x y z
    """


def test_names_that_are_dead_at_each_statement_are_told() -> None:
    source = textwrap.dedent(NAMES_AT_YIELDS).strip()
    code = compiled(source)
    for number, line in enumerate(source.splitlines(), 1):
        if "yield" not in line:
            continue
        offsets = {i for start, end, n in code.co_lines() if n == number for i in range(start, end)}
        told = [names for at, names in dead_names(code).names.items() if at in offsets]
        expected = line.split("# ")[1]
        assert told == ([] if "not" in expected else [tuple(expected.split())]), line


def test_code_that_is_no_generator_has_no_dead_yields() -> None:
    assert dead_yields(compiled("def g(x):\n    return x")) == frozenset()
    assert dead_yields(compiled("async def g(x):\n    return await x")) == frozenset()


# --- one control a rule: what is dead without it, is not with it -------------------------------

PLAIN = """
class C:
    def g(x):
        yield x
        make()
        def f():
            return make
"""
WAYS_IN = [
    "locals()",
    "vars()",
    "dir()",
    "eval('x')",
    "exec('x')",
    "super().x",
    "__class__",
    "breakpoint()",
    "sys._getframe()",
    "inspect.currentframe()",
    "make.f_locals",
    "make.f_back",
    "make.tb_frame",
    "make.gi_frame",
    "make.ag_frame",
    "make.cr_frame",
    "sys._current_frames()",
    "pdb.set_trace()",
    "sys.settrace(make)",
    "sys.setprofile(make)",
    "gc.get_objects()",
    "gc.get_referents(make)",
    "gc.get_referrers(make)",
    "getattr(builtins, 'locals')()",
]


def test_name_is_dead_where_no_rule_forbids_it() -> None:
    assert dead_yields(compiled(PLAIN))


@pytest.mark.parametrize("way", WAYS_IN)
def test_no_name_is_dead_where_the_generator_names_a_way_into_its_frame(way: str) -> None:
    assert not dead_yields(compiled(PLAIN.replace("make()", way)))


@pytest.mark.parametrize("way", WAYS_IN)
def test_no_name_is_dead_where_a_nested_function_names_a_way_into_frames(way: str) -> None:
    assert not dead_yields(compiled(PLAIN.replace("return make", f"return {way}")))


def test_no_name_is_dead_where_a_way_into_frames_is_imported() -> None:
    assert not dead_yields(compiled(PLAIN.replace("make()", "from sys import _getframe as f")))


def test_no_name_is_dead_where_a_name_is_in_a_cell_too() -> None:
    captured = PLAIN.replace("return make", "return x")
    rebound = PLAIN.replace("return make", "nonlocal x; x = make")
    assert not dead_yields(compiled(captured))
    assert not dead_yields(compiled(rebound))


def test_name_in_a_cell_leaves_other_names_to_be_judged() -> None:
    source = PLAIN.replace("return make", "return y").replace("yield x", "y = make(); yield x")
    assert dead_yields(compiled(source))


def test_no_name_is_dead_that_comes_out_of_an_enclosing_function() -> None:
    source = """
        def outer(x):
            def g():
                nonlocal x
                yield x
                x = make()
        """
    assert not dead_yields(compiled(source))


def test_no_name_is_dead_in_an_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_KNOWN_VERSIONS", frozenset({(3, 10)}))
    assert not dead_yields(compiled(PLAIN))


def test_no_name_is_dead_beside_an_unknown_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    deleting = PLAIN.replace("make()", "y = make(); del y")
    assert dead_yields(compiled(deleting))
    known = {name: what for name, what in liveness._TOUCHES.items() if name != "DELETE_FAST"}
    monkeypatch.setattr(liveness, "_TOUCHES", known)
    assert not dead_yields(compiled(deleting))
    assert dead_yields(compiled(PLAIN))


# --- programs made at random -------------------------------------------------------------------

# Every value is a list of one number. Whenever a name is said to be dead and nothing else holds its
# value, the value is spoilt: had the generator a way left to it, it would behave differently.

SIMPLE = [
    *["yield {n}"] * 8,
    *["{n} = new()"] * 3,
    *["log({n})"] * 3,
    *["may_raise()"] * 2,
    "{n} = new(); yield {n}",
    "{n} = {m}; yield {m}",
    "{n} = {m}",
    "{n} = [*{m}]",
    "{n} += [0]",
    "{n}[0] = 0",
    "{n}, {m} = {m}, {n}",
    "{n}, {m} = new(), new()",
    "[{n}, *{m}] = pair()",
    "log(({n} := new()), {m})",
    "log({n} := {m})",
    "log([{n} for {n} in pair()])",
    "log([{n} for _ in pair()])",
    "log({{k: [{n}, {m}] for k, {n} in enumerate(pair())}})",
    "log([last := {n} for {n} in pair()], last)",
    "log(*({n} for _ in pair()))",
    "del {n}",
    "raise Failure",
    "return",
    *["yield {n} if happens() else {m}"] * 2,
    *["yield {n} or {m}"] * 3,
    "yield happens() and {n}",
    "yield [{n}, {m}]",
    "yield {n}[:]",
    "{n} = yield {m}",
    "{n} += yield {n}",
    "log({n}, (yield {m}))",
    "log({n}, 0, (yield {n}))",
    "{n} = {m}, (yield {m})",
    "{n}, {m} = {m}, (yield {n})",
]
IN_LOOPS = ["break", "continue"]
# They make a cell of the name, everywhere: few programs have one.
CLOSURES = [
    "held = lambda: {n}",
    "held = [lambda: {n} for {n} in pair()][-1]",
    "log(held())",
    "def held(k={n}): return k",
    "def held():\n    nonlocal {n}\n    {n} = new()\n    return {n}",
]
# BLOCK stands for statements; in a LOOP they may break, in a LAST they may not leave.
COMPOUND = [
    "if happens():\n    BLOCK\nelse:\n    BLOCK",
    "if happens():\n    BLOCK",
    "while happens():\n    LOOP",
    "for _ in pair():\n    LOOP",
    "for {n} in pair():\n    LOOP",
    "for {n} in pair():\n    LOOP\nelse:\n    BLOCK",
    "try:\n    BLOCK\nexcept Failure:\n    BLOCK",
    "try:\n    BLOCK\nexcept (Failure, TypeError) as {n}:\n    BLOCK",
    "try:\n    BLOCK\nexcept GeneratorExit:\n    BLOCK\nelse:\n    BLOCK",
    "try:\n    BLOCK\nfinally:\n    LAST",
    "try:\n    BLOCK\nexcept Failure:\n    BLOCK\nfinally:\n    LAST",
    "with Context():\n    BLOCK",
    "with Context() as {n}, Context() as {m}:\n    BLOCK",
    "match {n}:\n    case [{m}] if happens():\n        BLOCK\n    case _:\n        BLOCK",
    "match {n}:\n    case [0]:\n        BLOCK\n    case {m}:\n        BLOCK",
]
NAMES = st.sampled_from("abc")


@st.composite
def blocks(draw: st.DrawFn, statements: Sequence[str], depth: int = 3) -> list[str]:
    """Draw the lines of one to four statements, nested up to `depth`."""
    choice = st.sampled_from([*statements, *(COMPOUND if depth else [])])
    lines = []
    for template in draw(st.lists(choice, min_size=1, max_size=4)):
        for line in template.format(n=draw(NAMES), m=draw(NAMES)).splitlines():
            kind = line.strip()
            if kind in ("BLOCK", "LOOP", "LAST"):
                inner = draw(blocks(within(kind, statements), depth - 1))
                lines += [line.replace(kind, statement) for statement in inner]
            else:
                lines.append(line)
    return lines


def within(kind: str, statements: Sequence[str]) -> Sequence[str]:
    """Return the statements that a block of that kind within a block of `statements` may have."""
    if kind == "LOOP":
        return [*statements, *IN_LOOPS]
    if kind == "LAST":
        return [s for s in statements if s not in ("return", *IN_LOOPS)]
    return statements


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Draw the source of a generator function g, one in four of them asynchronous."""
    statements = SIMPLE + draw(st.sampled_from([[], [], [], CLOSURES]))
    head = draw(st.sampled_from(["def g():"] * 3 + ["async def g():"]))
    body = ["a = new()", "b = new()", "c = new()", "held = new", *draw(blocks(statements)), "yield"]
    return "\n    ".join([head, *body])


class Failure(Exception):
    """What programs raise, and what is thrown into them."""


def names_of_a_program(log: list[str], happenings: Iterable[bool]) -> dict[str, Any]:
    """Return the globals of a program that writes `log`; `happenings` decide what is open."""
    numbers, coming = count(1), iter(happenings)

    def new() -> list[int]:
        return [next(numbers)]

    def happens() -> bool:
        return next(coming, False)

    def may_raise() -> None:
        if happens():
            raise Failure

    def pair() -> Iterator[list[int]]:
        yield new()
        yield new()

    class Context:
        def __enter__(self) -> list[int]:
            return new()

        def __exit__(self, *error: object) -> bool:
            log.append(f"left with {error[0]}")
            return happens()

    return {
        "new": new,
        "happens": happens,
        "may_raise": may_raise,
        "pair": pair,
        "log": lambda *values: log.append(repr(values)),
        "Context": Context,
        "Failure": Failure,
    }


def step(generator: AnyGenerator, action: str) -> Any:
    """Resume a generator of either kind in one of three ways; return what it yields next."""
    if isinstance(generator, Generator):
        if action == "next":
            return next(generator)
        return generator.throw(Failure()) if action == "throw" else generator.close()
    if action == "next":
        awaitable = generator.asend(None)
    else:
        awaitable = generator.athrow(Failure()) if action == "throw" else generator.aclose()
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value


def suspended_at(generator: AnyGenerator) -> int | None:
    is_async = isinstance(generator, AsyncGenerator)
    frame = generator.ag_frame if is_async else generator.gi_frame
    return None if frame is None else frame.f_lasti


def held_by_one_name() -> int:
    """Return the reference count of a value that a generator holds under one name and yielded."""
    generator = names_one()
    value = next(generator)
    return sys.getrefcount(value)


def names_one() -> Iterator[list[int]]:
    x = [0]
    yield x


SOLE = held_by_one_name()


def behaviour(
    code: CodeType, actions: list[str], happenings: list[bool], spoil: Container[int | None]
) -> tuple[list[str], int]:
    """Run a program; return all that can be seen of it, and how many of its values were spoilt.

    Spoilt is what was yielded at one of the yields `spoil` and is held by a single name.
    """
    log: list[str] = []
    spoilt = 0
    generator = FunctionType(code, names_of_a_program(log, happenings))()
    for action in actions:
        value = None
        try:
            value = step(generator, action)
            log.append(f"{action}: {value!r}")
        except (Exception, GeneratorExit) as error:
            log.append(f"{action}: {error!r}")
        at = suspended_at(generator)
        if type(value) is list and at in spoil and sys.getrefcount(value) == SOLE:
            value[:] = ["spoilt"]
            spoilt += 1
        del value
    return log, spoilt


ANYWHERE = range(1 << 20)
READING = "def g():\n    a = new()\n    yield a\n    log(a)\n    yield"
FORGETTING = "def g():\n    a = new()\n    yield a\n    a = new()\n    log(a)\n    yield"
THREE_STEPS = ["next"] * 3


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_value_spoilt_where_its_name_is_alive_changes_the_behaviour(keyword: str) -> None:
    code = compiled(READING.replace("def", keyword))
    plain, _ = behaviour(code, THREE_STEPS, [], spoil=())
    changed, spoilt = behaviour(code, THREE_STEPS, [], spoil=ANYWHERE)
    assert spoilt == 1
    assert changed != plain
    assert behaviour(code, THREE_STEPS, [], spoil=dead_yields(code)) == (plain, 0)


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_value_spoilt_where_its_name_is_dead_changes_nothing(keyword: str) -> None:
    code = compiled(FORGETTING.replace("def", keyword))
    plain, _ = behaviour(code, THREE_STEPS, [], spoil=())
    assert behaviour(code, THREE_STEPS, [], spoil=dead_yields(code)) == (plain, 1)


# An asynchronous generator that yields when it is closed complains once more when it is freed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(deadline=None, max_examples=500)
@given(
    programs(),
    st.lists(st.sampled_from(["next"] * 8 + ["throw", "close"]), min_size=1, max_size=12),
    st.lists(st.booleans(), max_size=20),
)
def test_values_spoilt_wherever_their_names_are_dead_change_nothing(
    program: str, actions: list[str], happenings: list[bool]
) -> None:
    code = compiled(program)
    actions = [*actions, *["close"] * 3]
    plain, _ = behaviour(code, actions, happenings, spoil=())
    spoilt, _ = behaviour(code, actions, happenings, spoil=dead_yields(code))
    assert spoilt == plain
