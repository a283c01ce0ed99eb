/* test_single_step.c - a process is killed after each single instruction of each operation.
 *
 * A child is traced: it is stopped k instructions into the operation and killed there, for k = 0, 1,
 * 2, ... until the operation ends before. Then the parent gives back what the child held and finds
 * the session as it was. Kill points stand where we think that it matters; this test does not think.
 *
 * METHOD     Each operation is single-stepped once, to learn its path. To stop at step k again, the
 *            child runs to a breakpoint there, as often as the path has passed that address before;
 *            fork gives every child the same addresses. (Where we know no breakpoint instruction,
 *            the child is stepped all the way.)
 * COST       By default a long operation is sampled evenly. Argument 1: most points an operation.
 */
#include "harness.h"

#include "rl_private.h"

#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

enum { OUTSIDE, INSIDE, PAST };
enum { NRETURNS = 2, MOST_STEPS = 1 << 17, POINTS = SANITIZED ? 60 : 250 };

typedef struct scene {
    rig r;
    rl_session child; /* joined by the child before it is stepped */
    rl_handle object; /* of the parent */
    rl_handle returns[NRETURNS];
    rl_handle mine;         /* of the child */
    rl_private_table table; /* of the child */
    rl_job job;
    uint32_t block;
    _Atomic int *phase;  /* shared with the child: is it inside the operation? */
    uint64_t free_bytes; /* while nobody but the parent is there */
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

/* An array that a worker computes, stores where it is, and drops. */
static void compute(scene *sc)
{
    join(sc);
    CHECK_EQ(rl_private_open(&sc->table, &sc->child), 0);
}

static void compute_and_free(scene *sc)
{
    void *memory = rl_private_alloc(&sc->table, 1000, 0);
    CHECK(memory != NULL);
    CHECK_EQ(rl_private_free(&sc->table, memory), 1);
}

static void seal_in_place(scene *sc)
{
    rl_handle refs[2] = {sc->object, sc->object}, kept;
    void *memory = rl_private_alloc(&sc->table, 1000, 0);
    CHECK(memory != NULL);
    rl_value v = {.block = rl_private_block(&sc->table, memory, 0),
                  .nbytes = RL_HEAD_ROOM + 1000,
                  .refs = refs,
                  .nrefs = 2,
                  .counts_as = RL_IN_PLACE,
                  .kept = &kept};
    CHECK_EQ(rl_object_put(&sc->child, &v, &sc->mine), 0);
    rl_private_sealed(&sc->table, memory, kept);
    rl_object_release(&sc->child, sc->mine);
    CHECK_EQ(rl_private_free(&sc->table, memory), 1);
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
    rl_handle h;
    CHECK_EQ(rl_object_find(&sc->child, sc->object.gen, 0, &h), 0);
    rl_object_hold(&sc->child, h);
    rl_object_release(&sc->child, h);
    rl_object_release(&sc->child, h);
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
    CHECK_EQ(rl_task_submit(&sc->child, &spec, returns, NULL), 0);
}

static void find_returns(scene *sc)
{
    join(sc);
    for (uint32_t k = 0; k < NRETURNS; k++) {
        rl_handle h;
        CHECK_EQ(rl_object_find(&sc->child, sc->returns[k].gen, k + 1, &h), 0);
        CHECK_EQ(h.index, sc->returns[k].index);
    }
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

static void append(scene *sc)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    CHECK_EQ(value_make(&sc->child, 200, 5, bytes, &v), 0);
    CHECK_EQ(rl_stream_append(&sc->child, sc->job.task, &v), 0);
}

/* The child submits a task with a stream, and takes it after the one of the parent. */
static void submit_stream(scene *sc)
{
    rl_handle returns[NRETURNS];
    rl_spec spec = rig_spec(&sc->r, NRETURNS, NULL, 0);
    spec.streams = 1;
    spec.max_retries = 1;
    join(sc);
    CHECK_EQ(rl_task_submit(&sc->child, &spec, returns, &sc->mine), 0);
    take(sc);
    strand(sc);
    take(sc);
}

static void append_once(scene *sc)
{
    submit_stream(sc);
    append(sc);
}

static void next_item(scene *sc)
{
    rl_handle stream, item;
    CHECK_EQ(rl_stream_of(&sc->child, sc->mine, &stream), 0);
    CHECK_EQ(rl_stream_next(&sc->child, stream, NULL, &item), 0);
    rl_object_release(&sc->child, item);
}

static void release_stream(scene *sc)
{
    rl_object_release(&sc->child, sc->mine);
}

static const operation operations[] = {
    {"join", NULL, join},
    {"leave", put_two, leave},
    {"fill and put", join, fill_and_put},
    {"abandon", fill, abandon},
    {"compute and free", compute, compute_and_free},
    {"seal in place", compute, seal_in_place},
    {"release", put_two, release_mine},
    {"find, hold, release", join, find_and_hold},
    {"hold by name, release", put_two, hold_by_name},
    {"submit", find_returns, submit},
    {"take", join, take},
    {"return", take_and_submit, return_one},
    {"finish", return_first, finish},
    {"strand", join_and_take, strand},
    {"block, unblock", join_and_take, block_and_unblock},
    {"append to a stream", submit_stream, append},
    {"next of a stream", append_once, next_item},
    {"release of a stream", append_once, release_stream},
};

/* ---- the scene ---- */

static void scene_make(scene *sc)
{
    rig_make(&sc->r);
    CHECK_EQ(value_put(&sc->r.s, 500, 3, NULL, 0, &sc->object), 0);
    sc->free_bytes = free_bytes(&sc->r.s);
    sc->objects = sc->r.map.control->objects_live;
    rl_spec spec = rig_spec(&sc->r, NRETURNS, &sc->object, 1);
    CHECK_EQ(rl_task_submit(&sc->r.s, &spec, sc->returns, NULL), 0);
    atomic_store(sc->phase, OUTSIDE);
}

static void finish_all_tasks(rl_session *s)
{
    rl_job job;
    uint32_t cursor = 0, open;
    while (rl_task_next_stranded(s, &cursor, &job, &open) == 0) {
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

/* ---- the traced child ---- */

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

/* Start a child and let it come to where the operation begins. */
static pid_t start(scene *sc)
{
    int status;
    scene_make(sc);
    pid_t pid = spawn(child_main, sc);
    if (waitpid(pid, &status, 0) != pid) FAIL("waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_HERE) {
        fprintf(stderr, "ptrace is not permitted here\n");
        exit(EXIT_NOT_HERE);
    }
    if (!WIFSTOPPED(status)) FAIL("%s: the child ended before its operation", to_run->name);
    return pid;
}

/* Let the child go on by a step or to a breakpoint; returns 0 when it has ended instead. */
static int resume(pid_t pid, int single)
{
    int status;
    long err =
        single ? ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) : ptrace(PTRACE_CONT, pid, NULL, NULL);
    if (err) FAIL("ptrace: %s", strerror(errno));
    if (waitpid(pid, &status, 0) != pid) FAIL("waitpid: %s", strerror(errno));
    if (WIFSTOPPED(status) && WSTOPSIG(status) != SIGTRAP) {
        FAIL("%s: the child got signal %d", to_run->name, WSTOPSIG(status));
    }
    return WIFSTOPPED(status);
}

#if defined(__x86_64__)

static uint64_t address_of(pid_t pid)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), NULL);
}

