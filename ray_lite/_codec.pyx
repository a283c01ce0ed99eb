# cython: language_level=3
"""Values to payload bytes and back.

Owns the payload formats, one per KIND_* (see _codec.pxd). Knows nothing of shared memory, blocks
or sessions: whoever calls it gives a pointer to write to and a read-only buffer, the pin, to read
from. Every encoding has a state of its own, so encodings may nest and run in many threads.

Small plain values and plain arrays have kinds of their own. Small containers of nothing but plain
values are one call of pickle. The rest goes through a pickler with a table of its own: first the
plain C pickler, then, where that cannot do, cloudpickle's. Either way the stream leaves out what it
need not carry, and has a place for it instead:

    array      an ArrayHead in the payload; read as a view of the pin, without a copy
    ref        a number: the ref's place in `Encoded.refs`
    part       the number of a ref to an object that is an array, which is read in its place
    buffer     whatever other types hand to pickle 5 out of band; read as a memoryview

    KIND_PICKLE   [PickleHead | Item table | ArrayHeads | stream | 64: buffer | 64: buffer ...]
                  (no stream: the value is the tuple of what the places hold)
    KIND_ARRAY    [ArrayHead | 64: elements]
    KIND_CALL     [CallHead | slots | 64: payload of the pickled tuple of what has no slot]
    ArrayHead     [fixed part | shape, int64 each | pickled dtype, for all but plain numbers]

"64:" marks a start at a multiple of 64 bytes. Gaps are written as zeros, so that equal values give
equal payloads. Lengths and offsets in a payload are checked before use; a pickle stream is trusted.
"""

import copyreg
import functools
from pickle import PickleBuffer, Pickler, dumps, loads
import types

import cloudpickle
from cloudpickle.cloudpickle import list_registry_pickle_by_value
import numpy

cimport cython
cimport numpy as cnp
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS,
    PyBUF_CONTIG,
    PyBUF_READ,
    PyBUF_SIMPLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport (
    PyByteArray_AS_STRING,
    PyByteArray_FromStringAndSize,
    PyByteArray_GET_SIZE,
    PyByteArray_Resize,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport SIZE_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, void *attr, void *(*run)(void *) noexcept nogil, void *arg)
    int pthread_join(pthread_t thread, void **result)

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *set)
    int pthread_sigmask(int how, const sigset_t *set, sigset_t *before)

cdef extern from "numpy/ndarraytypes.h":
    ctypedef struct Fields "PyArrayObject_fields":
        void *weakreflist
        void *_buffer_info

cdef extern from "numpy/arrayobject.h":
    # Steals a reference to `descr`, which is why numpy's own pxd leaves it out.
    object PyArray_NewFromDescr(
        type subtype, cnp.dtype descr, int ndim, cnp.npy_intp *dims, cnp.npy_intp *strides,
        void *data, int flags, object parent)
    bint PyDataType_REFCHK(cnp.dtype descr)

cnp.import_array()

ctypedef struct ArrayHead:
    uint64_t data_offset   # from the start of the payload
    uint32_t type_num      # numpy's number of a plain type, or PICKLED_DTYPE
    uint32_t dtype_nbytes  # length of the pickled dtype, 0 for a plain type
    uint8_t fortran        # 1: elements are in F order, 0: in C order
    uint8_t ndim
    uint16_t zero16
    uint32_t zero32

ctypedef struct PickleHead:
    uint64_t nitems
    uint64_t stream_offset
    uint64_t stream_nbytes

# What stands at one of the places that the stream left out.
ctypedef struct Item:
    uint32_t tag      # ITEM_*
    uint32_t number   # ref, part: its number
    uint64_t offset   # array: of its head; buffer: of its bytes
    uint64_t nbytes   # buffer: its length

ctypedef struct CallHead:
    uint32_t nargs         # positional arguments
    uint32_t nkwargs       # keyword arguments, a name before each
    uint32_t slots_nbytes
    uint32_t nleft         # arguments in the pickled tuple
    uint32_t left_kind     # its kind: KIND_PLAIN or KIND_PICKLE
    uint32_t zero32

# A payload, or the part of it that is a payload itself.
ctypedef struct Span:
    const char *base
    size_t nbytes

cdef enum:
    ALIGNMENT = 64
    COPY_NOGIL_NBYTES = 256 * 1024   # from here on a copy takes longer than taking the GIL back
    COPY_PARALLEL_NBYTES = 16 << 20  # from here on half of a copy takes longer than making a thread
    CHUNK_NBYTES = 160 * 1024        # a longer chunk of a stream is one of the value's own bytes
    SLOT_TEXT_NBYTES = 1024          # longer arguments are pickled: that copies them once less
    PLAIN_BUDGET = 256               # objects that is_plain() looks at before it gives up
    MAX_NDIM = 64
    PICKLED_DTYPE = 0xffff
    ITEM_REF = 1
    ITEM_ARRAY = 2
    ITEM_BUFFER = 3
    ITEM_PART = 4
    SLOT_REF = 100                   # other slots are tagged by the KIND_* of their value
    SLOT_LEFT = 101


# --- what the importing package tells the codec ------------------------------------------------

@cython.final
cdef class _Config:
    cdef object ref_type
    cdef object make_dynamic
    cdef object movable_type
    cdef object read_part

cdef _Config _config = _Config.__new__(_Config)


def configure(ref_type, make_dynamic, movable_type, read_part):
    """Set what the codec must know of the classes above it. Called at import.

    Args:
        ref_type: The ObjectRef class; hashable instances, equal if they name the same object.
        make_dynamic: Constructor that decodes KIND_DYNAMIC; called with the list of item refs.
        movable_type: A class whose instances leave this process with the value that contains them:
            `pack()` gives what a `__reduce__` would, `moved()` is to be called once the value has
            been stored.
        read_part: Gives the value of the object that a ref names, which is part of another.

    Returns:
        What was set before, `(None, None, None, None)` at first.
    """
    before = _config.ref_type, _config.make_dynamic, _config.movable_type, _config.read_part
    _config.ref_type = ref_type
    _config.make_dynamic = make_dynamic
    _config.movable_type = movable_type
    _config.read_part = read_part
    return before


# --- encoded values ----------------------------------------------------------------------------

