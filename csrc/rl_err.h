/* rl_err.h - return codes of the core.
 *
 * Every function that can fail returns int: 0 for success, > 0 an errno value, < 0 one of the
 * codes below. Programming errors are RL_ASSERT, never a return code. On failure nothing is
 * written through an out-pointer. ray_lite/exceptions.py has the same table for Python.
 */
#ifndef RL_ERR_H
#define RL_ERR_H

#include <assert.h>

enum {
    RL_EFULL = -1,     /* no free extent of the data segment is large enough now */
    RL_ETIMEDOUT = -2, /* the deadline passed */
    RL_ESTALE = -3,    /* the handle's object, task or stream no longer exists */
    RL_ECORRUPT = -4,  /* repair found nonsense: the session is poisoned */
    RL_EDEAD = -5,     /* the session has ended: its supervisor is gone */
    RL_EINVAL = -6,    /* an argument out of range */
    RL_ENOSLOT = -7,   /* all process slots are taken */
    RL_ETABLE = -8,    /* a table of the control segment is full */
    RL_ELAYOUT = -9,   /* the segment was made by another version */
    RL_EAGAIN = -10,   /* nothing to do now */
    RL_EEND = -11,     /* the stream has ended */
};

#define RL_ASSERT(cond) assert(cond)

#endif
