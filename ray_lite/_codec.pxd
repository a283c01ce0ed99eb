# _codec.pxd - what other Cython rooms may use of the codec. Declarations only.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

# What a payload is. The core stores the kind beside the payload and never looks into either.
cpdef enum:
    KIND_NONE = 0       # no payload
    KIND_TRUE = 1       # no payload
    KIND_FALSE = 2      # no payload
    KIND_INT = 3        # int64
    KIND_FLOAT = 4      # double
    KIND_STR = 5        # utf-8, lone surrogates passed through
    KIND_BYTES = 6      # the bytes; also what a memoryview becomes
    KIND_BYTEARRAY = 7  # the bytes
    KIND_ARRAY = 8      # ArrayHead, then the elements
    KIND_PICKLE = 9     # PickleHead, then stream and buffers
    KIND_DYNAMIC = 10   # no payload; the contained refs are the items
    KIND_ERROR = 11     # an envelope made and read elsewhere
    KIND_CALL = 12      # CallHead, then the arguments; no payload: no arguments
    KIND_REF_LIST = 13  # a list of refs: their numbers, or no payload for 0, 1, 2, ...
    KIND_PLAIN = 14     # a pickle stream that leaves nothing out

cdef union Bits:
    int64_t number
    double real

# A value of one of the first kinds, which have a word of payload or none.
cdef struct Word:
    uint32_t kind
    size_t nbytes      # 8, or 0
    Bits bits

# Put None, a bool, an int of 64 bits or a float into `word`; False: `value` is none of these.
cdef bint as_word(object value, Word *word) except -1

# Part of a payload: where it is, and where in the payload it belongs.
cdef struct PlacedSpan:
    size_t offset
    size_t nbytes
    const char *bytes

cdef class Encoded:
    cdef readonly uint32_t kind      # KIND_*
    cdef readonly size_t nbytes      # payload length
    cdef readonly list refs          # contained refs, in the order of their numbers; never None
    cdef readonly Py_ssize_t ndeps   # refs[:ndeps] are the top-level arguments of a call
    cdef readonly list moves         # what moves with the value, or None; see `configure`
    cdef uint64_t _word              # the lead of an int or a float
    cdef const char *_lead           # first bytes of the payload: in _word or in _owner
    cdef size_t _lead_nbytes
    cdef object _owner               # keeps _lead alive
    cdef list _pieces                # the rest: (offset, nbytes, source), offsets rising; or None
    cdef object _pickling            # what it was made from if there are large arrays in it
    cdef list _large                 # which of the items they are; or None

    # Fill dest[0:nbytes]; `dest` is 64-byte aligned. Large copies run without the GIL.
    cdef int write_to(self, char *dest) except -1
    # How many large arrays are in it; each of them, which this object holds HELD_BY_ENCODED times.
    cdef Py_ssize_t count_large(self) noexcept
    cdef PyObject *large_array(self, Py_ssize_t i) noexcept
    # The same value with refs, as many, to objects that are the large arrays; None leaves one in it.
    # This object is of no use afterwards.
    cdef Encoded in_parts(self, list refs)
    # Where the payload is before it is written: the lead, then the pieces. Only of a value that
    # is_plain_around_arrays() is true of.
    cdef Py_ssize_t count_spans(self) noexcept
    cdef PlacedSpan span(self, Py_ssize_t i)

# The payload of a large array: its head has the first HEAD_ROOM bytes to itself, so that an array
# that lies so far behind the start of a block can become a payload as it is.
cdef enum:
    HEAD_ROOM = 256             # RL_HEAD_ROOM of csrc/rl_private.h
    LARGE_NBYTES = 256 * 1024   # of such an array
    HELD_BY_ENCODED = 2

# The memory of a large array that nothing but the object itself leads to: an ndarray and no
# subclass, with memory of its own, contiguous, never exported as a buffer, not weakly referenced;
# NULL for every other object.
cdef void *own_memory(object value) noexcept
# The memory of an array that is a view of all of the only other array on that memory, which owns
# it; NULL for every other object.
cdef void *viewed_memory(object value) noexcept
# Either, of an array that is not weakly referenced: only by the object does anything get at it.
cdef void *sole_memory(object value) noexcept
# Make such an array, and the one it is a view of, read-only.
cdef int freeze(object array) except -1
# Write the head of such an array to dest[0:HEAD_ROOM]. Returns its payload's length; 0: its dtype is
# nothing that a head can carry.
cdef size_t write_large_head(object array, char *dest) except? 0

# Is `value` small and made of nothing but plain values and arrays of such? Then no code runs when it
# goes.
cdef bint is_plain_around_arrays(object value) except? True

# The envelope of an error, which stands for a value.
cdef class ErrorPayload:
    cdef readonly bytes data

cpdef Encoded encode(object value)
cpdef Encoded encode_call(tuple args, dict kwargs)
cpdef Encoded encode_refs(list refs)
cpdef Encoded encode_error(bytes data)
cpdef object decode(uint32_t kind, object pin, list refs)
cpdef tuple decode_call(uint32_t kind, object pin, list refs, list resolved)

# The same for a payload at `base`, which `pin` keeps alive and unchanged. The pin must not export
# a writable buffer: numpy asks it before it lets anyone make an array writable. Without a pin the
# arrays in the value are copies, and writable.
cdef object decode_at(uint32_t kind, const char *base, size_t nbytes, object pin, list refs)
# Are some of the arguments of a call pickled? Only then `refs` is looked at.
cdef bint has_pickled(const char *base, size_t nbytes) noexcept
cdef tuple decode_call_at(
    uint32_t kind, const char *base, size_t nbytes, object pin, list refs, list resolved)
