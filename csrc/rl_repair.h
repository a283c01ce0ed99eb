/* rl_repair.h - what the next owner of the lock does when the last one was killed inside.
 *
 * Every derived field of every module is computed anew from the authoritative ones, and every
 * operation that had passed its COMMIT is finished. Bounded by the tables' high-water marks; no
 * memory is allocated. May be killed at any instruction and started again.
 */
#ifndef RL_REPAIR_H
#define RL_REPAIR_H

#include "rl_session.h"

/* Inside the lock. Returns 0, or RL_ECORRUPT if the authoritative fields contradict each other. */
int rl_repair(rl_session *s);

#endif
