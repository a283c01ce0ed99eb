/* rl_slot.h - process slots: who is in the session, and giving back what a process held.
 *
 * INVARIANTS
 *   S1  state == LIVE <=> a process owns the slot; its pid and start_time are set before.
 *   S2  bit i of `idle` only if slot i is LIVE, a worker, and runs no task.
 *   S3  a FREE slot has no holder bit in any object, no FILLING block and no CLAIMED task.
 * CRASHES   claim: COMMIT is state = LIVE. release: state = DYING, then every step gives back one
 *           thing by its own commit, then COMMIT state = FREE. A janitor killed in between leaves
 *           DYING: releasing the slot again finishes the work.
 */
#ifndef RL_SLOT_H
#define RL_SLOT_H

#include "rl_session.h"

/* Claim a free slot for this process; sets s->slot. */
int rl_slot_claim(rl_session *s, uint32_t role);

/* The janitor: give back everything that slot `index` held, then free it.
 *
 * Call it when the process is dead (and its children, which may still read its views), or from the
 * process itself as it leaves. Its holder bits are cleared, its FILLING blocks freed, its claimed
 * tasks become STRANDED for the supervisor to decide about. Rings everybody: a waker may have been
 * killed between its store and its wake. Harmless on a slot that is free already. */
int rl_slot_release(rl_session *s, uint32_t index);

/* LIVE slot of process `pid`, or RL_NIL. */
uint32_t rl_slot_find(const rl_session *s, uint32_t pid);

/* Start time of process `pid` in clock ticks after boot, or 0 when there is no such process. */
uint64_t rl_process_start_time(uint32_t pid);

/* Take slot `i` out of the idle set and have it rung when the section ends. */
void rl_slot_ring(rl_section *section, uint32_t i);

/* Have threads of slot `i` rung that wait for a call (rl_callbell_ring). */
void rl_slot_ring_call(rl_section *section, uint32_t i, uint32_t groups);

/* Ring one idle worker, if there is one; returns 1 if so. */
int rl_slot_ring_idle(rl_section *section);

#endif