@cython.final
cdef class Encoded:
    """A value ready to be written. Holds the value's own buffers: write it before they change."""

    cdef int write_to(self, char *dest) except -1:
        cdef size_t cursor = self._lead_nbytes
        copy_bytes(dest, self._lead, cursor)
        if self._pieces is None:
            return 0
        cdef size_t offset, nbytes
        for offset, nbytes, source in self._pieces:
            memset(dest + cursor, 0, offset - cursor)
            copy_piece(dest + offset, nbytes, source)
            cursor = offset + nbytes
        return 0

    cdef Py_ssize_t count_large(self) noexcept:
        return 0 if self._large is None else len(self._large)

    cdef PyObject *large_array(self, Py_ssize_t i) noexcept:
        cdef list items = (<_Pickling>self._pickling).items
        return <PyObject *>(<tuple>items[<Py_ssize_t>self._large[i]])[1]

    cdef Encoded in_parts(self, list refs):
        cdef _Pickling pickling = self._pickling
        for i, ref in zip(self._large, refs):
            if ref is not None:
                pickling.items[i] = ITEM_PART, pickling.numbering.number_of(ref), None
        return pickling.encoded()

    cdef Py_ssize_t count_spans(self) noexcept:
        return 1 if self._pieces is None else 1 + len(self._pieces)

    cdef PlacedSpan span(self, Py_ssize_t i):
        if i == 0:
            return PlacedSpan(0, self._lead_nbytes, self._lead)
        offset, nbytes, source = <tuple>self._pieces[i - 1]
        if type(source) is cnp.ndarray:
            return PlacedSpan(offset, nbytes, <const char *>cnp.PyArray_DATA(source))
        cdef Py_buffer view
        PyObject_GetBuffer(source, &view, PyBUF_ANY_CONTIGUOUS)
        cdef PlacedSpan span = PlacedSpan(offset, nbytes, <const char *>view.buf)
        PyBuffer_Release(&view)  # the source stays, and with it its memory
        return span

    def to_bytes(self):
        """Return the payload as bytes."""
        payload = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>self.nbytes)
        self.write_to(PyBytes_AS_STRING(payload))
        return payload

    def write_into(self, buffer):
        """Write the payload to the start of `buffer`, which is writable and contiguous.

        Raises:
            ValueError: `buffer` is shorter than `nbytes`; nothing was written.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_CONTIG)
        try:
            if <size_t>view.len < self.nbytes:
                raise ValueError(f"payload of {self.nbytes} bytes, buffer of {view.len} bytes")
            self.write_to(<char *>view.buf)
        finally:
            PyBuffer_Release(&view)


@cython.final
cdef class ErrorPayload:
    """The envelope of an error: bytes that this module neither makes nor reads."""

    def __cinit__(self, bytes data not None):
        self.data = data


cdef inline Encoded encoded(uint32_t kind):
    cdef Encoded result = Encoded.__new__(Encoded)
    result.kind = kind
    result.refs = []
    return result


cdef inline Encoded encoded_word(const Word *word):
    cdef Encoded result = encoded(word.kind)
    memcpy(&result._word, &word.bits, 8)
    result._lead = <const char *>&result._word
    result._lead_nbytes = result.nbytes = word.nbytes
    return result


cdef inline int set_lead(Encoded result, object owner) except -1:
    """Let the payload begin with the bytes of `owner`: bytes, a bytearray or an ASCII str."""
    cdef Py_ssize_t nbytes = 0
    if type(owner) is str:
        result._lead = PyUnicode_AsUTF8AndSize(owner, &nbytes)
    elif type(owner) is bytes:
        result._lead = PyBytes_AS_STRING(owner)
        nbytes = PyBytes_GET_SIZE(owner)
    else:
        result._lead = PyByteArray_AS_STRING(owner)
        nbytes = PyByteArray_GET_SIZE(owner)
    result._owner = owner
    result._lead_nbytes = result.nbytes = <size_t>nbytes
    return 0


cdef size_t append_piece(Encoded result, object source, size_t nbytes) except? 0:
    """Let the payload go on, at the next multiple of 64, with `source`; return that offset."""
    cdef size_t offset = align(result.nbytes, ALIGNMENT)
    if result._pieces is None:
        result._pieces = []
    result._pieces.append((offset, nbytes, source))
    result.nbytes = offset + nbytes
    return offset


cdef inline Encoded encoded_lead(uint32_t kind, object owner):
    cdef Encoded result = encoded(kind)
    set_lead(result, owner)
    return result


cdef inline object utf8_owner(str text):
    """Return an object that set_lead() takes for the utf-8 of `text`.

    A str that is not ASCII would keep its utf-8 for life once asked for it; bytes go at once.
    """
    return text if PyUnicode_IS_ASCII(text) else text.encode("utf-8", "surrogatepass")


cdef inline size_t align(size_t offset, size_t alignment) noexcept:
    return (offset + alignment - 1) & ~(alignment - 1)


cdef struct Copy:
    char *dest
    const char *source
    size_t nbytes


cdef void *run_copy(void *arg) noexcept nogil:
    cdef Copy *copy = <Copy *>arg
    return memcpy(copy.dest, copy.source, copy.nbytes)


cdef void copy_in_parallel(char *dest, const char *source, size_t nbytes) noexcept nogil:
    """As memcpy, by two threads: one core alone does not reach what the memory can do.

    The other takes no signals, which are for threads that run Python.
    """
    cdef size_t half = nbytes // 2 // 4096 * 4096
    cdef Copy other = Copy(dest + half, source + half, nbytes - half)
    cdef pthread_t thread
    cdef sigset_t every, before
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    cdef int err = pthread_create(&thread, NULL, run_copy, &other)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    memcpy(dest, source, half)
    if err:
        run_copy(&other)
    else:
        pthread_join(thread, NULL)


cdef int copy_bytes(char *dest, const char *source, size_t nbytes) except -1:
    if nbytes >= COPY_PARALLEL_NBYTES:
        with nogil:
            copy_in_parallel(dest, source, nbytes)
    elif nbytes >= COPY_NOGIL_NBYTES:
        with nogil:
            memcpy(dest, source, nbytes)
    elif nbytes:
        memcpy(dest, source, nbytes)
    return 0


cdef int copy_piece(char *dest, size_t nbytes, object source) except -1:
    """Copy `source`, which had `nbytes` bytes when it was encoded."""
    if type(source) is Encoded:
        return (<Encoded>source).write_to(dest)
    if type(source) is cnp.ndarray:
        return copy_array(dest, nbytes, source)
    cdef Py_buffer view
    PyObject_GetBuffer(source, &view, PyBUF_ANY_CONTIGUOUS)
    try:
        check_unchanged(<size_t>view.len, nbytes)
        copy_bytes(dest, <const char *>view.buf, nbytes)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef int copy_array(char *dest, size_t nbytes, cnp.ndarray source) except -1:
    check_unchanged(<size_t>cnp.PyArray_NBYTES(source), nbytes)
    if is_contiguous(source):
        return copy_bytes(dest, <const char *>cnp.PyArray_DATA(source), nbytes)
    if cnp.PyArray_TYPE(source) == cnp.NPY_VOID:
        # As opaque elements: field by field, numpy would leave the padding unwritten.
        source = source.view(f"V{cnp.PyArray_ITEMSIZE(source)}")
    target = new_array(
        dtype_of(source), cnp.PyArray_NDIM(source), cnp.PyArray_DIMS(source),
        dest, cnp.NPY_ARRAY_CARRAY)
    cnp.PyArray_CopyInto(target, source)
    return 0


cdef inline int check_unchanged(size_t now, size_t before) except -1:
    if now != before:
        raise ValueError(
            f"value changed while it was being stored: a buffer of {before} bytes now has {now}; "
            f"do not resize it from another thread")
    return 0


cdef cnp.ndarray new_array(
        cnp.dtype descr, int ndim, cnp.npy_intp *dims, const char *data, int flags):
    """Return an array over `data`; the caller sees to its life."""
    Py_INCREF(descr)
    cdef cnp.ndarray array = PyArray_NewFromDescr(
        cnp.ndarray, descr, ndim, dims, NULL, <void *>data, flags, None)
    cnp.PyArray_UpdateFlags(array, cnp.NPY_ARRAY_UPDATE_ALL)
    return array


# --- encode ------------------------------------------------------------------------------------

cpdef Encoded encode(object value):
    """Return `value` in the form in which write_to() can store it.

    Raises:
        TypeError: Part of the value cannot be pickled; the text names it.
    """
    cdef object kind = type(value)
    cdef Encoded result
    cdef Word word
    if as_word(value, &word):
        return encoded_word(&word)
    if kind is str:
        return encoded_lead(KIND_STR, utf8_owner(value))
    elif kind is bytes:
        return encoded_lead(KIND_BYTES, value)
    elif kind is cnp.ndarray:
        result = encode_array(value)
    elif kind is bytearray or kind is memoryview:
        return encode_buffer(KIND_BYTEARRAY if kind is bytearray else KIND_BYTES, value)
    elif kind is list:
        result = encode_ref_list(value)
    else:
        result = None
    return encode_by_pickle(value) if result is None else result


cdef bint as_word(object value, Word *word) except -1:
    cdef object kind = type(value)
    cdef int overflow = 0
    word.nbytes = 0
    word.bits.number = 0
    if value is None:
        word.kind = KIND_NONE
    elif kind is bool:
        word.kind = KIND_TRUE if value else KIND_FALSE
    elif kind is int:
        word.bits.number = PyLong_AsLongLongAndOverflow(value, &overflow)
        word.kind, word.nbytes = KIND_INT, 8
    elif kind is float:
        word.bits.real = value
        word.kind, word.nbytes = KIND_FLOAT, 8
    else:
        return False
    return not overflow


cdef Encoded encode_buffer(uint32_t kind, object value):
    """Encode a bytearray or a memoryview by its bytes."""
    cdef Encoded result = encoded(kind)
    # The memoryview forbids resizing the bytearray until it is written.
    source = memoryview(value)
    if not source.c_contiguous:
        source = source.tobytes()
    append_piece(result, source, len(source) if type(source) is bytes else source.nbytes)
    return result


cdef void *own_memory(object value) noexcept:
    if type(value) is not cnp.ndarray:
        return NULL
    cdef cnp.ndarray array = value
    if <size_t>cnp.PyArray_NBYTES(array) < LARGE_NBYTES or not is_contiguous(array):
        return NULL
    if not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_OWNDATA) or cnp.PyArray_BASE(array) != NULL:
        return NULL
    cdef Fields *fields = <Fields *><void *>array
    if fields.weakreflist != NULL or fields._buffer_info != NULL:
        return NULL
    return cnp.PyArray_DATA(array)


cdef void *viewed_memory(object value) noexcept:
    if type(value) is not cnp.ndarray:
        return NULL
    cdef cnp.ndarray array = value
    cdef PyObject *base = <PyObject *>cnp.PyArray_BASE(array)
    if base == NULL or (<Fields *><void *>array)._buffer_info != NULL:
        return NULL
    if base.ob_refcnt != 1 or not is_contiguous(array):
        return NULL
    cdef void *memory = own_memory(<object>base)
    if memory != cnp.PyArray_DATA(array):
        return NULL
    return memory if cnp.PyArray_NBYTES(array) == cnp.PyArray_NBYTES(<object>base) else NULL


cdef void *sole_memory(object value) noexcept:
    cdef void *memory = own_memory(value)
    if memory != NULL:
        return memory
    memory = viewed_memory(value)
    if memory != NULL and (<Fields *><void *>value).weakreflist != NULL:
        return NULL
    return memory


cdef int freeze(object array) except -1:
    if array.base is not None:
        cnp.PyArray_CLEARFLAGS(array.base, cnp.NPY_ARRAY_WRITEABLE)
    cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)
    return 0


cdef size_t write_large_head(object value, char *dest) except? 0:
    cdef cnp.ndarray array = value
    dtype_text = describe_dtype(array)
    if dtype_text is None or array_head_nbytes(array, dtype_text) > HEAD_ROOM:
        return 0
    memset(dest, 0, HEAD_ROOM)
    write_array_head(dest, array, dtype_text, HEAD_ROOM)
    return HEAD_ROOM + <size_t>cnp.PyArray_NBYTES(array)


cdef inline void make_head_room(Encoded result, size_t nbytes) noexcept:
    """Have an array of `nbytes` begin where one that is not copied does: equal payloads."""
    if nbytes >= LARGE_NBYTES and result.nbytes < HEAD_ROOM:
        result.nbytes = HEAD_ROOM


cdef bint is_plain_around_arrays(object value) except? True:
    cdef int budget = PLAIN_BUDGET
    return is_plain(value, &budget, True)


cdef Encoded encode_array(cnp.ndarray array):
    """Return `array` as KIND_ARRAY, or None if its elements are not plain memory."""
    dtype_text = describe_dtype(array)
    if dtype_text is None:
        return None
    head = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>array_head_nbytes(array, dtype_text))
    cdef Encoded result = encoded_lead(KIND_ARRAY, head)
    cdef size_t nbytes = <size_t>cnp.PyArray_NBYTES(array)
    make_head_room(result, nbytes)
    cdef size_t data_offset = append_piece(result, array, nbytes)
    write_array_head(PyBytes_AS_STRING(head), array, dtype_text, data_offset)
    return result


cdef Encoded encode_ref_list(list value):
    """Return a list of nothing but refs as KIND_REF_LIST, or None if it is not one."""
    ref_type = _config.ref_type
    if not value or ref_type is None:
        return None
    for item in value:
        if type(item) is not ref_type:
            return None
    cdef _Numbering numbering = _Numbering()
    cdef bytearray numbers = PyByteArray_FromStringAndSize(NULL, 4 * len(value))
    cdef uint32_t *number = <uint32_t *>PyByteArray_AS_STRING(numbers)
    cdef Py_ssize_t i
    for i, item in enumerate(value):
        number[i] = numbering.number_of(item)
    cdef Encoded result = encoded(KIND_REF_LIST)
    if len(numbering.refs) < len(value):
        set_lead(result, numbers)
    result.refs = numbering.refs
    return result


cdef Encoded encode_by_pickle(object value):
    try:
        return pickle_value(value, _Numbering())
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        raise TypeError(explain("value", value, error)) from error


cpdef Encoded encode_refs(list refs):
    """Return the KIND_DYNAMIC value whose items are `refs`."""
    cdef Encoded result = encoded(KIND_DYNAMIC)
    result.refs = list(refs)
    return result


cpdef Encoded encode_error(bytes data):
    """Return `data`, an envelope made elsewhere, as a KIND_ERROR value."""
    if data is None:
        raise TypeError("an error's envelope is bytes, not None")
    return encoded_lead(KIND_ERROR, data)


# --- arguments of a call -----------------------------------------------------------------------

cpdef Encoded encode_call(tuple args, dict kwargs):
    """Return the arguments of one call as a KIND_CALL value.

    Refs among the arguments themselves become dependencies, `refs[:ndeps]`; refs deeper inside
    are carried as refs.

    Raises:
        TypeError: An argument cannot be pickled; the text says which, and what in it.
    """
    if not args and not kwargs:
        return encoded(KIND_CALL)
    cdef _Slots slots = _Slots()
    slots.extend(NULL, sizeof(CallHead))
    for i, value in enumerate(args):
        slots.add(value, i)
    if kwargs:
        for name, value in kwargs.items():
            slots.add_text(utf8_owner(name))
            slots.add(value, name)
    return slots.encoded(<uint32_t>len(args), <uint32_t>len(kwargs) if kwargs else 0)


@cython.final
cdef class _Slots:
    """The arguments of a call as they are laid down one after the other."""

    cdef bytearray data        # the CallHead, then the slots
    cdef list left             # arguments that have no slot form
    cdef list labels           # which they are: a position or a keyword
    cdef _Numbering numbering

    def __cinit__(self):
        self.data = bytearray()
        self.left = []
        self.labels = []
        self.numbering = _Numbering.__new__(_Numbering)

    cdef int extend(self, const void *source, size_t nbytes) except -1:
        """Append `nbytes` bytes, or room for them if `source` is NULL."""
        cdef Py_ssize_t start = PyByteArray_GET_SIZE(self.data)
        PyByteArray_Resize(self.data, start + <Py_ssize_t>nbytes)
        if source is not NULL:
            memcpy(PyByteArray_AS_STRING(self.data) + start, source, nbytes)
        return 0

    cdef int add_tag(self, uint8_t tag) except -1:
        return self.extend(&tag, 1)

    cdef int add_text(self, object owner) except -1:
        """Append a length and the bytes of `owner`: bytes or an ASCII str."""
        cdef Py_ssize_t nbytes = 0
        cdef const char *text
        if type(owner) is str:
            text = PyUnicode_AsUTF8AndSize(owner, &nbytes)
        else:
            text = PyBytes_AS_STRING(owner)
            nbytes = PyBytes_GET_SIZE(owner)
        cdef uint32_t length = <uint32_t>nbytes
        self.extend(&length, 4)
        return self.extend(text, length)

    cdef int add(self, object value, object label) except -1:
        cdef object kind = type(value)
        cdef Word word
        if kind is _config.ref_type:
            word.bits.number = self.numbering.number_of(value)
            self.add_tag(SLOT_REF)
            return self.extend(&word.bits, 8)
        if as_word(value, &word):
            self.add_tag(<uint8_t>word.kind)
            return self.extend(&word.bits, word.nbytes)
        if kind is str and len(value) <= SLOT_TEXT_NBYTES:
            self.add_tag(KIND_STR)
            return self.add_text(utf8_owner(value))
        elif kind is bytes and len(value) <= SLOT_TEXT_NBYTES:
            self.add_tag(KIND_BYTES)
            return self.add_text(value)
        self.left.append(value)
        self.labels.append(label)
        return self.add_tag(SLOT_LEFT)

    cdef Encoded encoded(self, uint32_t nargs, uint32_t nkwargs):
        cdef CallHead head
        head.nargs = nargs
        head.nkwargs = nkwargs
        head.slots_nbytes = <uint32_t>(PyByteArray_GET_SIZE(self.data) - sizeof(CallHead))
        head.nleft = <uint32_t>len(self.left)
        head.left_kind = head.zero32 = 0

        cdef Encoded result = encoded_lead(KIND_CALL, self.data)
        result.ndeps = len(self.numbering.refs)
        result.refs = self.numbering.refs
        cdef Encoded rest
        if self.left:
            rest = self.pickle_left()
            head.left_kind = rest.kind
            append_piece(result, rest, rest.nbytes)
            result.moves = rest.moves
        memcpy(PyByteArray_AS_STRING(self.data), &head, sizeof(CallHead))
        return result

    cdef Encoded pickle_left(self):
        """Pickle what has no slot as one tuple, so that arguments may share objects."""
        try:
            return pickle_value(tuple(self.left), self.numbering)
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            raise TypeError(self.explain(error)) from error

    cdef str explain(self, object error):
        for value, label in zip(self.left, self.labels):
            if not can_pickle(value):
                return explain(f"argument {label!r}", value, error)
        return f"cannot serialise the arguments together: {error}"


@cython.final
cdef class _Numbering:
    """Numbers for the distinct refs of one value, in the order in which they were met."""

    cdef list refs
    cdef dict numbers
    cdef list moves         # what moves with the value, or None

    def __cinit__(self):
        self.refs = []
        self.numbers = {}

    cdef int add_move(self, object movable) except -1:
        if self.moves is None:
            self.moves = []
        if movable not in self.moves:
            self.moves.append(movable)
        return 0

    cdef uint32_t number_of(self, object ref) except? 0xffffffff:
        cdef object number = self.numbers.setdefault(ref, len(self.refs))
        if <Py_ssize_t>number == len(self.refs):
            self.refs.append(ref)
        return number

    cdef int rewind(self, Py_ssize_t count) except -1:
        """Forget all numbers from `count` on."""
        for ref in self.refs[count:]:
            del self.numbers[ref]
        del self.refs[count:]
        return 0


# --- pickle ------------------------------------------------------------------------------------

def _take(item):
    """Return `item`. A stream calls it on whatever stands at a place that was left out."""
    return item


# Stands in the stream for an array or a ref. Writable, for pickle would put a memoryview around
# what it finds in the place of a read-only one.
cdef object _PLACE = PickleBuffer(bytearray(1))


def _code_with_filename(make, args, filename):
    """Return the code object that `make(*args)` gives, with its file's name."""
    return make(*args).replace(co_filename=filename)


