/* test_kill_points.c - a process is killed at each kill point in turn; what it held must come back.
 *
 * A scripted mix of operations runs in a child that dies at the n-th kill point it passes, for n =
 * 1, 2, 3, ... until it gets to the end. Each time the parent, janitor and supervisor, cleans up
 * and finds the session as if the child had never been. The same for the janitor itself, and for
 * whoever repairs after it.
 */
#include "harness.h"

enum { NREFS = 20, NTASKS = 4 };

typedef struct scene {
    rig r;
    rl_handle object;          /* of the parent, in a block */
    rl_handle returns[NTASKS]; /* of tasks that the parent has submitted */
    unsigned n;                /* the kill point at which a child dies; 0 = none */
    uint32_t victim;           /* slot that the janitor is to release */
    uint64_t free_bytes;       /* while nobody but the parent is there */
    uint64_t objects;
} scene;

/* ---- the scene: what survivors hold ---- */

static void submit(rig *r, rl_session *s, const rl_handle *refs, uint32_t nrefs, uint32_t nreturns,
                   rl_handle *returns)
{
    rl_spec spec = rig_spec(r, nreturns, refs, nrefs);
    CHECK_EQ(rl_task_submit(s, &spec, returns, NULL), 0);
}

static void scene_make(scene *sc)
{
    memset(sc, 0, sizeof *sc);
    rig_make(&sc->r);
    CHECK_EQ(value_put(&sc->r.s, 5000, 3, NULL, 0, &sc->object), 0);
    sc->free_bytes = free_bytes(&sc->r.s);
    sc->objects = sc->r.map.control->objects_live;
    for (int i = 0; i < NTASKS; i++) {
        submit(&sc->r, &sc->r.s, &sc->object, 1, 1, &sc->returns[i]);
    }
}

/* ---- the script ---- */

static void finish(rl_session *s, const rl_job *job, uint64_t nbytes)
{
    rl_handle returns[NREFS];
    CHECK_EQ(rl_task_returns(s, job->task, returns, job->nreturns), 0);
    for (uint32_t k = 0; k < job->nreturns; k++) {
        uint8_t bytes[RL_INLINE];
        rl_value v;
        CHECK_EQ(value_make(s, nbytes, k + 1, bytes, &v), 0);
        int err = rl_task_return(s, job->task, returns[k], &v);
        if (err == EEXIST && v.block != RL_NIL) CHECK_EQ(rl_arena_abandon(s, v.block), 0);
        CHECK(err == 0 || err == EEXIST);
    }
    CHECK_EQ(rl_task_finish(s, job->task, (rl_handle){.index = RL_NIL}, NULL), 0);
}

static void take_and_finish(rl_session *s, uint64_t nbytes)
{
    rl_job job;
    CHECK_EQ(rl_task_take(s, rl_now_ns() + 1000 * MS_NS, &job), 0);
    finish(s, &job, nbytes);
}

/* Blocks: split, joined to the left, to the right, to both. */
static void play_arena(rl_session *s)
{
    uint32_t block[4];
    for (int i = 0; i < 4; i++) CHECK_EQ(rl_arena_fill(s, 3000, &block[i]), 0);
    CHECK_EQ(rl_arena_abandon(s, block[0]), 0);
    CHECK_EQ(rl_arena_abandon(s, block[2]), 0);
    CHECK_EQ(rl_arena_abandon(s, block[1]), 0);
    CHECK_EQ(rl_arena_abandon(s, block[3]), 0);
}

/* Values: short and long, with one and with many refs, freed as a chain. */
static void play_objects(scene *sc, rl_session *s)
{
    rl_handle h[NREFS], many, found, got[NREFS];
    CHECK_EQ(value_put(s, 8, 5, NULL, 0, &h[0]), 0);
    for (int i = 1; i < NREFS; i++) CHECK_EQ(value_put(s, 100, 6, &h[i - 1], 1, &h[i]), 0);
    CHECK_EQ(value_put(s, 20000, 7, h, NREFS, &many), 0);
    for (int i = 0; i < NREFS; i++) rl_object_release(s, h[i]);
    CHECK_EQ(rl_object_read_refs(s, many, got, NREFS), 0);
    CHECK_EQ(rl_object_find(s, sc->object.gen, 0, &found), 0);
    rl_object_release(s, found);
    rl_object_release(s, many);
    for (int i = 0; i < NREFS; i++) rl_object_release(s, got[i]);
}

