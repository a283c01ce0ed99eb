/* rl_session.h - one process's membership in a session.
 *
 * Owns what is private to the process: its slot's index, its count of references to each object,
 * its connection to the supervisor's bell. Everything else takes a session as first argument.
 *
 * SECTIONS   Every change of shared state happens in a section: rl_enter() ... rl_leave(). A
 *            section collects which doorbells to ring; rl_leave() rings them after unlocking.
 * LOCAL      A process touches an object's holder bit only for its first and its last reference;
 *            `local` counts those between. `local_mutex` (private to the process) guards the pair
 *            count + bit. Order: local_mutex before the session's lock.
 * FORK       A forked child must not use its parent's slot: it is detached from the start, every
 *            call fails with RL_EDEAD and every release does nothing. A worker forked by the
 *            supervisor calls rl_session_join() instead, on the mapping that it inherited.
 */
#ifndef RL_SESSION_H
#define RL_SESSION_H

#include "rl_segment.h"

typedef struct rl_session {
    rl_mapping map;
    uint32_t slot;
    uint32_t pid;
    int bell_fd; /* eventfd that the supervisor polls, or -1 */
    int peer_fd; /* pidfd of the supervisor, or -1: waits notice its death */
    _Atomic uint32_t
        *attached; /* 0: the session was left, or this is a forked child. In memory that
                      the kernel wipes on fork, so it holds before any hook has run */
    pthread_mutex_t local_mutex;
    _Atomic uint32_t *local; /* [objects.capacity]: references that this process holds */
    _Atomic uint8_t *warm;   /* one bit a 64 KiB of DATA: in this process's page table */
    pthread_t runner;        /* the thread that took the task: only its sleep lends the CPU */
    _Atomic uint64_t
        running; /* seq of the task that it runs, the parent of what it submits; or 0 */
    size_t local_nbytes;
    size_t warm_nbytes;
    _Atomic uint32_t sections;   /* entered so far; counted by debug builds only */
    _Atomic uint32_t interrupts; /* bumped to make every wait of this process return EINTR */
} rl_session;

/* Operations, for the dirty word. */
enum {
    RL_OP_ARENA = 1,
    RL_OP_OBJECT,
    RL_OP_TASK,
    RL_OP_STREAM,
    RL_OP_SLOT,
    RL_OP_JANITOR,
    RL_OP_CHECK,
};

enum { RL_CHECK_EVERY = 256 }; /* sections between two checks of a debug build */

/* One exclusive section over the session's shared state. */
typedef struct rl_section {
    rl_session *s;
    uint64_t ring[RL_SLOT_WORDS]; /* slots to wake on leaving */
    uint32_t called;              /* slot of an actor that has a call, or RL_NIL */
    uint32_t called_groups;       /* for which of its groups of threads */
    int called_all;               /* several have: ring every slot's callbell */
    int bell;                     /* ring the supervisor too */
    int freed;                    /* a block became free: wake who waits for room */
} rl_section;

/* Join the session behind `m` as a new process: claims a slot. `m` is copied; it must outlive the
 * session. Returns 0, RL_ENOSLOT, RL_ECORRUPT or an errno. */
int rl_session_join(rl_session *s, const rl_mapping *m, uint32_t role, int bell_fd, int peer_fd);

/* Leave in good order: gives back everything that this process holds, then the slot. */
int rl_session_leave(rl_session *s);

/* Forget the session without touching shared memory: the janitor gives back what this process
 * held. */
void rl_session_detach(rl_session *s);

static inline int rl_is_detached(const rl_session *s)
{
    return atomic_load_explicit(s->attached, memory_order_relaxed) == 0;
}

/* Give back the private memory of a session that was left or detached, once no thread is in a
 * call. */
void rl_session_dispose(rl_session *s);

/* Make each wait under way in this process return EINTR. */
void rl_session_interrupt(rl_session *s);

/* Begin and end a section. rl_enter returns 0, RL_EDEAD or RL_ECORRUPT; only after 0 may and must
 * rl_leave be called. */
int rl_enter(rl_session *s, rl_section *section, uint32_t op);
void rl_leave(rl_section *section);

/* End the session for everybody: each wait, now and later, returns RL_EDEAD. */
void rl_session_end(rl_session *s);

#endif