def _reduce_code(code):
    """As cloudpickle does, which leaves out the file's name; tracebacks need it."""
    make, args = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _code_with_filename, (make, args, code.co_filename)


class _ByValuePickler(cloudpickle.Pickler):
    """The cloudpickle pickler with another dispatch table."""

    def __init__(self, sink, table):
        # Read once, by the constructor; cloudpickle's own is the class attribute of that name.
        self.dispatch_table = table
        super().__init__(sink, protocol=5, buffer_callback=sink.take_buffer)


@cython.final
cdef class _Pickling:
    """One value on its way through a pickler: its stream, and what the stream left out."""

    cdef list chunks                # the stream; bytes, or the value's own large bytearrays
    cdef size_t stream_nbytes
    cdef list items                 # (ITEM_*, source, dtype text) in stream order
    cdef _Numbering numbering
    cdef dict dtype_texts           # id of a dtype: (dtype, its description)
    cdef bint mentions_main

    def __cinit__(self, _Numbering numbering):
        self.chunks = []
        self.items = []
        self.numbering = numbering
        self.dtype_texts = {}

    def write(self, chunk):
        """Take the next chunk of the stream."""
        if type(chunk) is bytes:
            self.stream_nbytes += <size_t>PyBytes_GET_SIZE(chunk)
            if PyBytes_GET_SIZE(chunk) < CHUNK_NBYTES and b"__main__" in <bytes>chunk:
                self.mentions_main = True
        else:
            chunk = memoryview(chunk)
            self.stream_nbytes += <size_t>chunk.nbytes
        self.chunks.append(chunk)

    def take_buffer(self, buffer):
        """Take a buffer that the stream leaves out. Answers pickle: not in the stream."""
        if buffer is not _PLACE:
            self.items.append((ITEM_BUFFER, buffer.raw(), None))
        return False

    def reduce_array(self, array):
        """Leave `array` out of the stream, or let numpy pickle it if it is not plain memory."""
        text = self.dtype_text(array)
        if text is None:
            return array.__reduce_ex__(5)
        self.items.append((ITEM_ARRAY, array, text))
        return _take, (_PLACE,)

    def reduce_ref(self, ref):
        """Leave `ref` out of the stream."""
        self.items.append((ITEM_REF, self.numbering.number_of(ref), None))
        return _take, (_PLACE,)

    def reduce_movable(self, movable):
        """Pickle what moves with the value; remember that it does."""
        packed = movable.pack()
        self.numbering.add_move(movable)
        return packed

    def reduce_memoryview(self, view):
        """Pickle a memoryview as its bytes."""
        return bytes, (view.tobytes(),)

    cdef object dtype_text(self, cnp.ndarray array):
        if is_plain_number(array):
            return b""
        # For the arrays that share a dtype; kept with the dtype, so that its id stays its own.
        descr = dtype_of(array)
        key = <size_t><void *>descr
        known = self.dtype_texts.get(key)
        if known is None:
            known = self.dtype_texts[key] = descr, describe_dtype(array)
        return known[1]

    cdef dict table(self, object base):
        cdef dict table = dict(base)
        table[cnp.ndarray] = self.reduce_array
        table[memoryview] = self.reduce_memoryview
        if _config.ref_type is not None:
            table[_config.ref_type] = self.reduce_ref
        if _config.movable_type is not None:
            table[_config.movable_type] = self.reduce_movable
        return table

    cdef int run_plain(self, object value) except -1:
        pickler = Pickler(self, 5, False, self.take_buffer)
        pickler.dispatch_table = self.table(copyreg.dispatch_table)
        pickler.dump(value)
        return 0

    cdef int run_by_value(self, object value) except -1:
        # Not through cloudpickle's dump(): it hides a RecursionError in a PicklingError.
        table = self.table(cloudpickle.Pickler.dispatch_table)
        table[types.CodeType] = _reduce_code
        pickler = _ByValuePickler(self, table)
        Pickler.dump(pickler, value)
        return 0

    cdef Encoded encoded(self):
        """Lay out the payload: see KIND_PICKLE in the module's docstring."""
        cdef size_t heads = sizeof(PickleHead) + sizeof(Item) * <size_t>len(self.items)
        cdef size_t lead_nbytes = heads
        for tag, source, text in self.items:
            if tag == ITEM_ARRAY:
                lead_nbytes += align(array_head_nbytes(source, text), 8)
        cdef bytearray lead = PyByteArray_FromStringAndSize(NULL, <Py_ssize_t>lead_nbytes)
        memset(PyByteArray_AS_STRING(lead), 0, lead_nbytes)
        cdef Encoded result = encoded_lead(KIND_PICKLE, lead)
        result.refs = self.numbering.refs
        result.moves = self.numbering.moves
        self.write_head(PyByteArray_AS_STRING(lead), lead_nbytes)
        result._pieces = self.stream_pieces(lead_nbytes)
        result.nbytes = lead_nbytes + self.stream_nbytes
        self.lay_out_items(result, PyByteArray_AS_STRING(lead), heads)
        result._large = self.large_arrays()
        if result._large is not None:
            result._pickling = self
        return result

    cdef list large_arrays(self):
        """Return which items are large arrays, or None."""
        cdef list large = None
        for i, (tag, source, _) in enumerate(self.items):
            if tag == ITEM_ARRAY and source.nbytes >= LARGE_NBYTES:
                large = large or []
                large.append(i)
        return large

    cdef int write_head(self, char *lead, size_t stream_offset) except -1:
        cdef PickleHead head
        head.nitems = <uint64_t>len(self.items)
        head.stream_offset = stream_offset
        head.stream_nbytes = self.stream_nbytes
        memcpy(lead, &head, sizeof(PickleHead))
        return 0

    cdef list stream_pieces(self, size_t offset):
        cdef list pieces = []
        cdef size_t nbytes
        for chunk in self.chunks:
            nbytes = len(chunk) if type(chunk) is bytes else chunk.nbytes
            pieces.append((offset, nbytes, chunk))
            offset += nbytes
        return pieces

    cdef int lay_out_items(self, Encoded result, char *lead, size_t heads) except -1:
        """Fill the item table and the array heads; append the buffers to the payload."""
        cdef Item item
        cdef size_t data_offset
        cdef size_t place = sizeof(PickleHead)
        for tag, source, text in self.items:
            memset(&item, 0, sizeof(Item))
            item.tag = tag
            if tag == ITEM_REF or tag == ITEM_PART:
                item.number = source
            elif tag == ITEM_ARRAY:
                data_offset = append_piece(result, source, source.nbytes)
                write_array_head(lead + heads, source, text, data_offset)
                item.offset = heads
                heads += align(array_head_nbytes(source, text), 8)
            else:
                item.nbytes = source.nbytes
                item.offset = append_piece(result, source, item.nbytes)
            memcpy(lead + place, &item, sizeof(Item))
            place += sizeof(Item)
        return 0


