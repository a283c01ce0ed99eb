/* rl_layout.h - what is in shared memory, and the words for it.
 *
 * GLOSSARY
 *   session   one running instance: a supervisor, its workers, one control and one data segment
 *   segment   a memfd and its mapping. CONTROL holds every record below; DATA holds payload only
 *   slot      the record of one process that has joined the session
 *   block     an extent of the data segment
 *   object    an immutable value: generation, state, payload, holders
 *   payload   the bytes of a value: in the record itself when short, else in one block
 *   holder    a process that may still read an object: one bit a slot
 *   name      an object's index in a value that contains it or a task that needs it
 *   task      a function call to be run; owns its arguments, names its return objects
 *   class     the scheduling class of a task: what resources it asks for; one queue each
 *   stream    the growing list of objects that a generator task yields
 *   outlet    the object that stands for the reading end of a stream: who can reach it may take
 *             the items
 *   section   an exclusive change of CONTROL, under the one lock; the dirty word says that one is
 *             under way
 *   doorbell  the futex word of a slot: rung when something happens that its process may wait for
 *   callbell  another one: rung when there is a call for the actor that the process is
 *   bell      the supervisor's eventfd: rung for what needs judgement
 *   actor     a task that does not end by itself: it makes an instance and serves calls to it. Its
 *             one return object stands for it: who can reach that may call the actor
 *   call      a task that runs in the process of an actor
 *   mailbox   the calls of an actor that nobody has claimed yet
 *   stranded  a task that waits for the supervisor's judgement: its worker died, it is to be run
 *             again, it was cancelled, or it calls an actor that is dead
 *   handle    {index, generation}: how a process refers to an object, task or stream
 *
 * LAYOUT   CONTROL = [rl_control | slots | classes | blocks | objects | tasks | streams | actors |
 *          chunks | edges], each table at a multiple of 4096, reserved sparse: a record costs
 *          memory once it has been used. Only indices and offsets are stored, never pointers.
 *
 * AUTHORITATIVE AND DERIVED
 *   Each field is one or the other. Authoritative fields are changed so that one aligned store
 *   commits (COMMIT in the code). Derived fields (marked "derived") are lost with whoever dies in
 *   the middle of changing them, and are rebuilt by a scan of the authoritative ones (rl_repair.h).
 */
#ifndef RL_LAYOUT_H
#define RL_LAYOUT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define RL_MAGIC UINT64_C(0x6574696c5f796172) /* "ray_lite" */
#define RL_LAYOUT_VERSION 7u                  /* bump on any change of a shared struct */

#define RL_NIL UINT32_MAX /* "no index" */

enum {
    RL_MAX_SLOTS = 256,
    RL_SLOT_WORDS = RL_MAX_SLOTS / 64,
    RL_MAX_CLASSES = 128,
    RL_MAX_ACTORS = 4096,
    RL_ACTOR_NAME = 128,
    RL_MAX_RESOURCES = 16,
    RL_RESOURCE_NAME = 64,
    RL_CPU = 0,               /* resource 0; the one that a blocked task gives back */
    RL_RESOURCE_UNIT = 10000, /* units in 1.0 of a resource */
    RL_BINS = 172,
    RL_BIN_WORDS = 3,
    RL_INLINE = 32,       /* longest payload kept in the object's record */
    RL_TASK_INLINE = 148, /* longest arguments kept in the task's record */
    RL_TASK_NAME = 48,
    RL_CHUNK_NAMES = 14,
    RL_ALIGN = 64, /* of every block */
    /* The kinds of value that the core knows; the others are the codec's. */
    RL_KIND_ERROR = 11,  /* a failure */
    RL_KIND_OUTLET = 15, /* the payload is the handle of a stream */
    RL_STREAM_SHARE = 4, /* a task's stream keeps at most one part in so many of the store */
};

enum {
    RL_HANDLE_OBJECT = 0,
    RL_HANDLE_STREAM,
    RL_HANDLE_SEALED, /* an object that was sealed when somebody looked: it is while it is held */
};