/* Tasks: of the parent and of one's own, one waiting for the other, one given back, and returns
 * that nobody wants any more. */
static void play_tasks(scene *sc, rl_session *s)
{
    rl_handle first[2], second[NREFS];
    rl_job job;
    take_and_finish(s, 10);
    take_and_finish(s, 4000);
    submit(&sc->r, s, &sc->object, 1, 2, first);
    submit(&sc->r, s, first, 2, NREFS, second);
    rl_object_release(s, first[1]);
    for (int k = 1; k < NREFS; k++) rl_object_release(s, second[k]);
    CHECK_EQ(rl_task_take(s, rl_now_ns(), &job), 0);
    CHECK_EQ(rl_task_block(s), 1);
    rl_task_unblock(s);
    CHECK_EQ(rl_task_strand(s, job.task), 0);
    for (int i = 0; i < NTASKS - 2; i++) take_and_finish(s, 40);
    take_and_finish(s, 200);
    rl_object_release(s, first[0]);
    rl_object_release(s, second[0]);
}

/* A stream: filled, read in part, passed on, and let go of while its task still runs. */
static void play_stream(scene *sc, rl_session *s)
{
    rl_handle out, passed, outlet, stream, item;
    rl_job job;
    rl_spec spec = rig_spec(&sc->r, 1, &sc->object, 1);
    spec.streams = 1;
    spec.max_retries = 1;
    CHECK_EQ(rl_task_submit(s, &spec, &out, &outlet), 0);
    CHECK_EQ(rl_stream_of(s, outlet, &stream), 0);
    CHECK_EQ(rl_task_take(s, rl_now_ns(), &job), 0);
    for (uint32_t i = 0; i < NREFS; i++) {
        uint8_t bytes[RL_INLINE];
        rl_value v;
        CHECK_EQ(value_make(s, i % 2 ? 8 : 2000, i, bytes, &v), 0);
        CHECK_EQ(rl_stream_append(s, job.task, &v), 0);
    }
    for (uint32_t i = 0; i < NREFS - 3; i++) {
        CHECK_EQ(rl_stream_next(s, stream, &job.task, &item), 0);
        rl_object_release(s, item);
    }
    rl_value v = {.kind = 1, .block = RL_NIL, .refs = &outlet, .nrefs = 1};
    CHECK_EQ(rl_object_put(s, &v, &passed), 0);
    rl_object_release(s, outlet);
    rl_object_release(s, passed);
    finish(s, &job, 16);
    rl_object_release(s, out);
}

static rl_handle call_actor(scene *sc, rl_session *s, const rl_handle *actor, const rl_handle *refs,
                            uint32_t nrefs)
{
    rl_handle out;
    rl_spec spec = rig_spec(&sc->r, 1, refs, nrefs);
    spec.actor = actor;
    CHECK_EQ(rl_task_submit(s, &spec, &out, NULL), 0);
    return out;
}

/* An actor: called, one call run, one held up by an argument, one cancelled; dead with calls left,
 * and called once more. */
static void play_actor(scene *sc, rl_session *s)
{
    rl_handle actor, found, function, dependency, calls[5];
    rl_job self, job;
    uint8_t bytes[RL_INLINE];
    rl_value v;
    rl_actor_spec makes = {.name = "actor", .space = "here", .flags = RL_ACTOR_ORDERED};
    rl_spec spec = rig_spec(&sc->r, 1, NULL, 0);
    spec.makes = &makes;
    CHECK_EQ(rl_task_submit(s, &spec, &actor, NULL), 0);
    CHECK_EQ(rl_task_take(s, rl_now_ns(), &self), 0);
    submit(&sc->r, s, NULL, 0, 1, &dependency);
    calls[0] = call_actor(sc, s, &actor, &sc->object, 1);
    calls[1] = call_actor(sc, s, &actor, &dependency, 1);
    calls[2] = call_actor(sc, s, &actor, NULL, 0);
    calls[3] = call_actor(sc, s, &actor, &dependency, 1);
    CHECK_EQ(rl_task_take_call(s, self.task, 0, rl_now_ns(), &job), 0);
    finish(s, &job, 100);
    CHECK_EQ(rl_task_take_call(s, self.task, 0, rl_now_ns(), &job), RL_ETIMEDOUT);
    CHECK_EQ(rl_task_cancel(s, calls[3], 0, 0), 0);
    CHECK_EQ(rl_task_cancel(s, dependency, 0, 1), 0);
    CHECK_EQ(rl_actor_find(s, "here", "actor", &found, &function), 0);
    rl_object_release(s, found);
    rl_object_release(s, function);
    CHECK_EQ(value_make(s, 3000, 4, bytes, &v), 0);
    CHECK_EQ(rl_task_conclude(s, self.task, &v, 1), 0);
    calls[4] = call_actor(sc, s, &actor, NULL, 0);
    for (int i = 0; i < 5; i++) rl_object_release(s, calls[i]);
    rl_object_release(s, dependency);
    rl_object_release(s, actor);
}