cdef Encoded pickle_value(object value, _Numbering numbering):
    """Return `value` as KIND_PLAIN or KIND_PICKLE."""
    cdef int budget = PLAIN_BUDGET
    if is_plain(value, &budget):
        return encoded_lead(KIND_PLAIN, dumps(value, 5))
    cdef _Pickling arrays = arrays_alone(value, numbering)
    if arrays is not None:
        return arrays.encoded()
    return pickled(value, numbering).encoded()


cdef _Pickling arrays_alone(object value, _Numbering numbering):
    """Return a tuple of distinct arrays as a pickling without a stream, None for all else.

    It is what most calls with arrays need, and saves them the pickler.
    """
    if type(value) is not tuple:
        return None
    cdef set ids = set()
    cdef _Pickling arrays = None
    for item in <tuple>value:
        if type(item) is not cnp.ndarray:
            return None
        ids.add(<size_t><void *>item)
        arrays = arrays or _Pickling(numbering)
        text = arrays.dtype_text(item)
        if text is None:
            return None
        arrays.items.append((ITEM_ARRAY, item, text))
    return arrays if len(ids) == len(<tuple>value) else None


# numpy's numbers, dates and texts; their subclasses are the user's.
cdef frozenset _SCALARS = frozenset(numpy.sctypeDict.values()) - {numpy.object_, numpy.void}


