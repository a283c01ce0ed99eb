/* rl_wait.h - sleeping and waking: futexes on a process's doorbell and callbell, and on the `freed`
 * word.
 *
 * CALLS      The threads of an actor that wait for calls have a futex of their own, and a ring wakes
 *            one of them: sixteen that look for one call would be in each other's way. Who takes a
 *            call passes the word on if there is another.
 * PROTOCOL   The waiter reads the word, checks its condition, sleeps while the word is unchanged.
 *            Whoever makes a condition true bumps the word first and then wakes. A waker may be
 *            killed between the two, so no sleep is longer than a second, and the janitor rings
 *            everybody after a death.
 * SPINNING   A process woken within some tens of microseconds is woken for nothing: a short spin,
 *            which yields its core between rounds (prototype figures: a sleeping thread on another
 *            core runs 33 to 56 us after the wake, a spinning one 2 to 4 us).
 * ERRORS     EINTR: a signal came, or a second passed in which one may have been missed: Python
 *            must look, then call again.
 *            RL_ETIMEDOUT: `deadline_ns` (absolute CLOCK_MONOTONIC, INT64_MAX = none) passed.
 *            RL_EDEAD: the session has ended.
 *            RL_ECORRUPT: it is poisoned.
 */
#ifndef RL_WAIT_H
#define RL_WAIT_H

#include "rl_session.h"

int64_t rl_now_ns(void);

/* A deadline for who only looks. */
#define RL_NO_WAIT INT64_C(0)

/* Bump the doorbell of `slot` and wake its sleeping threads. */
void rl_doorbell_ring(rl_slot *slot);

/* Sleep until this process's doorbell differs from `seen`, for a second at most.
 *
 * While it sleeps, a process that runs a task gives its CPU back. Returns 0 (look again), EINTR,
 * RL_ETIMEDOUT, RL_EDEAD. */
int rl_doorbell_wait(rl_session *s, uint32_t seen, int64_t deadline_ns);

/* Spin for some tens of microseconds; returns 1 as soon as the doorbell differs from `seen`. */
int rl_doorbell_spin(const rl_session *s, uint32_t seen);

uint32_t rl_doorbell_read(const rl_session *s);

/* The callbell is for the threads of an actor's process that wait for a call; `groups` says which
 * groups of threads, a bit each. A ring for one group wakes one thread, unless one of it spins. The
 * groups from 31 on share the last bit, and a ring for one of them wakes all threads of all: a
 * single one might be of the wrong group. */
#define RL_ALL_GROUPS UINT32_MAX
#define RL_SHARED_BIT (UINT32_C(1) << 31)

static inline uint32_t rl_group_bit(uint32_t group)
{
    return group < 31 ? UINT32_C(1) << group : RL_SHARED_BIT;
}

void rl_callbell_ring(rl_slot *slot, uint32_t groups);

/* As rl_doorbell_wait, for a thread of the group with `bit`. */
int rl_callbell_wait(rl_session *s, uint32_t bit, uint32_t seen, int64_t deadline_ns);

/* As rl_doorbell_spin; 0 at once if another thread of the group is spinning. */
int rl_callbell_spin(const rl_session *s, uint32_t bit, uint32_t seen);

uint32_t rl_callbell_read(const rl_session *s);

/* A block became free: wake who waits for room. */
void rl_room_announce(rl_control *c);

/* Sleep until a block becomes free, i.e. `freed` differs from `seen`. As rl_doorbell_wait. */
int rl_room_wait(rl_session *s, uint32_t seen, int64_t deadline_ns);

#endif
