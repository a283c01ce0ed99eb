/* rl_actor.h - actors: mailboxes, names, and who may still call.
 *
 * An actor is a task that does not end by itself (rl_task.h): a worker claims it like any other,
 * makes the instance and from then on takes calls out of its mailbox. So it holds its resources for
 * as long as it lives, strands when its process dies, and is restarted by being requeued. Its one
 * return object stands for it: PENDING while it lives, sealed with the reason of its death.
 *
 * INVARIANTS
 *   A1  A record is in use <=> a live task has it as `mailbox`; `task` is that task (derived).
 *   A2  The mailbox holds the calls that are WAITING or READY, in the order of submission (derived).
 *   A3  calls == live calls of the actor's object, whatever their state (derived); calls_of[k] of
 *       them were submitted from slot k, by whoever had it then.
 *   A4  untaken == items in the streams of its calls, also of calls that are over (derived).
 *   A5  No two actors in use have the same name in the same namespace, but "".
 * ORDER      Of an ORDERED actor, a call runs when no older call of the same submitter waits for an
 *            object; callers do not hold up each other. Otherwise the oldest READY call runs.
 * THE END    Once only the actor's own task names its object, nobody holds it and there are no calls
 *            left, taking a call says RL_EEND, unless the actor is DETACHED.
 * CRASHES    Nothing of its own: the record is written before the COMMIT of its task's submit, and
 *            free as soon as that task is.
 */
#ifndef RL_ACTOR_H
#define RL_ACTOR_H

#include "rl_session.h"

typedef struct rl_actor_spec {
    const char *name; /* UTF-8, shorter than RL_ACTOR_NAME; "" = none */
    const char *space;
    uint32_t flags;        /* RL_ACTOR_* */
    uint32_t most_calls;   /* 0: any number */
    uint32_t most_untaken; /* items of all its streams; 0: any number */
} rl_actor_spec;

/* The actor called `name`: its object and its exported class, both then held by the caller.
 * RL_ESTALE if there is none. */
int rl_actor_find(rl_session *s, const char *space, const char *name, rl_handle *actor,
                  rl_handle *function);

/* Names of the actors in use, from index *cursor on; RL_EAGAIN at the end. */
int rl_actor_next_name(rl_session *s, uint32_t *cursor, char space[RL_ACTOR_NAME],
                       char name[RL_ACTOR_NAME]);

/* Have the supervisor kill the process of a held actor; `kill`: RL_KILL ... . With
 * RL_KILL_FOR_EVER its name is free at once. RL_ESTALE if it is dead already. */
int rl_actor_kill(rl_session *s, rl_handle actor, uint32_t kill);

/* ---- for the other modules, inside a section ---- */

/* May an actor with this name be made? 0, EEXIST, RL_EINVAL or RL_ETABLE. */
int rl_actor_check_spec(const rl_mapping *m, const rl_actor_spec *spec);
uint32_t rl_actor_make(rl_mapping *m, uint32_t task, const rl_actor_spec *spec);
/* Its task is over, its mailbox empty. */
void rl_actor_free(rl_mapping *m, uint32_t actor);
/* The live actor whose object is `object`, or RL_NIL. */
uint32_t rl_actor_of(const rl_mapping *m, uint32_t object);
/* Count a call of `submitter` that is live from now on (n = 1), or until now (n = -1). */
void rl_actor_count(rl_mapping *m, uint32_t actor, uint32_t submitter, int n);
/* Has `submitter` as many calls live as it may have? */
int rl_actor_is_full(const rl_mapping *m, uint32_t actor, uint32_t submitter);
/* Put a call into the mailbox, by its place in the order of submission; or take it out. */
void rl_mailbox_add(rl_mapping *m, uint32_t actor, uint32_t call);
void rl_mailbox_remove(rl_mapping *m, uint32_t actor, uint32_t call);
/* The call that the threads of `group` are to run next, or RL_NIL. */
uint32_t rl_mailbox_choose(const rl_mapping *m, uint32_t actor, uint32_t group);
/* Ring the actor's process. */
void rl_actor_ring(rl_section *section, uint32_t actor);
/* Ring a thread of `group` that waits for a call: there may be one. */
void rl_actor_ring_group(rl_section *section, uint32_t actor, uint32_t group);
/* Ring all threads that wait for a call: nobody can reach the actor any more. */
void rl_actor_ring_over(rl_section *section, uint32_t actor);
/* Can nobody call it any more, now or later? */
int rl_actor_is_over(const rl_mapping *m, uint32_t actor);

/* Rebuild, part of rl_repair(): forget all; then the tasks call rl_actor_rebuild_use() and
 * rl_mailbox_add(); then collect. */
void rl_actor_rebuild_begin(rl_mapping *m);
void rl_actor_rebuild_use(rl_mapping *m, uint32_t actor, uint32_t task);
void rl_actor_rebuild_end(rl_mapping *m);

const char *rl_actor_check(const rl_mapping *m);

#endif