static long set_breakpoint(pid_t pid, uint64_t address)
{
    errno = 0;
    long code = ptrace(PTRACE_PEEKTEXT, pid, address, NULL);
    if (errno == 0) ptrace(PTRACE_POKETEXT, pid, address, (code & ~0xffL) | 0xcc);
    if (errno) FAIL("no breakpoint at %#" PRIx64 ": %s", address, strerror(errno));
    return code;
}

static void take_breakpoint_back(pid_t pid, uint64_t address, long code)
{
    ptrace(PTRACE_POKETEXT, pid, address, code);
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rip), address);
}

/* Stop the child where it has made k steps of the path; returns 0 if it went another way. */
static int go_to(scene *sc, pid_t pid, const uint64_t *path, unsigned k)
{
    unsigned to_pass = 0;
    for (unsigned i = 0; i < k; i++) to_pass += path[i] == path[k];
    for (;;) {
        long code = set_breakpoint(pid, path[k]);
        if (!resume(pid, 0)) return 0;
        take_breakpoint_back(pid, path[k], code);
        int inside = atomic_load(sc->phase) == INSIDE;
        if (inside && to_pass-- == 0) return 1;
        if (!resume(pid, 1)) return 0;
    }
}

#else

static uint64_t address_of(pid_t pid)
{
    (void)pid;
    return 0;
}

static int go_to(scene *sc, pid_t pid, const uint64_t *path, unsigned k)
{
    (void)path;
    int alive = 1;
    while (alive && atomic_load(sc->phase) == OUTSIDE) alive = resume(pid, 1);
    for (unsigned i = 0; alive && i < k; i++) alive = resume(pid, 1);
    return alive && atomic_load(sc->phase) == INSIDE;
}

#endif

static void end(scene *sc, pid_t pid, int alive)
{
    if (alive) {
        kill(pid, SIGKILL);
        reap(pid);
    }
    scene_end(sc, pid);
}

/* ---- killing ---- */

/* Step through the operation once; returns how many steps it takes. */
static unsigned learn_path(scene *sc, uint64_t *path)
{
    unsigned n = 0;
    pid_t pid = start(sc);
    while (atomic_load(sc->phase) == OUTSIDE) resume(pid, 1);
    while (atomic_load(sc->phase) == INSIDE) {
        if (n == MOST_STEPS) FAIL("%s: more than %u steps", to_run->name, n);
        path[n++] = address_of(pid);
        if (!resume(pid, 1)) FAIL("%s: the child ended within its operation", to_run->name);
    }
    end(sc, pid, 1);
    return n;
}

static void kill_in_operation(scene *sc, unsigned most_points)
{
    static uint64_t path[MOST_STEPS];
    unsigned length = learn_path(sc, path);
    unsigned stride = (length + most_points - 1) / most_points;
    unsigned points = 0, reached = 0;
    for (unsigned k = 0; k < length; k += stride) {
        pid_t pid = start(sc);
        int stands = go_to(sc, pid, path, k);
        reached += (unsigned)stands;
        end(sc, pid, stands);
        points++;
    }
    printf("    %-24s %6u instructions, killed at %u\n", to_run->name, length, reached);
    fflush(stdout);
    CHECK(reached * 10 >= points * 9);
}

int main(int argc, char **argv)
{
    unsigned most_points = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : POINTS;
    static scene sc;
#if defined(__SANITIZE_THREAD__)
    fprintf(stderr, "ThreadSanitizer sees nothing between processes\n");
    return EXIT_NOT_HERE;
#endif
    sc.phase = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(sc.phase != MAP_FAILED);
    CHECK(most_points > 0);
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        to_run = &operations[i];
        kill_in_operation(&sc, most_points);
    }
    return 0;
}
