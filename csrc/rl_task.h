/* rl_task.h - tasks, what they wait for, the queues, and who may run what now.
 *
 * LIFE       submit -> WAITING (for dependencies) -> READY -> CLAIMED by a worker -> freed.
 *            CLAIMED -> STRANDED when its worker dies or asks for a retry, WAITING or READY ->
 *            STRANDED when it is cancelled or the actor that it calls has died; the supervisor then
 *            makes it READY again (attempt + 1) or fails it. Whether a retry is due is the
 *            scheduler's judgement (ray_lite/scheduler.py), not the core's.
 * CALLS      of an actor (rl_actor.h) wait in its mailbox, not in a queue, want no resources, and
 *            many may be CLAIMED by the actor's process at once.
 * INVARIANTS
 *   T1  A live task (neither FREE nor FREEING) names its function, args, refs and returns, and the
 *       actor that it calls.
 *   T2  `missing` == how many of refs[0..ndeps) are not sealed; WAITING <=> missing > 0 (derived).
 *   T3  Each READY task that is no call is in the queue of its class, in the order in which they
 *       became ready, those to be run again first (derived; after a repair in the order of `seq`).
 *   T4  available == total - sum of the demands of CLAIMED tasks, without the CPUs of those whose
 *       worker is blocked (derived). What a driver runs itself holds nothing.
 *   T5  A slot has at most one CLAIMED task, calls apart; a driver's may have any number.
 *   T6  occupied == number of CLAIMED tasks, calls and drivers' apart; workers == number of live
 *       worker slots (derived).
 * LOCAL MODE A driver may claim what it submits (`claimed` of rl_spec) and run it itself.
 * FAIRNESS   The oldest head that fits runs. One that lacks only CPUs and has been passed over
 *            RL_PATIENCE times has the CPUs kept free for it for up to RL_RESERVE_NS: small tasks
 *            do not starve one that wants many. Tasks of tasks run all the same, and after that time
 *            the counting starts again, so nothing waits for ever on a task that never ends.
 * CRASHES    submit: return objects PENDING, lists, then COMMIT state = WAITING or READY; before
 *            it the return objects have no producer, and rebuild frees them.
 *            claim: COMMIT state = CLAIMED | slot.
 *            finish: COMMIT state = FREEING, then names are dropped, generation raised, COMMIT
 *            state = FREE; rebuild finishes it.
 *            A worker killed after the seal and before the finish has left a stranded task all of
 *            whose returns are sealed: the supervisor finishes it, nothing runs twice.
 */
#ifndef RL_TASK_H
#define RL_TASK_H

#include "rl_actor.h"
#include "rl_object.h"

enum { RL_PATIENCE = 64 };
#define RL_RESERVE_NS INT64_C(10000000000)

typedef struct rl_spec {
    const char *name; /* UTF-8, cut to RL_TASK_NAME - 1 bytes */
    rl_handle function;
    uint32_t class_; /* from rl_class_intern() */
    uint32_t nreturns;
    const rl_handle *refs; /* held by the caller; the first ndeps must be sealed before it runs */
    uint32_t nrefs;
    uint32_t ndeps;
    uint32_t kind;   /* of the arguments */
    uint32_t nbytes; /* inline arguments, <= RL_TASK_INLINE; else `args` */
    const void *bytes;
    rl_handle args; /* object with the arguments; index RL_NIL: inline */
    int32_t max_retries;
    uint32_t options;
    uint32_t streams;           /* 1: it fills a stream too */
    uint32_t stream_limit;      /* most untaken items before it is to pause; 0 = any number */
    const rl_actor_spec *makes; /* it is an actor; NULL: it is none */
    const rl_handle *actor;     /* it calls this one, whose object the caller holds; NULL: none */
    uint32_t group;             /* of the actor's threads that are to run the call */
    const rl_handle *parent;    /* task of this process that submits it; NULL: the one of the thread
                                   that takes tasks, if it is that which submits */
    struct rl_job *claimed; /* not NULL: this process runs it at once, if nothing is before it */
} rl_spec;

