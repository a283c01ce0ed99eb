/* storm.c - the kill storm: processes at random work, SIGKILL at random moments, a full audit after
 * each.
 *
 *   storm --kills N [--no-repair] [--seed S] [--procs P]
 *
 * Exit code 0: nothing was lost, torn, stuck or leaked. 1: damage found. 2 and more: anything else.
 *
 * METHOD     P actors (mix.h) share a small session. The parent, who is supervisor and janitor,
 *            kills one, gives back what it held, decides about its tasks, checks every invariant
 *            of the session, and forks another. Half of the kills come at a random time up to 2 ms;
 *            for the others the victim is first stopped, again and again, until it stands inside a
 *            section, where most of the repairing is to be done.
 * WATCHDOG   All of this happens in a child: a storm that hangs or crashes has found damage too.
 * CONTROL    --no-repair switches repair off, and must lead to exit code 1.
 */
#include "mix.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

enum { EXIT_DAMAGE = 1, EXIT_USAGE = 2, MAX_PROCS = 64, AIM_TRIES = 12 };

typedef struct storm {
    uint64_t kills;
    uint64_t seed;
    uint32_t procs;
    int repair;
    mix_board *board;
    rig rig;
    uint64_t rng;
    uint64_t born;   /* actors forked so far */
    uint64_t done;   /* kills so far */
    uint64_t inside; /* kills that were seen to hit inside a section */
    uint64_t reports;
    pid_t victims[MAX_PROCS];
} storm;

/* ---- an actor ---- */

static int live(void *argument)
{
    storm *st = argument;
    mix_actor *a = calloc(1, sizeof *a);
    if (a == NULL) return EXIT_USAGE;
    a->board = st->board;
    a->function = st->rig.function;
    a->rng = mix64(st->seed) + st->born;
    CHECK_EQ(rl_session_join(&a->s, &st->rig.map, RL_ROLE_WORKER, -1, -1), 0);
    while (!atomic_load_explicit(&st->board->stop, memory_order_relaxed)) mix_step(a);
    mix_let_go(a);
    CHECK_EQ(rl_session_leave(&a->s), 0);
    return 0;
}

static void give_birth(storm *st, uint32_t k)
{
    st->born++;
    st->victims[k] = spawn(live, st);
}

/* ---- killing ---- */

static void nap(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&t, NULL);
}

/* Mostly soon, at times up to 2 ms. */
static void wait_a_moment(storm *st)
{
    double u = (double)(rng_next(&st->rng) >> 11) / (double)(UINT64_C(1) << 53);
    nap((int64_t)(2e6 * u * u * u * u * u * u));
}

static int is_inside(const storm *st, pid_t pid)
{
    const rl_lock *lock = &st->rig.map.control->lock;
    return atomic_load(&lock->dirty) != 0 && atomic_load(&lock->holder) == (uint32_t)pid;
}

/* Stop the victim until it stands inside a section. It may never do. */
static void aim(storm *st, pid_t pid)
{
    for (int i = 0; i < AIM_TRIES; i++) {
        int status;
        kill(pid, SIGSTOP);
        if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status)) {
            FAIL("an actor ended by itself while it was aimed at (status %#x)", (unsigned)status);
        }
        if (is_inside(st, pid)) {
            st->inside++;
            return;
        }
        kill(pid, SIGCONT);
        nap(rng_below(&st->rng, 20000));
    }
}

/* The janitor's round after a death. */
static void clean_up_after(storm *st, pid_t pid)
{
    rl_session *s = &st->rig.s;
    uint32_t slot = rl_slot_find(s, (uint32_t)pid);
    if (slot != RL_NIL) CHECK_EQ(rl_slot_release(s, slot), 0);
    mix_supervise(s);
    mix_take_reports(s);
}

static void audit(storm *st)
{
    const char *broken = mix_audit(&st->rig.s);
    if (broken) FAIL("audit after kill %" PRIu64 ": %s", st->done, broken);
}

