"""Arms kill points in processes that no program can reach otherwise: workers, from their birth.

Python imports this at the start of each process that has this directory in PYTHONPATH. A process
that is forked afterwards, as workers are by the supervisor, takes an order from the spool, if there
is one, and obeys it. An order is a file called "number name n"; who takes it renames it to
"pid name n". It also switches repair off, from the first process on, where it is told to.
"""

import os

SPOOL = os.environ["RAY_LITE_TEST_SPOOL"]


def take_order() -> None:
    """In a forked child: be armed."""
    from ray_lite._core import arm_kill_point

    for order in sorted(os.listdir(SPOOL)):
        number, name, n = order.split(" ")
        if not number.startswith("order"):
            continue
        try:
            os.rename(os.path.join(SPOOL, order), os.path.join(SPOOL, f"{os.getpid()} {name} {n}"))
        except FileNotFoundError:
            continue  # somebody else was faster
        arm_kill_point(name, int(n))
        return


if os.environ.get("RAY_LITE_TEST_REPAIRS") == "0":  # in a program that is to fail
    from ray_lite._core import switch_repair

    switch_repair(False)

os.register_at_fork(after_in_child=take_order)
