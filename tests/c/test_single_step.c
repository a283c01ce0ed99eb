/* test_single_step.c - a process is killed after each single instruction of each operation.
 *
 * A child is traced: it runs up to the operation, then k single steps into it, and is killed there,
 * for k = 1, 2, 3, ... until the operation ends before. Then the parent gives back what the child
 * held and finds the session as it was. Kill points stand where we think that it matters; this test
 * does not think.
 *
 * COST       Stepping to each instruction anew is quadratic, so a long operation is sampled: every
 *            `stride`-th instruction, from an offset that moves on, so that all are met in the end
 *            when the whole is repeated (argument 1: how often; argument 2: the first offset).
 */
#include "harness.h"

#include <sys/mman.h>
#include <sys/ptrace.h>

enum { OUTSIDE, INSIDE, PAST };
enum { NRETURNS = 2, STEPS_AN_OPERATION = SANITIZED ? 40000 : 150000 };

typedef struct scene {
    rig r;
    rl_session child;     /* joined by the child before it is stepped */
    rl_handle object;     /* of the parent */
    rl_handle returns[NRETURNS];
    rl_handle mine;       /* of the child */
    rl_job job;
    uint32_t block;
    _Atomic int *phase;   /* shared with the child: is it inside the operation? */
    uint64_t free_bytes;  /* while nobody but the parent is there */
    uint64_t objects;
} scene;

/* ---- operations: what comes before, unstepped, and the operation itself ---- */

typedef struct operation {
    const char *name;
    void (*before)(scene *);
    void (*run)(scene *);
} operation;

static void join(scene *sc)
{
    CHECK_EQ(rl_session_join(&sc->child, &sc->r.map, RL_ROLE_WORKER, -1, -1), 0);
}

static void leave(scene *sc)
{
    CHECK_EQ(rl_session_leave(&sc->child), 0);
}

static void fill_and_put(scene *sc)
{
    uint32_t block;
    CHECK_EQ(rl_arena_fill(&sc->child, 1000, &block), 0);
    rl_handle refs[2] = {sc->object, sc->object};
    rl_value v = {.block = block, .nbytes = 1000, .refs = refs, .nrefs = 2};
    CHECK_EQ(rl_object_put(&sc->child, &v, &sc->mine), 0);
}

static void fill(scene *sc)
{
    join(sc);
    CHECK_EQ(rl_arena_fill(&sc->child, 1000, &sc->block), 0);
}

static void abandon(scene *sc)
{
    CHECK_EQ(rl_arena_abandon(&sc->child, sc->block), 0);
}

static void put_two(scene *sc)
{
    rl_handle inner;
    join(sc);
    CHECK_EQ(value_put(&sc->child, 100, 3, &sc->object, 1, &inner), 0);
    CHECK_EQ(value_put(&sc->child, 100, 4, &inner, 1, &sc->mine), 0);
    rl_object_release(&sc->child, inner);
}

static void release_mine(scene *sc)
{
    rl_object_release(&sc->child, sc->mine);
}

static void find_and_hold(scene *sc)
{
    CHECK_EQ(rl_object_find(&sc->child, sc->object), 0);
    rl_object_hold(&sc->child, sc->object);
    rl_object_release(&sc->child, sc->object);
    rl_object_release(&sc->child, sc->object);
}

static void hold_by_name(scene *sc)
{
    rl_handle inner;
    CHECK_EQ(rl_object_read_refs(&sc->child, sc->mine, &inner, 1), 0);
    rl_object_release(&sc->child, inner);
}

static void submit(scene *sc)
{
    rl_handle returns[NRETURNS];
    rl_spec spec = rig_spec(&sc->r, NRETURNS, sc->returns, NRETURNS);
    CHECK_EQ(rl_task_submit(&sc->child, &spec, returns), 0);
}

static void find_returns(scene *sc)
{
    join(sc);
    for (int k = 0; k < NRETURNS; k++) CHECK_EQ(rl_object_find(&sc->child, sc->returns[k]), 0);
}

static void take(scene *sc)
{
    CHECK_EQ(rl_task_take(&sc->child, 0, &sc->job), 0);
}

static void join_and_take(scene *sc)
{
    join(sc);
    take(sc);
}

static void take_and_submit(scene *sc)
{
    find_returns(sc);
    take(sc);
    submit(sc);
}

static void return_one(scene *sc)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    CHECK_EQ(value_make(&sc->child, 100, 8, bytes, &v), 0);
    CHECK_EQ(rl_task_return(&sc->child, sc->job.task, sc->returns[0], &v), 0);
}

static void return_first(scene *sc)
{
    join_and_take(sc);
    return_one(sc);
}

static void finish(scene *sc)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    CHECK_EQ(value_make(&sc->child, 8, 9, bytes, &v), 0);
    CHECK_EQ(rl_task_finish(&sc->child, sc->job.task, sc->returns[1], &v), 0);
}

static void strand(scene *sc)
{
    CHECK_EQ(rl_task_strand(&sc->child, sc->job.task), 0);
}

static void block_and_unblock(scene *sc)
{
    CHECK_EQ(rl_task_block(&sc->child), 1);
    rl_task_unblock(&sc->child);
}

static const operation operations[] = {
    {"join", NULL, join},
    {"leave", put_two, leave},
    {"fill and put", join, fill_and_put},
    {"abandon", fill, abandon},
    {"release", put_two, release_mine},
    {"find, hold, release", join, find_and_hold},
    {"hold by name, release", put_two, hold_by_name},
    {"submit", find_returns, submit},
    {"take", join, take},
    {"return", take_and_submit, return_one},
    {"finish", return_first, finish},
    {"strand", join_and_take, strand},
    {"block, unblock", join_and_take, block_and_unblock},
};

