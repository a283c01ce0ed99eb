# cython: language_level=3, binding=False, embedsignature=False
"""numpy's memory from the store: an array that was computed in it is stored without a copy.

Owns the handler that numpy calls for the memory of arrays (NEP 49). It must not know when an array
may be sealed in place (returns.py, _core.Session.store_in_place) nor where private blocks are
(csrc/rl_private.h). What it cannot or need not serve goes to the handler that was there before.

The handler holds for the context in which `install` was called, that is for the main thread of a
worker: other threads' arrays are where numpy puts them. An array remembers who made it.

Who asks an array for its address can write there without holding the array: `watch_addresses` has
the process's memory told of it.
"""
from cpython.object cimport PyObject
from cpython.pycapsule cimport (
    PyCapsule_Destructor,
    PyCapsule_GetContext,
    PyCapsule_GetPointer,
    PyCapsule_New,
    PyCapsule_SetContext,
)
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy, memset, strcpy

import weakref

from ray_lite._codec cimport LARGE_NBYTES
from ray_lite._core cimport PrivateMemory

cimport numpy as cnp

cdef extern from "Python.h":
    ctypedef struct PyGetSetDef:
        const char *name
        object (*get)(object array, void *closure)
        void *closure
    object PyDescr_NewGetSet(type owner, PyGetSetDef *definition)
    void PyType_Modified(type changed)

cdef extern from *:
    """
    /* Where a static type of an extension has its attributes: it lets nobody set them. */
    static PyObject *attributes_of(PyTypeObject *type) { return type->tp_dict; }

    /* The closure of an attribute that this function gets; NULL: another one gets it. */
    static void *closure_of(PyObject *attribute, getter get)
    {
        if (!Py_IS_TYPE(attribute, &PyGetSetDescr_Type)) return NULL;
        const PyGetSetDef *definition = ((PyGetSetDescrObject *)attribute)->d_getset;
        return definition->get == get ? definition->closure : NULL;
    }
    """
    PyObject *attributes_of(type owner)
    void *closure_of(object attribute, object (*get)(object array, void *closure))

cdef extern from "numpy/ndarraytypes.h":
    ctypedef struct Allocator "PyDataMemAllocator":
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t nelem, size_t elsize) noexcept nogil
        void *(*realloc)(void *ctx, void *ptr, size_t new_size) noexcept nogil
        void (*free)(void *ctx, void *ptr, size_t size) noexcept nogil
    ctypedef struct Handler "PyDataMem_Handler":
        char name[127]
        unsigned char version
        Allocator allocator

cdef extern from "numpy/arrayobject.h":
    object PyDataMem_SetHandler(object handler)
    object PyDataMem_GetHandler()

cnp.import_array()

# What numpy tells an array's address by.
_ADDRESSES = ("ctypes", "__array_interface__", "__array_struct__")

cdef const char *CAPSULE = "mem_handler"
# Clearing what is never written would cost more than a page fault for each page that is.
cdef size_t MOST_CLEARED = 64 << 20


cdef struct Context:
    void *memory         # the PrivateMemory
    bint asked_for       # the arrays are to become read-only when they are stored
    Allocator *fallback


cdef void *take(void *ctx, size_t size) noexcept nogil:
    cdef Context *context = <Context *>ctx
    cdef void *memory = NULL
    if size >= LARGE_NBYTES:
        memory = (<PrivateMemory>context.memory).alloc(size, context.asked_for)
    if memory != NULL:
        return memory
    return context.fallback.malloc(context.fallback.ctx, size)