/* Which record, and which of the records that have lived there. */
typedef struct rl_handle {
    uint64_t gen;
    uint32_t index;
    uint32_t kind; /* RL_HANDLE_*: looked at by who waits; SEALED spares looking at the object */
} rl_handle;

/* A list of objects. n == 0: none; n == 1: `head` is the object; else the first chunk. */
typedef struct rl_list {
    uint32_t head;
    uint32_t n;
} rl_list;

typedef struct rl_chunk {
    uint32_t next; /* next chunk of the list, or of the free list (then derived) */
    uint32_t used; /* derived: 1 while a live list owns it */
    uint32_t object[RL_CHUNK_NAMES];
} rl_chunk;
_Static_assert(sizeof(rl_chunk) == 64, "one cache line");

/* ---- lock ---- */

typedef struct rl_lock {
    pthread_mutex_t mutex;     /* robust, process-shared */
    _Atomic uint32_t dirty;    /* the operation under way; 0 = nothing is half done */
    _Atomic uint32_t holder;   /* pid, for the message that names a stopped owner */
    _Atomic uint32_t poisoned; /* repair found nonsense */
    _Atomic uint32_t repairs;  /* how often a dead owner's work was repaired */
} rl_lock;

/* ---- slots ---- */

enum { RL_SLOT_FREE, RL_SLOT_LIVE, RL_SLOT_DYING };
enum { RL_ROLE_DRIVER = 1, RL_ROLE_SUPERVISOR, RL_ROLE_WORKER, RL_ROLE_HELPER };

typedef struct rl_slot {
    _Atomic uint32_t state; /* RL_SLOT_*; COMMIT of joining and leaving */
    uint32_t pid;
    uint64_t start_time;      /* of the process, in clock ticks after boot: pids are reused */
    uint64_t gen;             /* how many processes have had this slot */
    uint32_t role;            /* RL_ROLE_* */
    _Atomic uint32_t blocked; /* 1 while its task waits and so gives its CPU back */
    _Atomic uint32_t task;    /* index of the task that it runs, or RL_NIL (derived) */
    _Atomic uint32_t leaving; /* the supervisor asks this worker to end when idle */
    uint8_t pad0[64 - 40];
    _Atomic uint32_t doorbell; /* futex: bumped by every event that the process waits for */
    _Atomic uint32_t sleepers; /* threads in a futex wait on `doorbell`: is a wake call needed? */
    _Atomic uint32_t callbell; /* futex: bumped when there is a call for the actor that it is */
    _Atomic uint32_t idlers;   /* threads in a futex wait on `callbell` */
    _Atomic uint32_t spinning; /* groups of threads of which one spins on `callbell`, a bit each */
    uint8_t pad1[64 - 20];
} rl_slot;
_Static_assert(sizeof(rl_slot) == 128, "the doorbell has a line of its own");

/* ---- blocks ---- */

/* A block's tag: what it is, and for whom (COMMIT of every change). */
#define RL_BLOCK_UNUSED 0u /* the record describes no extent */
#define RL_BLOCK_FREE (1u << 28)
#define RL_BLOCK_FILLING (2u << 28) /* | slot: being written */
#define RL_BLOCK_SEALED (3u << 28)  /* | object (derived from that object's `block`) */
#define RL_BLOCK_KIND (15u << 28)
#define RL_BLOCK_WHO ((1u << 28) - 1)

typedef struct rl_block {
    _Atomic uint32_t tag;
    uint32_t bin;      /* derived: which bin a free block is in */
    uint64_t offset;   /* authoritative. A block ends where the next one begins, so one store
                          splits and one store joins */
    uint64_t length;   /* derived: distance to the next block */
    uint32_t prev;     /* derived: neighbours by address */
    uint32_t next;     /* (also the list of unused records) */
    uint32_t bin_prev; /* derived */
    uint32_t bin_next;
    uint8_t pad[64 - 40];
} rl_block;
_Static_assert(sizeof(rl_block) == 64, "one cache line");

/* ---- objects ---- */