/* ---- the scene ---- */

static void scene_make(scene *sc)
{
    rig_make(&sc->r);
    CHECK_EQ(value_put(&sc->r.s, 500, 3, NULL, 0, &sc->object), 0);
    sc->free_bytes = free_bytes(&sc->r.s);
    sc->objects = sc->r.map.control->objects_live;
    rl_spec spec = rig_spec(&sc->r, NRETURNS, &sc->object, 1);
    CHECK_EQ(rl_task_submit(&sc->r.s, &spec, sc->returns), 0);
    atomic_store(sc->phase, OUTSIDE);
}

static void finish_all_tasks(rl_session *s)
{
    rl_job job;
    uint32_t cursor = 0, open;
    int raised;
    while (rl_task_next_stranded(s, &cursor, &job, &open, &raised) == 0) {
        CHECK_EQ(rl_task_requeue(s, job.task), 0);
    }
    while (rl_task_take(s, 0, &job) == 0) {
        rl_handle returns[NRETURNS];
        rl_value v = {.block = RL_NIL};
        CHECK_EQ(rl_task_returns(s, job.task, returns, NRETURNS), 0);
        for (int k = 0; k < NRETURNS; k++) {
            int err = rl_task_return(s, job.task, returns[k], &v);
            CHECK(err == 0 || err == EEXIST);
        }
        CHECK_EQ(rl_task_finish(s, job.task, (rl_handle){.index = RL_NIL}, NULL), 0);
    }
}

/* The child is dead. Nothing may be left of it. */
static void scene_end(scene *sc, pid_t child)
{
    rl_session *s = &sc->r.s;
    uint32_t slot = rl_slot_find(s, (uint32_t)child);
    if (slot != RL_NIL) CHECK_EQ(rl_slot_release(s, slot), 0);
    CHECK_CLEAN(s);
    finish_all_tasks(s);
    for (int k = 0; k < NRETURNS; k++) {
        rl_payload p;
        CHECK_EQ(rl_object_read(s, sc->returns[k], &p), 0);
        CHECK(payload_is_whole(&p));
        rl_object_release(s, sc->returns[k]);
    }
    CHECK_EQ(sc->r.map.control->tasks_live, 0);
    CHECK_EQ(sc->r.map.control->objects_live, sc->objects);
    CHECK_EQ(free_bytes(s), sc->free_bytes);
    rl_object_release(s, sc->object);
    rig_check_empty(&sc->r);
    rig_drop(&sc->r);
}

/* ---- stepping ---- */

static const operation *to_run;

static int child_main(void *argument)
{
    scene *sc = argument;
    if (to_run->before) to_run->before(sc);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) return EXIT_NOT_HERE;
    raise(SIGSTOP);
    atomic_store(sc->phase, INSIDE);
    to_run->run(sc);
    atomic_store(sc->phase, PAST);
    return 0;
}

/* Let the traced child make one step; returns 0 when it has ended instead. */
static int step(pid_t pid)
{
    int status;
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL)) FAIL("ptrace: %s", strerror(errno));
    if (waitpid(pid, &status, 0) != pid) FAIL("waitpid: %s", strerror(errno));
    return WIFSTOPPED(status);
}

/* Run the child k steps into the operation and kill it; returns how many of them it made. */
static unsigned kill_after(scene *sc, unsigned k, pid_t *pid)
{
    int status;
    *pid = spawn(child_main, sc);
    if (waitpid(*pid, &status, 0) != *pid) FAIL("waitpid: %s", strerror(errno));
    if (WIFEXITED(status)) {
        if (WEXITSTATUS(status) != EXIT_NOT_HERE) FAIL("the child ended before its operation");
        fprintf(stderr, "ptrace is not permitted here\n");
        exit(EXIT_NOT_HERE);
    }
    unsigned made = 0;
    int alive = 1;
    while (alive && atomic_load(sc->phase) == OUTSIDE) alive = step(*pid);
    while (alive && made < k && atomic_load(sc->phase) == INSIDE) {
        alive = step(*pid);
        made++;
    }
    kill(*pid, SIGKILL);
    reap(*pid);
    return made;
}

/* How long is the operation? */
static unsigned measure(scene *sc)
{
    pid_t pid;
    scene_make(sc);
    unsigned length = kill_after(sc, UINT32_MAX, &pid);
    if (atomic_load(sc->phase) != PAST) FAIL("%s: the operation did not end", to_run->name);
    scene_end(sc, pid);
    return length;
}

static void kill_in_operation(scene *sc, unsigned offset)
{
    unsigned length = measure(sc);
    unsigned stride = (unsigned)((uint64_t)length * length / 2 / STEPS_AN_OPERATION) + 1;
    unsigned points = 0;
    for (unsigned k = offset % stride; k <= length; k += stride) {
        pid_t pid;
        scene_make(sc);
        kill_after(sc, k, &pid);
        scene_end(sc, pid);
        points++;
    }
    printf("    %-24s %5u instructions, killed at %u of them\n", to_run->name, length, points);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    unsigned first = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    static scene sc;
    sc.phase = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(sc.phase != MAP_FAILED);
    for (unsigned offset = first; offset < first + rounds; offset++) {
        for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
            to_run = &operations[i];
            kill_in_operation(&sc, offset);
        }
    }
    return 0;
}
