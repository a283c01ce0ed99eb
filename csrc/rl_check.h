/* rl_check.h - the invariants of every module, checked from outside. For tests, debug builds and
 * operators: a scan of all tables under the lock. */
#ifndef RL_CHECK_H
#define RL_CHECK_H

#include "rl_session.h"

/* Inside a section: which invariant of the arena, the objects, the tasks or the streams does not
 * hold, or NULL. Debug builds (RL_CHECKS) ask now and then before they unlock. */
const char *rl_check_modules(const rl_mapping *m);

/* *broken = NULL if every invariant holds, else which one does not. */
int rl_check(rl_session *s, const char **broken);

#endif