cdef bint is_plain(object value, int *budget, bint arrays=False) except? True:
    """Tell whether `value` is small and made of nothing that a stream could leave out.

    But for plain arrays and their elements, if `arrays` says so.
    """
    cdef object kind = type(value)
    budget[0] -= 1
    if budget[0] < 0:
        return False
    if kind is str or kind is bytes:
        budget[0] -= <int>(min(len(value), 1 << 20) >> 6)
        return True
    if value is None or kind is int or kind is float or kind is bool:
        return True
    if kind is list or kind is tuple:
        for item in value:
            if not is_plain(item, budget, arrays):
                return False
        return True
    if kind is dict:
        for key, item in (<dict>value).items():
            if not is_plain(key, budget) or not is_plain(item, budget, arrays):
                return False
        return True
    if not arrays:
        return False
    return is_plain_array(value) if kind is cnp.ndarray else kind in _SCALARS


cdef bint is_plain_array(cnp.ndarray array):
    """Tell whether `array` is plain memory, and no code of others runs when it goes."""
    cdef PyObject *base = <PyObject *>cnp.PyArray_BASE(array)
    if base != NULL:
        if type(<object>base) is not cnp.ndarray or not goes_alone(<object>base):
            return False
        if cnp.PyArray_BASE(<object>base) != NULL:
            return False
    return goes_alone(array) and is_contiguous(array) and not PyDataType_REFCHK(dtype_of(array))


