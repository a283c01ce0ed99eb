# cython: language_level=3, binding=False, embedsignature=False
"""Runs plain tasks and calls one after the other, without leaving C but for the user's function.

Owns the shortest way from a task to its stored value: a function that is known, arguments that are
values, a small result. Whatever is not plain goes to runner.py, which has all the rules: untouched,
or with its outcome if the function has run. It must not know any of them.
"""
cimport cython
from libc.stdint cimport uint32_t

from ray_lite._core cimport Call, Job, Session, look_at_signals_between_tasks

cdef extern from "Python.h":
    object PyContextVar_Set(object var, object value)


@cython.final
cdef class Returned:
    """What a function has returned; given once, and not kept."""

    cdef object value

    def __cinit__(self, value):
        self.value = value

    def __call__(self):
        """Return it."""
        value, self.value = self.value, None
        return value


@cython.final
cdef class Raised:
    """What a function has raised."""

    cdef object error

    def __cinit__(self, error):
        self.error = error

    def __call__(self):
        """Raise it."""
        raise self.error


cdef class PlainTasks:
    """The plain tasks of a worker.

    Args:
        session: Where they come from.
        functions: {Job.function_key: function} of those that may run here; the caller's, who adds
            to it.
        current_job: The context variable that is to hold the task that runs.
        not_plain: Bits of a task's options that make it one for the caller.
    """

    cdef Session session
    cdef dict functions
    cdef object current_job
    cdef uint32_t not_plain
    cdef readonly Job job  # the one that runs, or ran last

    def __init__(self, Session session not None, dict functions not None, current_job,
                 uint32_t not_plain):
        self.session, self.functions = session, functions
        self.current_job, self.not_plain = current_job, not_plain

    cdef Job take(self):
        return self.session.take()

    cdef object function_of(self, object known):
        """Return what is to be called, given what `functions` has."""
        return known

    def run(self):
        """Run plain tasks until one comes that is not; return (that Job, its outcome).

        The outcome is None if its function has not run; else it is to be called, and gives or
        raises what the function did. (None, None): there is nothing more to run.
        """
        cdef Job job
        while True:
            job = self.take()
            if job is None:
                return None, None
            self.job = job
            outcome = self.run_one(job)
            if outcome is not self:
                return job, outcome

    cdef object run_one(self, Job job):
        """Run a task; return self if it is over, else the outcome to return for it."""
        known = self.functions.get(job.job.function.gen)
        if known is None or job.job.options & self.not_plain:
            return None
        PyContextVar_Set(self.current_job, job)
        try:
            call = job.bind(self.function_of(known))
        except BaseException:
            return None  # whoever binds it again knows what to do about it
        if type(call) is not Call:
            return None
        look_at_signals_between_tasks()
        try:
            value = (<Call>call).make()
        except BaseException as error:
            return Raised(error)
        if job.finish_small(value):
            return self
        return Returned(value)


@cython.final
cdef class PlainCalls(PlainTasks):
    """The plain calls of an actor, for the threads of one of its groups.

    Args:
        actor: The task that is the actor.
        group: Of its threads.
        instance: The object whose methods are called; `functions` has their names.
        session, functions, current_job, not_plain: As of PlainTasks.
    """

    cdef Job actor
    cdef uint32_t group
    cdef object instance

    def __init__(self, Session session not None, dict functions not None, current_job,
                 uint32_t not_plain, Job actor not None, uint32_t group, instance):
        PlainTasks.__init__(self, session, functions, current_job, not_plain)
        self.actor, self.group, self.instance = actor, group, instance

    cdef Job take(self):
        return self.session.take_call(self.actor, self.group)

    cdef object function_of(self, object known):
        return getattr(self.instance, known)