enum {
    RL_OBJECT_FREE = 0,
    RL_OBJECT_PENDING, /* a task will fill it */
    RL_OBJECT_SEALED,
    RL_OBJECT_DROPPED, /* sealed once; only its running producer still names it: payload freed */
    RL_OBJECT_FREEING, /* nobody can reach it; its names no longer count */
    RL_OBJECT_STATE = 0xff,
    RL_OBJECT_WAITED = 0x100,  /* some process waits for the seal: ring its holders */
    RL_OBJECT_WATCHED = 0x200, /* some process waits for it among others: ring them for a failure */
};
enum {
    RL_OBJECT_ASKED = 1,  /* somebody has read it: a failure that was never read is reported */
    RL_OBJECT_REPORT = 2, /* a failure that nobody read, kept for the supervisor to print */
    RL_OBJECT_NUMBER_SHIFT = 2, /* the rest: its place among its task's returns, from 1; 0 = put */
};

typedef struct rl_object {
    _Atomic uint64_t gen;                    /* unique in the session; a task's returns share it */
    _Atomic uint32_t state;                  /* RL_OBJECT_*; COMMIT */
    uint32_t kind;                           /* of value: the codec's business, but for ERROR */
    _Atomic uint32_t names;                  /* derived: lists of live owners that have it */
    uint32_t block;                          /* of the payload, or RL_NIL: it is inline */
    uint64_t nbytes;                         /* of the payload */
    _Atomic uint64_t holders[RL_SLOT_WORDS]; /* one bit a slot; any process sets only its own */
    uint64_t fingerprint;                    /* of the payload, given by whoever sealed it */
    _Atomic uint32_t producer;               /* derived: live task that has it in its returns */
    uint32_t waiting;                        /* derived: first edge to a task that waits for it */
    rl_list refs;                            /* objects that the value contains */
    uint32_t next;                           /* derived: free list, or work-list of the freer */
    _Atomic uint32_t flags;
    uint8_t bytes[RL_INLINE];
} rl_object;
_Static_assert(sizeof(rl_object) == 128, "two cache lines");

/* Task `task` waits for the object in whose list this edge is. All derived. */
typedef struct rl_edge {
    uint32_t task;
    uint32_t next;
} rl_edge;

/* ---- tasks ---- */

enum {
    RL_TASK_FREE = 0,
    RL_TASK_WAITING, /* for objects that it needs */
    RL_TASK_READY,
    RL_TASK_CLAIMED,  /* | slot << 8: that worker runs it */
    RL_TASK_STRANDED, /* the supervisor decides, see RL_TASK_RAISED ... */
    RL_TASK_FREEING,
    RL_TASK_STATE = 0xff,
    RL_TASK_SLOT_SHIFT = 8,
};
/* As max_retries: it is not run again, for what it has taken of a stream would be missing. */
#define RL_TASK_ONCE INT32_MIN
/* Why a task is stranded; 0: its worker died. */
enum {
    RL_TASK_RAISED = 1, /* an exception that its options say to retry */
    RL_TASK_WITHDRAWN,  /* it was cancelled before it ran */
    RL_TASK_ORPHANED,   /* the actor that it calls is dead */
};
/* How a task was cancelled. */
enum {
    RL_CANCEL = 1,       /* it is asked to end */
    RL_CANCEL_FORCE = 2, /* its worker is killed */
    RL_CANCEL_TOLD = 4,  /* the supervisor has acted on it */
};