/* What a worker needs to know about the task that it took. */
typedef struct rl_job {
    rl_handle task;
    rl_handle function; /* not held: the task keeps it alive until rl_task_finish() */
    rl_handle args;     /* index RL_NIL: the arguments are in `bytes` */
    rl_handle stream;   /* index RL_NIL: it fills none */
    rl_handle actor;    /* object of the actor that it calls; index RL_NIL: it calls none */
    uint32_t attempt, nreturns, nrefs, ndeps, kind, nbytes, options;
    uint32_t stranded, cancel; /* RL_TASK_RAISED ..., RL_CANCEL ... */
    uint32_t class_;
    uint32_t is_actor, kill; /* 1: it is an actor; how that is to be killed, RL_KILL ... */
    int32_t max_retries;
    char name[RL_TASK_NAME];
    uint8_t bytes[RL_TASK_INLINE];
} rl_job;

/* The class of tasks that want `demand` (units of RL_RESOURCE_UNIT for each resource). */
int rl_class_intern(rl_session *s, const int64_t demand[RL_MAX_RESOURCES], uint32_t *out);

/* Index of the resource called `name`; made, with total 0, if it is new. */
int rl_resource_intern(rl_session *s, const char *name, uint32_t *out);
int rl_resource_set_total(rl_session *s, uint32_t resource, int64_t total);

/* Submit a task. returns[0..nreturns) are its return objects, each held once by the caller; so is
 * *outlet, the reading end of its stream, if the task fills one (else it may be NULL).
 *
 * With `claimed`, the task is this process's as if taken, and described there; if it has to wait for
 * an object, or for older calls of an ORDERED actor, or has stranded, `claimed->task.index` is RL_NIL.
 *
 * One that makes an actor has one return. EEXIST: the actor's name is taken. EBUSY: the caller has as
 * many calls of the actor live as its `most_calls`. A call of a dead actor is accepted, for the
 * supervisor to fail. */
int rl_task_submit(rl_session *s, const rl_spec *spec, rl_handle *returns, rl_handle *outlet);

/* Worker: take the oldest task that may run now, or sleep until there is one. Returns 0,
 * RL_ETIMEDOUT (at `deadline_ns`; RL_NO_WAIT: there is none, and it has entered the idle set),
 * EINTR, RL_EDEAD, RL_EAGAIN (the supervisor wants this worker to end; it has left the idle set). */
int rl_task_take(rl_session *s, int64_t deadline_ns, rl_job *out);

/* Actor: the next call for the threads of `group`, or sleep until there is one. Returns 0,
 * RL_ETIMEDOUT (RL_NO_WAIT: there is none), EINTR, RL_EDEAD, RL_EEND (nobody can call the actor any
 * more), RL_ESTALE (it is over, or another process's). */
int rl_task_take_call(rl_session *s, rl_handle actor, uint32_t group, int64_t deadline_ns,
                      rl_job *out);

/* Cancel the task that fills a held object or stream, and with `recursive` every task that it has
 * submitted, and so on; `force`: have its worker killed. Nothing happens to a task that is over.
 * RL_EINVAL: `force` for a call. */
int rl_task_cancel(rl_session *s, rl_handle h, int force, int recursive);

/* Is a task of this process to end? 1 if somebody cancelled it. */
int rl_task_is_cancelled(const rl_session *s, rl_handle task);

/* A task of this process is not to be run again: it has taken something that will not be there
 * then. */
void rl_task_run_once(rl_session *s, rl_handle task);
int rl_task_is_run_once(const rl_session *s, rl_handle task);

/* Supervisor: forget the word that there are orders; then the next process that is to be told of a
 * cancelled task, or killed with it or for its actor (`*kill`), from index *cursor on. RL_EAGAIN at
 * the end. A killed actor that no process has is stranded. */
int rl_task_next_order(rl_session *s, uint32_t *cursor, uint32_t *slot, int *kill);

/* Worker: handles of the task's return objects and of its refs (not held: the task names them).
 * The supervisor may ask for the returns of a stranded task. */
int rl_task_returns(rl_session *s, rl_handle task, rl_handle *out, uint32_t n);
int rl_task_refs(rl_session *s, rl_handle task, rl_handle *out, uint32_t n);

/* Worker: store a return value; it becomes visible at once. RL_ESTALE if this process does not run
 * the task; EEXIST if an earlier attempt has stored that value already (nothing is changed then). */