static int play(void *argument)
{
    scene *sc = argument;
    rl_session s;
    if (sc->n) rl_fault_arm("*", sc->n, SIGKILL);
    CHECK_EQ(rl_session_join(&s, &sc->r.map, RL_ROLE_WORKER, -1, -1), 0);
    play_arena(&s);
    play_objects(sc, &s);
    play_tasks(sc, &s);
    play_stream(sc, &s);
    play_actor(sc, &s);
    CHECK_EQ(rl_session_leave(&s), 0);
    return 0;
}

/* ---- after a death ---- */

static void decide_stranded(scene *sc)
{
    rl_session *s = &sc->r.s;
    rl_job job;
    uint32_t cursor = 0, open;
    while (rl_task_next_stranded(s, &cursor, &job, &open) == 0) {
        uint8_t bytes[RL_INLINE];
        rl_value values[NREFS];
        for (uint32_t k = 0; k < open; k++) values[k] = failure_value(9, bytes);
        if (job.attempt == 0 && sc->n % 2) {
            CHECK_EQ(rl_task_requeue(s, job.task), 0);
        } else {
            CHECK_EQ(rl_task_conclude(s, job.task, values, open), 0);
        }
        CHECK_CLEAN(s);
    }
}

static void take_reports(rl_session *s)
{
    rl_handle h;
    while (rl_object_take_report(s, &h) == 0) rl_object_release(s, h);
}

/* The dead have been cleaned up after. The parent finishes what is left and drops its own refs: then
 * nothing may be left. */
static void scene_end(scene *sc)
{
    rl_session *s = &sc->r.s;
    CHECK_CLEAN(s);
    rl_job job;
    do { /* an actor that is over strands the calls that it leaves */
        decide_stranded(sc);
        while (rl_task_take(s, 0, &job) == 0) finish(s, &job, 16);
        CHECK_CLEAN(s);
    } while (sc->r.map.control->stranded);
    for (int i = 0; i < NTASKS; i++) rl_object_release(s, sc->returns[i]);
    take_reports(s);
    CHECK_EQ(sc->r.map.control->tasks_live, 0);
    CHECK_EQ(sc->r.map.control->objects_live, sc->objects);
    CHECK_EQ(free_bytes(s), sc->free_bytes);
    rl_payload p;
    CHECK_EQ(rl_object_read(s, sc->object, &p), 0);
    CHECK(payload_is_whole(&p));
    rl_object_release(s, sc->object);
    rig_check_empty(&sc->r);
    rig_drop(&sc->r);
}

static void release_slot_of(scene *sc, pid_t pid)
{
    uint32_t slot = rl_slot_find(&sc->r.s, (uint32_t)pid);
    if (slot != RL_NIL) CHECK_EQ(rl_slot_release(&sc->r.s, slot), 0);
}

/* Play until kill point n; returns 0 once the script gets to its end. */
static int play_until(scene *sc, unsigned n, pid_t *pid)
{
    scene_make(sc);
    sc->n = n;
    *pid = spawn(play, sc);
    int how = reap(*pid);
    if (how != 0 && how != -SIGKILL) FAIL("the child ended with %d at kill point %u", how, n);
    return how != 0;
}