typedef struct rl_task {
    _Atomic uint64_t gen;
    _Atomic uint32_t state; /* RL_TASK_* | slot << 8; COMMIT */
    uint32_t attempt;       /* 0 for the first */
    uint64_t seq;           /* order of submission; the generation of its objects */
    uint32_t submitter;     /* slot */
    uint32_t class_;        /* scheduling class */
    uint32_t missing;       /* derived: how many of its dependencies are not sealed yet */
    uint32_t next;          /* derived: queue or free list */
    uint32_t function;      /* object (named): the exported function */
    uint32_t args;          /* object (named): the arguments, or RL_NIL: they are in `bytes` */
    rl_list returns;        /* objects that it fills (named) */
    rl_list refs;           /* objects in its arguments (named); the first ndeps are waited for */
    uint32_t ndeps;
    uint32_t kind;               /* of the inline arguments */
    uint32_t nbytes;             /* of the inline arguments */
    _Atomic int32_t max_retries; /* < 0: without end; or RL_TASK_ONCE */
    uint32_t options;            /* bits of ray_lite's Python layer; the core does not read them */
    _Atomic uint32_t stream;     /* index of the stream that it fills, or RL_NIL */
    uint32_t stranded;           /* why */
    _Atomic uint32_t cancel;     /* RL_CANCEL ... */
    uint32_t actor;              /* object (named): the actor that it calls, or RL_NIL */
    uint32_t mailbox;            /* of a task that is an actor: its record; else RL_NIL */
    uint32_t group;              /* of a call: the threads of the actor that may run it */
    uint64_t parent;             /* seq of the task that submitted it, or 0 */
    char name[RL_TASK_NAME];     /* UTF-8, cut to fit; for messages and log prefixes */
    uint8_t bytes[RL_TASK_INLINE];
} rl_task;
_Static_assert(sizeof(rl_task) == 320, "five cache lines");

/* ---- actors ---- */

enum {
    RL_ACTOR_ORDERED = 1,  /* calls of one process run in the order of their submission */
    RL_ACTOR_DETACHED = 2, /* lives on when nobody can reach it */
};
enum {
    RL_KILL = 1,     /* its process is to be killed; it may be restarted */
    RL_KILL_FOR_EVER /* and not restarted */
};

typedef struct rl_actor {
    uint32_t task;         /* derived: the task that is the actor, or RL_NIL: the record is free */
    uint32_t next;         /* derived: free list */
    uint32_t head, tail;   /* derived: mailbox, oldest call first */
    uint32_t calls;        /* derived: live calls, claimed ones too */
    uint32_t flags;        /* RL_ACTOR_* */
    uint32_t most_calls;   /* of one submitter; more are refused; 0: any number */
    uint32_t most_untaken; /* items of all its streams, then their producers pause; 0: any number */
    _Atomic uint32_t untaken; /* derived: items of its streams that nobody has taken */
    _Atomic uint32_t kill;    /* RL_KILL ..., or 0 */
    char name[RL_ACTOR_NAME]; /* "" = none; unique in its namespace */
    char space[RL_ACTOR_NAME];
    uint32_t calls_of[RL_MAX_SLOTS]; /* derived: `calls`, by the slot of the submitter */
} rl_actor;

/* ---- streams ---- */

enum { RL_STREAM_FREE, RL_STREAM_LIVE };

typedef struct rl_stream {
    _Atomic uint64_t gen;           /* that of its task's objects */
    _Atomic uint32_t state;         /* RL_STREAM_*; COMMIT */
    _Atomic uint32_t task;          /* derived: the live task that fills it, or RL_NIL */
    _Atomic uint32_t produced;      /* items ever appended; COMMIT of an append */
    _Atomic uint32_t taken;         /* items ever taken; COMMIT of a take */
    _Atomic uint64_t head;          /* place << 32 | chunk: first chunk still needed */
    _Atomic uint32_t outlet;        /* derived: its outlet, or RL_NIL: it is gone */
    _Atomic uint32_t waited;        /* who holds the outlet sleeps until there is an item */
    _Atomic uint32_t paused;        /* the producer sleeps until one is taken */
    uint32_t tail;                  /* derived: last chunk of the items */
    uint32_t log;                   /* first chunk of the fingerprints, or RL_NIL */
    uint32_t log_tail;              /* derived */
    uint32_t logged;                /* 1: fingerprints are kept */
    uint32_t limit;                 /* most untaken items, or 0: any number */
    _Atomic uint32_t actor;         /* index of the actor whose call fills it, or RL_NIL */
    uint32_t next;                  /* derived: free list */
    _Atomic uint64_t untaken_bytes; /* derived: payload of the untaken items */
    uint8_t pad[128 - 80];
} rl_stream;
_Static_assert(sizeof(rl_stream) == 128, "two cache lines");

/* ---- classes and resources ---- */