cdef bint goes_alone(object array) noexcept:
    """Tell whether nobody is told when `array` goes."""
    return (<Fields *><void *>array).weakreflist == NULL


cdef _Pickling pickled(object value, _Numbering numbering):
    """Run `value` through the plain pickler or, where that is not enough, through cloudpickle.

    Functions and classes of `__main__` pickle by name, but the process that reads them has
    another `__main__`: they go by value, as do modules that the user registered for it.
    """
    cdef Py_ssize_t nrefs = len(numbering.refs)
    cdef _Pickling pickling
    if not list_registry_pickle_by_value():
        pickling = _Pickling(numbering)
        try:
            pickling.run_plain(value)
            if not pickling.mentions_main:
                return pickling
        except (MemoryError, RecursionError):
            raise
        except Exception:
            pass
        numbering.rewind(nrefs)
    pickling = _Pickling(numbering)
    pickling.run_by_value(value)
    return pickling


# --- arrays ------------------------------------------------------------------------------------

cdef inline cnp.dtype dtype_of(cnp.ndarray array):
    return <cnp.dtype>cnp.PyArray_DESCR(array)


cdef inline bint is_contiguous(cnp.ndarray array) noexcept:
    return cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_IS_F_CONTIGUOUS(array)


cdef inline bint is_plain_type(uint32_t type_num) noexcept:
    return type_num <= <uint32_t>cnp.NPY_CLONGDOUBLE or type_num == <uint32_t>cnp.NPY_FLOAT16


cdef inline bint is_plain_number(cnp.ndarray array):
    """Tell whether numpy's type number alone says all about the dtype."""
    cdef int type_num = cnp.PyArray_TYPE(array)
    if type_num < 0 or not is_plain_type(<uint32_t>type_num):
        return False
    # Its own instance: native byte order, no metadata.
    return dtype_of(array) is cnp.PyArray_DescrFromType(type_num)


cdef object describe_dtype(cnp.ndarray array):
    """Return what an ArrayHead says of the dtype beside its number.

    None: elements that are not plain memory, or a dtype that only a pickler of the whole value
    can carry.
    """
    if is_plain_number(array):
        return b""
    # User-defined types of the new kind (-1) may keep what they like outside the elements.
    if cnp.PyArray_TYPE(array) < 0 or PyDataType_REFCHK(dtype_of(array)):
        return None
    if cnp.PyArray_ITEMSIZE(array) == 0:
        return None
    try:
        text = dumps(array.dtype, 5)
    except Exception:
        return None
    return None if b"__main__" in text else text


cdef inline size_t array_head_nbytes(cnp.ndarray array, bytes text) noexcept:
    return (sizeof(ArrayHead) + 8 * <size_t>cnp.PyArray_NDIM(array)
            + <size_t>PyBytes_GET_SIZE(text))


cdef int write_array_head(
        char *dest, cnp.ndarray array, bytes text, size_t data_offset) except -1:
    cdef ArrayHead head
    cdef int ndim = cnp.PyArray_NDIM(array)
    cdef size_t text_nbytes = <size_t>PyBytes_GET_SIZE(text)
    memset(&head, 0, sizeof(ArrayHead))
    head.data_offset = data_offset
    head.type_num = PICKLED_DTYPE if text_nbytes else <uint32_t>cnp.PyArray_TYPE(array)
    head.dtype_nbytes = <uint32_t>text_nbytes
    head.fortran = (
        cnp.PyArray_IS_F_CONTIGUOUS(array) and not cnp.PyArray_IS_C_CONTIGUOUS(array))
    head.ndim = <uint8_t>ndim
    memcpy(dest, &head, sizeof(ArrayHead))
    dest += sizeof(ArrayHead)
    memcpy(dest, cnp.PyArray_DIMS(array), 8 * <size_t>ndim)
    memcpy(dest + 8 * ndim, PyBytes_AS_STRING(text), text_nbytes)
    return 0


# --- decode ------------------------------------------------------------------------------------

cdef int corrupt(str what) except -1:
    raise ValueError(f"corrupt payload: {what}")


cdef inline int check_inside(Span span, size_t offset, size_t nbytes, str what) except -1:
    if offset > span.nbytes or nbytes > span.nbytes - offset:
        corrupt(f"{what} at {offset} of {nbytes} bytes, in a payload of {span.nbytes}")
    return 0


cpdef object decode(uint32_t kind, object pin, list refs):
    """Return the value of a payload.

    Args:
        kind: The KIND_* stored beside the payload.
        pin: Exports the payload as a read-only contiguous buffer that starts at a multiple of 64;
            None for an empty payload. Arrays in the value are read-only views of it and keep it.
        refs: The contained refs in the order of their numbers.

    Raises:
        ValueError: The payload is corrupt, or `pin` is writable.
    """
    cdef Py_buffer view
    if pin is None:
        return decode_at(kind, NULL, 0, pin, refs)
    get_payload(pin, &view)
    try:
        return decode_at(kind, <const char *>view.buf, <size_t>view.len, pin, refs)
    finally:
        PyBuffer_Release(&view)


cpdef tuple decode_call(uint32_t kind, object pin, list refs, list resolved):
    """Return `(args, kwargs)` of a KIND_CALL payload.

    Args:
        kind: KIND_CALL.
        pin: As for decode().
        refs: As for decode(): dependencies first.
        resolved: Values of the dependencies, put in their place.

    Raises:
        ValueError: As for decode().
    """
    cdef Py_buffer view
    if pin is None:
        return decode_call_at(kind, NULL, 0, pin, refs, resolved)
    get_payload(pin, &view)
    try:
        return decode_call_at(
            kind, <const char *>view.buf, <size_t>view.len, pin, refs, resolved)
    finally:
        PyBuffer_Release(&view)


cdef int get_payload(object pin, Py_buffer *view) except -1:
    PyObject_GetBuffer(pin, view, PyBUF_SIMPLE)
    if not view.readonly:
        PyBuffer_Release(view)
        raise ValueError("the buffer of a payload must be read-only: values are immutable")
    return 0


cdef object decode_at(uint32_t kind, const char *base, size_t nbytes, object pin, list refs):
    cdef Span span
    span.base = base
    span.nbytes = nbytes
    if kind == KIND_NONE:
        return None
    if kind == KIND_TRUE or kind == KIND_FALSE:
        return kind == KIND_TRUE
    if kind == KIND_INT:
        return decode_int(span, 0)
    if kind == KIND_FLOAT:
        return decode_float(span, 0)
    if kind == KIND_STR:
        return PyUnicode_DecodeUTF8(base, <Py_ssize_t>nbytes, "surrogatepass") if nbytes else ""
    if kind == KIND_BYTES:
        return decode_bytes(span)
    if kind == KIND_ARRAY:
        return decode_array(span, 0, pin, {})
    if kind == KIND_PLAIN:
        return loads(memory(span))
    if kind == KIND_PICKLE:
        return decode_pickle(span, pin, refs)
    if kind == KIND_BYTEARRAY:
        return decode_bytearray(span)
    if kind == KIND_REF_LIST:
        return decode_ref_list(span, refs)
    if kind == KIND_DYNAMIC:
        return _config.make_dynamic(list(refs))
    if kind == KIND_ERROR:
        return ErrorPayload(decode_bytes(span))
    if kind == KIND_CALL:
        raise ValueError("arguments of a call are read by decode_call()")
    return corrupt(f"unknown kind {kind}")