static void kill_one(storm *st)
{
    uint32_t k = rng_below(&st->rng, st->procs);
    pid_t pid = st->victims[k];
    wait_a_moment(st);
    if (rng_below(&st->rng, 2)) aim(st, pid);
    kill(pid, SIGKILL);
    int how = reap(pid);
    if (how != -SIGKILL) FAIL("an actor ended by itself (%d)", how);
    st->done++;
    clean_up_after(st, pid);
    audit(st);
    give_birth(st, k);
}

/* ---- the storm ---- */

static void begin(storm *st)
{
    st->rng = st->seed;
    rl_fault_switch_repair(st->repair);
    prctl(PR_SET_TIMERSLACK, 1UL);
    st->board =
        mmap(NULL, sizeof *st->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(st->board != MAP_FAILED);
    rig_make_sized(&st->rig, MIB, &small_tables);
    mix_intern(&st->rig.s, 2);
    for (uint32_t k = 0; k < st->procs; k++) give_birth(st, k);
}

static void end(storm *st)
{
    atomic_store(&st->board->stop, 1);
    for (uint32_t k = 0; k < st->procs; k++) {
        int how = reap(st->victims[k]);
        if (how != 0) FAIL("a survivor ended with %d", how);
    }
    mix_actor last = {.s = st->rig.s, .board = st->board, .function = st->rig.function};
    mix_drain(&last);
    rl_object_release(&last.s, st->rig.function);
}

static int run(void *argument)
{
    storm *st = argument;
    begin(st);
    int64_t start = rl_now_ns();
    while (st->done < st->kills) kill_one(st);
    double seconds = (double)(rl_now_ns() - start) / 1e9;
    end(st);

    const rl_control *c = st->rig.map.control;
    uint64_t leaked = c->data_size - free_bytes(&st->rig.s);
    printf("storm: %" PRIu64 " kills, %.0f kills/s, %" PRIu64
           " aimed inside a section, %u repairs, "
           "0 corrupt, %" PRIu64 " bytes %" PRIu64 " objects %" PRIu64
           " tasks leaked, seed %" PRIu64 "\n",
           st->done, (double)st->done / seconds, st->inside, atomic_load(&c->lock.repairs), leaked,
           c->objects_live, c->tasks_live, st->seed);
    fflush(stdout);
    return leaked || c->objects_live || c->tasks_live ? EXIT_DAMAGE : 0;
}

/* ---- watchdog ---- */

static int run_in_group(void *argument)
{
    setpgid(0, 0);
    return run(argument);
}

static int watch(storm *st)
{
    pid_t pid = spawn(run_in_group, st);
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        perror("pidfd_open");
        return EXIT_USAGE;
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t limit_ms = 20000 + (int64_t)st->kills * 10;
    int ended = poll(&p, 1, limit_ms < INT32_MAX ? (int)limit_ms : INT32_MAX);
    kill(-pid, SIGKILL); /* the actors too */
    int how = reap(pid);
    if (how == 0) return 0;

    const char *what = ended == 1 ? (how < 0 ? "crashed" : "stopped at the damage above") : "hung";
    fprintf(stderr, "storm: %s (%d), repair %s, seed %" PRIu64 "\n", what, how,
            st->repair ? "on" : "off", st->seed);
    return how > EXIT_DAMAGE ? how : EXIT_DAMAGE;
}

static int usage(void)
{
    fprintf(stderr, "usage: storm --kills N [--no-repair] [--seed S] [--procs 1..%d]\n", MAX_PROCS);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    storm *st = calloc(1, sizeof *st);
    if (st == NULL) return EXIT_USAGE;
    st->procs = 3;
    st->repair = 1;
    st->seed = (uint64_t)rl_now_ns();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--no-repair") == 0) {
            st->repair = 0;
        } else if (i + 1 == argc) {
            return usage();
        } else if (strcmp(argv[i], "--kills") == 0) {
            st->kills = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0) {
            st->seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--procs") == 0) {
            st->procs = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else {
            return usage();
        }
    }
    if (st->kills == 0 || st->procs == 0 || st->procs > MAX_PROCS) return usage();
    int code = watch(st);
    free(st);
    return code;
}