cdef void *take_cleared(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef Context *context = <Context *>ctx
    cdef void *memory = NULL
    if size and LARGE_NBYTES // size <= count <= MOST_CLEARED // size:
        memory = (<PrivateMemory>context.memory).alloc(count * size, context.asked_for)
    if memory != NULL:
        memset(memory, 0, count * size)
        return memory
    return context.fallback.calloc(context.fallback.ctx, count, size)


cdef void give(void *ctx, void *memory, size_t size) noexcept nogil:
    cdef Context *context = <Context *>ctx
    if (<PrivateMemory>context.memory).owns(memory):
        (<PrivateMemory>context.memory).free(memory)
    else:
        context.fallback.free(context.fallback.ctx, memory, size)


cdef void *resize(void *ctx, void *memory, size_t size) noexcept nogil:
    cdef Context *context = <Context *>ctx
    if not (<PrivateMemory>context.memory).owns(memory):
        return context.fallback.realloc(context.fallback.ctx, memory, size)
    cdef void *moved = take(ctx, size)
    cdef size_t before = (<PrivateMemory>context.memory).size(memory)
    if moved != NULL:
        memcpy(moved, memory, min(before, size))
        (<PrivateMemory>context.memory).free(memory)
    return moved


cdef class _Installed:
    """A handler with what it needs; lives as long as any array that it served."""

    cdef Handler handler
    cdef Context context
    cdef PrivateMemory memory
    cdef object before       # the capsule of the handler that was there


cdef void drop(PyObject *capsule) noexcept:
    Py_DECREF(<object>PyCapsule_GetContext(<object>capsule))


def handler_of(PrivateMemory memory not None, bint asked_for):
    """Return a handler whose large arrays are in `memory`; numpy knows it as a capsule.

    Args:
        memory: Of this process.
        asked_for: Whether who asks for an array knows that it becomes read-only when it is stored.
    """
    cdef _Installed installed = _Installed()
    installed.memory = memory
    installed.before = PyDataMem_GetHandler()
    cdef Handler *fallback = <Handler *>PyCapsule_GetPointer(installed.before, CAPSULE)
    installed.context.memory = <void *>memory
    installed.context.asked_for = asked_for
    installed.context.fallback = &fallback.allocator
    strcpy(installed.handler.name, "ray_lite")
    installed.handler.version = 1
    installed.handler.allocator.ctx = &installed.context
    installed.handler.allocator.malloc = take
    installed.handler.allocator.calloc = take_cleared
    installed.handler.allocator.realloc = resize
    installed.handler.allocator.free = give
    capsule = PyCapsule_New(&installed.handler, CAPSULE, <PyCapsule_Destructor>drop)
    PyCapsule_SetContext(capsule, <void *>installed)
    Py_INCREF(installed)
    return capsule


def install(handler):
    """Have numpy call `handler` in this context from now on; return the one that it called."""
    return PyDataMem_SetHandler(handler)


def call_with(handler, make, *args):
    """Return `make(*args)`, with numpy calling `handler` meanwhile."""
    before = PyDataMem_SetHandler(handler)
    try:
        return make(*args)
    finally:
        PyDataMem_SetHandler(before)


cdef class _Watched:
    """An attribute of arrays that tells their address; lives as long as the process."""

    cdef PyGetSetDef definition
    cdef bytes name
    cdef object before       # the attribute as numpy has it
    cdef object memory       # a weak reference: a session's memory goes when it has ended


cdef object expose(object array, void *closure):
    cdef _Watched watched = <_Watched>closure
    cdef PrivateMemory memory = watched.memory()
    if memory is not None:
        memory.expose(cnp.PyArray_DATA(array))
    return watched.before.__get__(array, type(array))


def watch_addresses(PrivateMemory memory not None):
    """Have `memory` told of each array whose address somebody asks numpy for, from now on.

    It alone: no other memory of this process is told any more.
    """
    cdef dict attributes = <dict>attributes_of(cnp.ndarray)
    cdef _Watched watched
    cdef void *closure
    for name in _ADDRESSES:
        closure = closure_of(attributes[name], expose)
        if closure != NULL:
            (<_Watched>closure).memory = weakref.ref(memory)
            continue
        watched = _Watched()
        watched.name, watched.before = name.encode(), attributes[name]
        watched.memory = weakref.ref(memory)
        watched.definition.name = watched.name
        watched.definition.get = expose
        watched.definition.closure = <void *>watched
        Py_INCREF(watched)
        attributes[name] = PyDescr_NewGetSet(cnp.ndarray, &watched.definition)
    PyType_Modified(cnp.ndarray)