cdef inline object decode_int(Span span, size_t offset):
    cdef int64_t number
    check_inside(span, offset, 8, "int")
    memcpy(&number, span.base + offset, 8)
    return number


cdef inline object decode_float(Span span, size_t offset):
    cdef double number
    check_inside(span, offset, 8, "float")
    memcpy(&number, span.base + offset, 8)
    return number


cdef bytes decode_bytes(Span span):
    cdef bytes value = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>span.nbytes)
    copy_bytes(PyBytes_AS_STRING(value), span.base, span.nbytes)
    return value


cdef bytearray decode_bytearray(Span span):
    cdef bytearray value = PyByteArray_FromStringAndSize(NULL, <Py_ssize_t>span.nbytes)
    copy_bytes(PyByteArray_AS_STRING(value), span.base, span.nbytes)
    return value


cdef list decode_ref_list(Span span, list refs):
    if span.nbytes == 0:
        return list(refs)
    if span.nbytes % 4:
        corrupt(f"list of refs in {span.nbytes} bytes")
    cdef list value = []
    cdef uint32_t number
    cdef size_t offset
    for offset in range(0, span.nbytes, 4):
        memcpy(&number, span.base + offset, 4)
        value.append(ref_at(refs, number))
    return value


cdef inline object ref_at(list refs, uint64_t number):
    if refs is None or number >= <uint64_t>len(refs):
        corrupt(f"ref number {number} of {0 if refs is None else len(refs)}")
    return refs[<Py_ssize_t>number]


cdef cnp.ndarray decode_array(Span span, size_t offset, object pin, dict dtypes):
    """Return a view of the array whose head is at `offset`. `dtypes`: those met in this payload."""
    cdef ArrayHead head
    cdef cnp.npy_intp dims[MAX_NDIM]
    check_inside(span, offset, sizeof(ArrayHead), "head of an array")
    memcpy(&head, span.base + offset, sizeof(ArrayHead))
    offset += sizeof(ArrayHead)
    if head.ndim > MAX_NDIM or head.fortran > 1:
        corrupt(f"array of {head.ndim} dimensions in order {head.fortran}")
    check_inside(span, offset, 8 * <size_t>head.ndim, "shape of an array")
    memcpy(dims, span.base + offset, 8 * <size_t>head.ndim)
    offset += 8 * <size_t>head.ndim
    check_inside(span, offset, head.dtype_nbytes, "dtype of an array")
    cdef cnp.dtype descr = decode_dtype(&head, span.base + offset, dtypes)
    cdef size_t nbytes = array_nbytes(head.ndim, dims, <size_t>descr.itemsize)
    check_inside(span, head.data_offset, nbytes, "elements of an array")
    return new_view(
        descr, head.ndim, dims, span.base + head.data_offset, head.fortran, pin)


cdef cnp.ndarray new_view(
        cnp.dtype descr, int ndim, cnp.npy_intp *dims, const char *data, bint fortran, object pin):
    """Return a read-only array over `data` that keeps `pin`; without one, a writable copy."""
    cdef int flags = cnp.NPY_ARRAY_F_CONTIGUOUS if fortran else cnp.NPY_ARRAY_C_CONTIGUOUS
    cdef cnp.ndarray array = new_array(descr, ndim, dims, data, flags)
    if pin is None:
        return array.copy("A")
    cnp.set_array_base(array, pin)
    return array


cdef cnp.dtype decode_dtype(ArrayHead *head, const char *text, dict dtypes):
    if head.type_num != PICKLED_DTYPE:
        if not is_plain_type(head.type_num):
            corrupt(f"array of type number {head.type_num}")
        return cnp.PyArray_DescrFromType(<int>head.type_num)
    key = PyBytes_FromStringAndSize(text, head.dtype_nbytes)
    descr = dtypes.get(key)
    if descr is None:
        descr = dtypes[key] = loads(key)
    if not isinstance(descr, numpy.dtype) or descr.hasobject or descr.itemsize == 0:
        corrupt(f"array of dtype {descr!r}")
    return descr