typedef struct rl_class {
    uint32_t used;                    /* 1: the demand is that of a class; COMMIT */
    uint32_t head, tail;              /* derived: queue of READY tasks, oldest first */
    uint32_t count;                   /* derived */
    uint32_t passed;                  /* derived: younger tasks that ran before its head */
    uint32_t nested;                  /* 1: of tasks that tasks submit */
    int64_t reserved_ns;              /* derived: until when its head has CPUs kept free for it */
    int64_t demand[RL_MAX_RESOURCES]; /* units */
} rl_class;

typedef struct rl_resource {
    char name[RL_RESOURCE_NAME]; /* "" = unused; never removed */
    int64_t total;               /* units; 0 for a resource that this machine does not have */
    int64_t available;           /* derived: total less what claimed tasks use; may be negative
                                    after a blocked task resumed */
} rl_resource;

/* ---- header ---- */

typedef struct rl_table {
    uint64_t offset;     /* in CONTROL */
    uint32_t capacity;   /* records reserved */
    uint32_t high_water; /* records ever used; only grows. Bounds every scan */
    uint32_t free;       /* derived: head of the free list */
    uint32_t nfree;      /* derived */
} rl_table;

typedef struct rl_control {
    uint64_t magic; /* the last store of creation */
    uint32_t version;
    uint32_t pad0;
    uint64_t cookie; /* random: tells this session from every other */
    uint64_t control_size;
    uint64_t data_size;
    rl_table slots, classes, blocks, objects, tasks, streams, actors, chunks, edges;
    rl_resource resources[RL_MAX_RESOURCES];

    _Alignas(64) rl_lock lock;

    _Alignas(64) uint64_t next_seq; /* of tasks and of puts; only grows */
    uint32_t supervisor;            /* slot of the supervisor, or RL_NIL before it joined */
    _Atomic uint32_t growable;      /* written by the scheduler: ring it when a task could run but
                                       every worker has one */
    _Atomic uint32_t depth_first;   /* written by the scheduler: tasks of tasks go first, for many
                                       workers wait for theirs */
    _Atomic uint32_t bell;          /* 1: the supervisor has been rung and has not looked yet */
    _Atomic uint32_t ended;         /* the session is over: every wait returns RL_EDEAD */
    uint32_t report_from;           /* where the next of them is looked for first */
    uint32_t reports;               /* derived: failures that nobody read */
    _Atomic uint32_t failures;      /* bumped when a pending object becomes a failure: who waits for
                                       many looks at all of them then */
    uint32_t stranded;              /* derived: tasks in that state */
    _Atomic uint32_t orders;        /* 1: there may be kills and cancels that the supervisor has
                                       not acted on */
    uint32_t workers;               /* derived: live workers */
    uint32_t occupied;              /* derived: those of them that have a task */
    uint64_t idle[RL_SLOT_WORDS];   /* derived: workers that wait for a task */
    uint64_t ready_classes[RL_MAX_CLASSES / 64]; /* derived: classes whose queue is not empty */

    _Alignas(64) uint64_t free_bytes; /* derived */
    uint64_t bin_map[RL_BIN_WORDS];   /* derived: bins that are not empty */
    uint32_t bins[RL_BINS];           /* derived: first free block of each size class */
    uint64_t peak_bytes;              /* most ever in use */

    _Alignas(64) _Atomic uint32_t freed; /* futex: bumped whenever a block becomes free */
    _Atomic uint32_t room_waiters;       /* threads that wait on `freed` */
    _Atomic uint64_t freed_bytes;        /* bytes ever freed */

    /* Bytes in private blocks, of the process of each slot (a hint: rl_private.h, LIMIT). */
    _Alignas(64) _Atomic uint64_t private_nbytes[RL_MAX_SLOTS];

    /* Counters for operators and tests; no decision reads them. */
    _Alignas(64) uint64_t tasks_finished;
    uint64_t sealed_in_place; /* values in blocks that were computed there */
    uint64_t copied;          /* values that were copied to their blocks */
    uint64_t objects_live;    /* derived */
    uint64_t tasks_live;      /* derived */
} rl_control;

#endif