static void test_child_killed_at_each_kill_point_leaves_nothing(void)
{
    scene sc;
    pid_t pid;
    unsigned n = 1;
    for (int died = 1; died; n++) {
        died = play_until(&sc, n, &pid);
        release_slot_of(&sc, pid);
        scene_end(&sc);
    }
    printf("    %u kill points\n", n - 2);
    CHECK(n > 500);
}

/* ---- double and manifold faults ---- */

/* A janitor that dies at its own n-th kill point, perhaps while it repairs. */
static int clean_up(void *argument)
{
    scene *sc = argument;
    rl_session s;
    rl_fault_arm("*", sc->n, SIGKILL);
    CHECK_EQ(rl_session_join(&s, &sc->r.map, RL_ROLE_HELPER, -1, -1), 0);
    if (sc->victim != RL_NIL) CHECK_EQ(rl_slot_release(&s, sc->victim), 0);
    CHECK_EQ(rl_session_leave(&s), 0);
    return 0;
}

static int run_janitor(scene *sc, unsigned n)
{
    unsigned of_worker = sc->n;
    sc->n = n;
    pid_t janitor = spawn(clean_up, sc);
    int how = reap(janitor);
    CHECK(how == 0 || how == -SIGKILL);
    sc->n = of_worker;
    release_slot_of(sc, janitor);
    return how == -SIGKILL;
}

/* The worker dies at its kill point, then the janitor at its own; the next finishes the work. */
static int kill_both(unsigned of_worker, unsigned of_janitor, int *janitor_died)
{
    scene sc;
    pid_t worker;
    int died = play_until(&sc, of_worker, &worker);
    sc.victim = rl_slot_find(&sc.r.s, (uint32_t)worker);
    *janitor_died = run_janitor(&sc, of_janitor);
    release_slot_of(&sc, worker);
    scene_end(&sc);
    return died;
}

static void test_janitor_killed_at_its_kill_points_leaves_nothing(void)
{
    unsigned deaths = 0;
    int worker_died = 1;
    for (unsigned of_worker = 3; worker_died; of_worker += SANITIZED ? 97 : 29) {
        int janitor_died = 1;
        for (unsigned n = 1; janitor_died; n += SANITIZED ? 11 : 2) {
            worker_died = kill_both(of_worker, n, &janitor_died);
            deaths += (unsigned)janitor_died;
        }
    }
    printf("    %u double faults\n", deaths);
    CHECK(deaths > 50);
}

/* One janitor after the other dies over the same dead worker, each a little later in its work. */
static void test_janitors_killed_in_a_row_leave_nothing(void)
{
    unsigned deaths = 0;
    int worker_died = 1;
    for (unsigned of_worker = 1; worker_died; of_worker += SANITIZED ? 61 : 11) {
        scene sc;
        pid_t worker;
        worker_died = play_until(&sc, of_worker, &worker);
        sc.victim = rl_slot_find(&sc.r.s, (uint32_t)worker);
        for (unsigned n = 1; run_janitor(&sc, n); n += 3) deaths++;
        release_slot_of(&sc, worker);
        scene_end(&sc);
    }
    printf("    %u janitors\n", deaths);
    CHECK(deaths > 50);
}

/* ---- negative control ---- */

/* In a child of its own, for a broken session may crash or hang whoever looks at it. */
static int play_without_repair(void *argument)
{
    unsigned n = *(unsigned *)argument;
    scene sc;
    pid_t pid;
    const char *broken = NULL;
    rl_fault_switch_repair(0);
    alarm(5);
    play_until(&sc, n, &pid);
    if (rl_check(&sc.r.s, &broken)) return 2;
    return broken != NULL;
}

static void test_check_without_repair_finds_damage(void)
{
    unsigned found = 0;
    for (unsigned n = 1; n <= 100; n += 3) found += reap(spawn(play_without_repair, &n)) != 0;
    printf("    %u of 34 kills found\n", found);
    CHECK(found > 5);
}

int main(void)
{
    RUN(test_child_killed_at_each_kill_point_leaves_nothing);
    RUN(test_janitor_killed_at_its_kill_points_leaves_nothing);
    RUN(test_janitors_killed_in_a_row_leave_nothing);
    RUN(test_check_without_repair_finds_damage);
    return 0;
}
