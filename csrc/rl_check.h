/* rl_check.h - the invariants of every module, checked from outside. For tests, debug builds and
 * operators: a scan of all tables under the lock. */
#ifndef RL_CHECK_H
#define RL_CHECK_H

#include "rl_session.h"

/* *broken = NULL if every invariant holds, else which one does not. */
int rl_check(rl_session *s, const char **broken);

#endif