cdef size_t array_nbytes(int ndim, cnp.npy_intp *dims, size_t itemsize) except? -1:
    cdef size_t nbytes = itemsize
    cdef bint empty = False
    cdef int i
    for i in range(ndim):
        if dims[i] < 0:
            corrupt(f"array of length {dims[i]}")
        if dims[i] == 0:
            empty = True
        elif <size_t>dims[i] > (SIZE_MAX // 2) // nbytes:
            corrupt(f"array of length {dims[i]} in elements of {itemsize} bytes")
        else:
            nbytes *= <size_t>dims[i]
    return 0 if empty else nbytes


cdef inline object memory(Span span):
    """Return a pickle stream as a memoryview that is good as long as the span is."""
    if span.nbytes == 0:
        corrupt("empty pickle stream")
    return PyMemoryView_FromMemory(<char *>span.base, <Py_ssize_t>span.nbytes, PyBUF_READ)


cdef object decode_pickle(Span span, object pin, list refs):
    cdef PickleHead head
    check_inside(span, 0, sizeof(PickleHead), "head of a pickle")
    memcpy(&head, span.base, sizeof(PickleHead))
    check_inside(span, head.stream_offset, head.stream_nbytes, "pickle stream")
    cdef Span stream
    stream.base = span.base + head.stream_offset
    stream.nbytes = head.stream_nbytes
    if head.nitems == 0:
        return loads(memory(stream))
    if head.nitems > (span.nbytes - sizeof(PickleHead)) // sizeof(Item):
        corrupt(f"{head.nitems} items in a payload of {span.nbytes} bytes")
    items = decode_items(span, head.nitems, pin, refs)
    if stream.nbytes == 0:
        return tuple(items)
    return loads(memory(stream), buffers=items)


cdef list decode_items(Span span, size_t nitems, object pin, list refs):
    """Return what stands at the places that the stream left out, in their order."""
    cdef list items = []
    cdef dict dtypes = {}
    cdef Item item
    cdef size_t i
    for i in range(nitems):
        memcpy(&item, span.base + sizeof(PickleHead) + i * sizeof(Item), sizeof(Item))
        if item.tag == ITEM_REF:
            items.append(ref_at(refs, item.number))
        elif item.tag == ITEM_PART:
            items.append(_config.read_part(ref_at(refs, item.number)))
        elif item.tag == ITEM_ARRAY:
            items.append(decode_array(span, item.offset, pin, dtypes))
        elif item.tag == ITEM_BUFFER:
            items.append(decode_buffer(span, item.offset, item.nbytes, pin))
        else:
            corrupt(f"item of tag {item.tag}")
    return items


cdef object decode_buffer(Span span, size_t offset, size_t nbytes, object pin):
    """Return a memoryview of part of the payload, as new_view() does an array."""
    cdef cnp.npy_intp length = <cnp.npy_intp>nbytes
    check_inside(span, offset, nbytes, "buffer")
    return memoryview(new_view(
        cnp.PyArray_DescrFromType(cnp.NPY_UBYTE), 1, &length, span.base + offset, False, pin))


cdef bint has_pickled(const char *base, size_t nbytes) noexcept:
    cdef CallHead head
    if nbytes < sizeof(CallHead):
        return False
    memcpy(&head, base, sizeof(CallHead))
    return head.nleft != 0


cdef tuple decode_call_at(
        uint32_t kind, const char *base, size_t nbytes, object pin, list refs, list resolved):
    cdef Span span
    cdef CallHead head
    span.base = base
    span.nbytes = nbytes
    if kind != KIND_CALL:
        corrupt(f"kind {kind} where the arguments of a call were expected")
    if nbytes == 0:
        return (), {}
    check_inside(span, 0, sizeof(CallHead), "head of a call")
    memcpy(&head, base, sizeof(CallHead))
    check_inside(span, sizeof(CallHead), head.slots_nbytes, "arguments")
    cdef _SlotReader reader = _SlotReader.__new__(_SlotReader)
    reader.span.base = base
    reader.span.nbytes = sizeof(CallHead) + head.slots_nbytes
    reader.cursor = sizeof(CallHead)
    reader.resolved = resolved
    reader.left = decode_left(span, &head, pin, refs)
    return reader.read_args(head.nargs), reader.read_kwargs(head.nkwargs)


cdef tuple decode_left(Span span, CallHead *head, object pin, list refs):
    """Return the arguments that were pickled."""
    if head.nleft == 0:
        return ()
    cdef size_t offset = align(sizeof(CallHead) + head.slots_nbytes, ALIGNMENT)
    cdef Span part
    check_inside(span, offset, 0, "pickled arguments")
    part.base = span.base + offset
    part.nbytes = span.nbytes - offset
    if head.left_kind != KIND_PLAIN and head.left_kind != KIND_PICKLE:
        corrupt(f"pickled arguments of kind {head.left_kind}")
    left = decode_at(head.left_kind, part.base, part.nbytes, pin, refs)
    if type(left) is not tuple or len(<tuple>left) != head.nleft:
        corrupt(f"{head.nleft} pickled arguments expected")
    return left


@cython.final
cdef class _SlotReader:
    """The slots of a call as they are read one after the other."""

    cdef Span span          # ends where the slots end
    cdef size_t cursor
    cdef list resolved
    cdef tuple left
    cdef Py_ssize_t nleft   # taken so far

    cdef tuple read_args(self, uint32_t count):
        cdef list args = []
        for _ in range(count):
            args.append(self.read())
        return tuple(args)

    cdef dict read_kwargs(self, uint32_t count):
        cdef dict kwargs = {}
        for _ in range(count):
            name = self.read_text(True)
            kwargs[name] = self.read()
        return kwargs

    cdef const char *advance(self, size_t nbytes) except NULL:
        """Return the next `nbytes` bytes."""
        check_inside(self.span, self.cursor, nbytes, "argument")
        cdef const char *start = self.span.base + self.cursor
        self.cursor += nbytes
        return start

    cdef object read_text(self, bint is_str):
        cdef uint32_t nbytes
        memcpy(&nbytes, self.advance(4), 4)
        cdef const char *text = self.advance(nbytes)
        if is_str:
            return PyUnicode_DecodeUTF8(text, nbytes, "surrogatepass")
        return PyBytes_FromStringAndSize(text, nbytes)

    cdef object read(self):
        cdef uint8_t tag = <uint8_t>self.advance(1)[0]
        if tag == KIND_INT:
            self.advance(8)
            return decode_int(self.span, self.cursor - 8)
        if tag == SLOT_REF:
            return self.read_resolved()
        if tag == KIND_NONE:
            return None
        if tag == KIND_TRUE or tag == KIND_FALSE:
            return tag == KIND_TRUE
        if tag == KIND_FLOAT:
            self.advance(8)
            return decode_float(self.span, self.cursor - 8)
        if tag == KIND_STR or tag == KIND_BYTES:
            return self.read_text(tag == KIND_STR)
        if tag == SLOT_LEFT:
            return self.read_left()
        return corrupt(f"argument of tag {tag}")

    cdef object read_resolved(self):
        cdef uint64_t number
        memcpy(&number, self.advance(8), 8)
        return ref_at(self.resolved, number)

    cdef object read_left(self):
        if self.nleft >= len(self.left):
            corrupt(f"more than {len(self.left)} pickled arguments")
        self.nleft += 1
        return self.left[self.nleft - 1]


# --- what cannot be pickled --------------------------------------------------------------------

cdef enum:
    EXPLAIN_DEPTH = 8      # levels to descend
    EXPLAIN_PARTS = 1000   # parts to try on one level


cdef str explain(str subject, object value, object error):
    """Return a sentence that names the part of `value` at which pickling fails."""
    opening = f"cannot serialise {subject} of type {type_name(value)}"
    path = []
    for _ in range(EXPLAIN_DEPTH):
        try:
            found = find_culprit(value)
        except Exception:  # of the value's own code; what went wrong first matters more
            break
        if found is None:
            break
        label, value = found
        path.append(label)
    if not path:
        return f"{opening}: {error}"
    return f"{opening}: {' of '.join(reversed(path))} is a {type_name(value)}"


cdef str type_name(object value):
    cls = type(value)
    if cls.__module__ in ("builtins", "__main__"):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


cdef bint can_pickle(object value) except? True:
    try:
        pickled(value, _Numbering())
    except MemoryError:
        raise
    except Exception:
        return False
    return True


cdef tuple find_culprit(object value):
    """Return (label, part) of the first part of `value` that cannot be pickled, or None."""
    for count, (label, part) in enumerate(_parts_of(value)):
        if count == EXPLAIN_PARTS:
            return None
        if part is not value and not can_pickle(part):
            return label, part
    return None


def _parts_of(value):
    """Yield (label, part) for what pickling `value` would descend into."""
    if isinstance(value, dict):
        for key, part in list(value.items()):
            yield f"item {short(key)}", part
            yield f"key {short(key)}", key
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(list(value)):
            yield f"item {i}", part
    elif isinstance(value, (set, frozenset)):
        for part in list(value):
            yield f"member {short(part)}", part
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        yield "the object it is bound to", value.__self__
    elif isinstance(value, functools.partial):
        yield "the function", value.func
        yield "the positional arguments", value.args
        yield "the keyword arguments", value.keywords
    elif isinstance(value, BaseException):
        yield "args", value.args
    yield from _parts_of_instance(value)


def _parts_of_function(function):
    """Yield (label, part) for the variables that `function` carries along."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            yield f"closure variable {name!r}", cell.cell_contents
        except ValueError:  # still unbound
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f"global variable {name!r}", function.__globals__[name]
    for part in function.__defaults__ or ():
        yield "a default argument", part
    for name, part in (function.__kwdefaults__ or {}).items():
        yield f"default argument {name!r}", part


def _parts_of_instance(value):
    """Yield (label, part) for the attributes of `value`: those in its dict and in its slots."""
    for name, part in list(getattr(value, "__dict__", {}).items()):
        yield f"attribute {name!r}", part
    if isinstance(value, type):
        return
    for cls in type(value).__mro__:
        for name, member in list(vars(cls).items()):
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield f"attribute {name!r}", member.__get__(value)
                except AttributeError:  # still unset
                    continue


cdef str short(object value):
    try:
        text = repr(value)
    except Exception:
        return f"of type {type_name(value)}"
    return text if len(text) <= 40 else f"{text[:37]}..."
