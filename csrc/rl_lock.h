/* rl_lock.h - the one lock of a session, and what happens when its holder is killed.
 *
 * A robust, process-shared mutex. Whoever takes it after its holder was killed gets it together
 * with the duty to repair; rl_lock_acquire() does that by calling `repair` when the dead process
 * had left the dirty word set. This is the only file that knows EOWNERDEAD.
 *
 * INVARIANTS
 *   I1  dirty != 0 only while the lock is held, or after its holder died in the middle.
 *   I2  once poisoned, always poisoned: nobody gets the lock again.
 * CRASHES   `repair` must be idempotent: the repairer may be killed too, and the next one starts
 *           again from whatever is there.
 * RULES     A robust mutex belongs to a thread: lock and unlock inside one C call. Under it: no
 *           malloc, no system call but futex, no touch of DATA, no call into Python.
 */
#ifndef RL_LOCK_H
#define RL_LOCK_H

#include "rl_layout.h"

/* Rebuild what is derived; returns 0, or RL_ECORRUPT when an invariant cannot be restored. */
typedef int (*rl_repair_fn)(void *context);

int rl_lock_init(rl_lock *lock);

/* Take the lock for process `pid` and mark operation `op` (!= 0) as under way.
 *
 * Waits as long as the holder lives; one that keeps the lock for a second (stopped by a signal or a
 * debugger) is named on stderr. Returns 0, or RL_ECORRUPT if the session is poisoned. */
int rl_lock_acquire(rl_lock *lock, uint32_t pid, uint32_t op, rl_repair_fn repair, void *context);

/* All is done: clear the dirty word and unlock. */
void rl_lock_release(rl_lock *lock);

#endif