int rl_task_return(rl_session *s, rl_handle task, rl_handle object, const rl_value *value);

/* What an earlier attempt stored: 1 and its fingerprint if the return object is sealed, else 0. */
int rl_task_returned(rl_session *s, rl_handle object, uint64_t *fingerprint);

/* Worker: the task is done, all its returns are sealed. With `value`, first store it in `object`:
 * one section for the common case of one value. */
int rl_task_finish(rl_session *s, rl_handle task, rl_handle object, const rl_value *value);

/* Worker: give the task to the supervisor, to be run again (an exception that is to be retried). */
int rl_task_strand(rl_session *s, rl_handle task);

/* Driver: run a claimed task again, oneself. */
int rl_task_repeat(rl_session *s, rl_handle task);

/* Supervisor: the next stranded task, from index *cursor on; RL_EAGAIN at the end. `*open` is how
 * many of its returns are not sealed. */
int rl_task_next_stranded(rl_session *s, uint32_t *cursor, rl_job *out, uint32_t *open);
int rl_task_requeue(rl_session *s, rl_handle task);
/* Supervisor (of a stranded task) or worker (of its own): seal the returns that are still open with
 * `values`, one for each and in their order, then finish. */
int rl_task_conclude(rl_session *s, rl_handle task, const rl_value *values, uint32_t nvalues);

/* Supervisor: what the scheduler has to know. */
typedef struct rl_load {
    uint32_t ready;    /* queued tasks */
    uint32_t runnable; /* 1: the head of some queue may run now */
    uint32_t workers;  /* live */
    uint32_t idle;     /* workers that have no task */
    uint32_t blocked;  /* workers whose task waits */
    uint32_t actors;   /* workers that are actors */
    uint32_t stranded;
    uint32_t reports;
    uint32_t infeasible; /* a class with queued tasks that want more than there is, or RL_NIL */
    int64_t infeasible_demand[RL_MAX_RESOURCES]; /* what it wants */
    char infeasible_task[RL_TASK_NAME];          /* the name of its oldest task */
} rl_load;
int rl_task_load(rl_session *s, rl_load *out);
int rl_worker_dismiss(rl_session *s, uint32_t slot);

/* This thread goes to sleep: if it runs a task, lend the task's CPU. Returns 1 if so, and then must
 * be followed by rl_task_unblock(). Other threads of a task's process lend nothing, nor does an
 * actor that waits for calls. */
int rl_task_block(rl_session *s);
void rl_task_unblock(rl_session *s);

/* ---- for the other modules, inside a section ---- */

/* Slot of the worker that runs `task` (an index, or RL_NIL), or RL_NIL. */
uint32_t rl_task_worker(const rl_mapping *m, uint32_t task);
/* Does somebody wait for the first return of a live task? */
int rl_task_is_awaited(const rl_mapping *m, uint32_t task);
/* Does a driver run the task itself, which it has submitted? */
int rl_task_runs_at_home(const rl_mapping *m, uint32_t task);
/* Stream of `task` (an index, or RL_NIL), or RL_NIL; also without the lock, and then maybe that of
 * another task which has the record now. */
uint32_t rl_task_fills(const rl_mapping *m, uint32_t task);
/* Stream of a task that this process runs, or RL_NIL. */
uint32_t rl_task_stream(const rl_session *s, rl_handle task);
int rl_task_has_stream(const rl_mapping *m, uint32_t task, uint32_t stream);
int rl_task_produces(const rl_mapping *m, uint32_t task, uint32_t object);
/* Nobody can reach the object that only `task` names now. */
void rl_task_unreachable(rl_section *section, uint32_t task);
void rl_task_dependency_sealed(rl_section *section, uint32_t object);
void rl_task_strand_claims(rl_section *section, uint32_t slot);
/* Make READY what waits although all is sealed (a sealer died before it counted down). */
void rl_task_recheck_waiting(rl_section *section);

/* Are the authoritative fields of every live task in range? 0 or RL_ECORRUPT. */
int rl_task_validate(const rl_mapping *m);
void rl_task_rebuild_names(rl_mapping *m);
void rl_task_rebuild_end(rl_section *section);

const char *rl_task_check(const rl_mapping *m);

#endif
