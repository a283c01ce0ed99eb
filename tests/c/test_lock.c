/* test_lock.c - the session's lock: exclusion, owners that die, owners that are stopped, poison. */
#include "harness.h"

#include "rl_lock.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

static void *shared_page(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    return page;
}

/* ---- the bare lock ---- */

typedef struct bare {
    rl_lock lock;
    uint64_t count;    /* guarded by the lock */
    uint32_t repaired; /* calls of bare_repair() */
    int repair_dies;   /* how many repairers are still to die */
    int repair_fails;
} bare;

static int bare_repair(void *context)
{
    bare *b = context;
    b->repaired++;
    if (b->repair_dies > 0) {
        b->repair_dies--;
        raise(SIGKILL);
    }
    return b->repair_fails ? RL_ECORRUPT : 0;
}

static int acquire(bare *b)
{
    return rl_lock_acquire(&b->lock, (uint32_t)getpid(), 5, bare_repair, b);
}

static bare *bare_make(void)
{
    bare *b = shared_page();
    CHECK_EQ(rl_lock_init(&b->lock), 0);
    return b;
}

static int count_up(void *argument)
{
    bare *b = argument;
    for (int i = 0; i < 100000; i++) {
        CHECK_EQ(acquire(b), 0);
        b->count++;
        rl_lock_release(&b->lock);
    }
    return 0;
}

static void test_sections_of_several_processes_exclude_each_other(void)
{
    bare *b = bare_make();
    pid_t pids[3];
    for (int i = 0; i < 3; i++) pids[i] = spawn(count_up, b);
    for (int i = 0; i < 3; i++) CHECK_EQ(reap(pids[i]), 0);
    CHECK_EQ(b->count, 300000);
    CHECK_EQ(b->repaired, 0);
    CHECK_EQ(atomic_load(&b->lock.dirty), 0);
    munmap(b, 4096);
}

static int die_inside(void *argument)
{
    CHECK_EQ(acquire(argument), 0);
    raise(SIGKILL);
    return 1;
}

static int die_after_cleaning(void *argument)
{
    CHECK_EQ(acquire(argument), 0);
    rl_fault_arm("lock.clean", 1, SIGKILL);
    rl_lock_release(&((bare *)argument)->lock);
    return 1;
}

static int take_and_give(void *argument)
{
    CHECK_EQ(acquire(argument), 0);
    rl_lock_release(&((bare *)argument)->lock);
    return 0;
}

static void test_death_inside_is_repaired_once_by_the_next_owner(void)
{
    bare *b = bare_make();
    CHECK_EQ(reap(spawn(die_inside, b)), -SIGKILL);
    CHECK_EQ(atomic_load(&b->lock.dirty), 5);
    for (int i = 0; i < 3; i++) CHECK_EQ(take_and_give(b), 0);
    CHECK_EQ(b->repaired, 1);
    CHECK_EQ(atomic_load(&b->lock.repairs), 1);
    munmap(b, 4096);
}

static void test_death_after_the_work_was_done_needs_no_repair(void)
{
    bare *b = bare_make();
    CHECK_EQ(reap(spawn(die_after_cleaning, b)), -SIGKILL);
    CHECK_EQ(take_and_give(b), 0);
    CHECK_EQ(b->repaired, 0);
    munmap(b, 4096);
}

static void test_death_of_the_repairer_is_repaired_by_the_next(void)
{
    bare *b = bare_make();
    b->repair_dies = 3;
    CHECK_EQ(reap(spawn(die_inside, b)), -SIGKILL);
    for (int i = 0; i < 3; i++) CHECK_EQ(reap(spawn(take_and_give, b)), -SIGKILL);
    CHECK_EQ(take_and_give(b), 0);
    CHECK_EQ(b->repaired, 4);
    CHECK_EQ(atomic_load(&b->lock.repairs), 1);
    munmap(b, 4096);
}

static void test_failed_repair_poisons_the_lock_for_ever(void)
{
    bare *b = bare_make();
    b->repair_fails = 1;
    CHECK_EQ(reap(spawn(die_inside, b)), -SIGKILL);
    CHECK_EQ(acquire(b), RL_ECORRUPT);
    b->repair_fails = 0;
    for (int i = 0; i < 3; i++) CHECK_EQ(acquire(b), RL_ECORRUPT);
    CHECK_EQ(b->repaired, 1);
    CHECK_EQ(atomic_load(&b->lock.poisoned), 1);
    munmap(b, 4096);
}

/* ---- owners that are stopped ---- */

typedef struct stopped {
    bare *b;
    pid_t owner;
    pid_t waiter;
    int said; /* read end of the waiter's stderr */
    int mouth;
} stopped;

static int stop_inside(void *argument)
{
    bare *b = argument;
    CHECK_EQ(acquire(b), 0);
    raise(SIGSTOP);
    rl_lock_release(&b->lock);
    return 0;
}

static int wait_for_lock(void *argument)
{
    stopped *st = argument;
    dup2(st->mouth, STDERR_FILENO);
    return take_and_give(st->b);
}

/* An owner that is stopped inside, and a waiter who has named it. */
static stopped stopped_make(void)
{
    stopped st = {.b = bare_make()};
    int status, ends[2];
    char text[512] = {0};
    st.owner = spawn(stop_inside, st.b);
    CHECK_EQ(waitpid(st.owner, &status, WUNTRACED), st.owner);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    st.said = ends[0];
    st.mouth = ends[1];
    st.waiter = spawn(wait_for_lock, &st);
    close(st.mouth);

    struct pollfd p = {.fd = st.said, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 20000), 1);
    CHECK(read(st.said, text, sizeof text - 1) > 0);
    char expected[64];
    snprintf(expected, sizeof expected, "process %d has held the session's lock", st.owner);
    if (strstr(text, expected) == NULL) FAIL("the message is: %s", text);
    CHECK_EQ(waitpid(st.waiter, &status, WNOHANG), 0); /* it still waits */
    return st;
}

static void stopped_end(stopped *st, int owner_ends_with, uint32_t repaired)
{
    CHECK_EQ(reap(st->owner), owner_ends_with);
    CHECK_EQ(reap(st->waiter), 0);
    CHECK_EQ(st->b->repaired, repaired);
    close(st->said);
    munmap(st->b, 4096);
}

static void test_stopped_owner_is_named_and_waited_for_until_it_goes_on(void)
{
    stopped st = stopped_make();
    kill(st.owner, SIGCONT);
    stopped_end(&st, 0, 0);
}

static void test_stopped_owner_that_is_killed_is_repaired_after(void)
{
#if defined(__SANITIZE_THREAD__)
    printf("    not here: ThreadSanitizer takes a timed lock with EOWNERDEAD for a failed one\n");
    return;
#endif
    stopped st = stopped_make();
    kill(st.owner, SIGKILL);
    stopped_end(&st, -SIGKILL, 1);
}

/* ---- the lock of a session ---- */

/* What a stray write could do within the section, or NULL. */
static void (*scribble)(rl_mapping *);

static int die_in_section(void *argument)
{
    rig *r = argument;
    rl_session s;
    rl_section section;
    rig_join(r, &s);
    CHECK_EQ(rl_enter(&s, &section, RL_OP_ARENA), 0);
    if (scribble) scribble(&r->map);
    raise(SIGKILL);
    return 1;
}

static void release_slot_of(rig *r, pid_t pid)
{
    uint32_t slot = rl_slot_find(&r->s, (uint32_t)pid);
    CHECK(slot != RL_NIL);
    CHECK_EQ(rl_slot_release(&r->s, slot), 0);
}

static void test_session_goes_on_after_a_death_in_a_section(void)
{
    rig r;
    rig_make(&r);
    for (uint32_t i = 0; i < 10; i++) {
        pid_t pid = spawn(die_in_section, &r);
        CHECK_EQ(reap(pid), -SIGKILL);
        release_slot_of(&r, pid);
        CHECK_EQ(atomic_load(&r.map.control->lock.repairs), i + 1);
        CHECK_CLEAN(&r.s);
    }
    rig_check_empty(&r);
    rig_drop(&r);
}

static void scribble_offset(rl_mapping *m)
{
    m->blocks[1].offset += 8;
}

static void scribble_block_of_object(rl_mapping *m)
{
    m->objects[1].block = UINT32_MAX - 1;
}

static void scribble_two_objects_one_block(rl_mapping *m)
{
    m->objects[1].block = m->objects[2].block;
}

static void scribble_first_block(rl_mapping *m)
{
    atomic_store(&m->blocks[0].tag, RL_BLOCK_UNUSED);
}

static void test_repair_of_nonsense_poisons_the_session(void)
{
    static void (*const scribblers[])(rl_mapping *) = {scribble_offset, scribble_block_of_object,
                                                       scribble_two_objects_one_block,
                                                       scribble_first_block};
    for (size_t i = 0; i < sizeof scribblers / sizeof scribblers[0]; i++) {
        rig r;
        rl_handle h[2];
        uint32_t block;
        const char *broken;
        rig_make(&r);
        for (int k = 0; k < 2; k++) CHECK_EQ(value_put(&r.s, 1000, 1, NULL, 0, &h[k]), 0);
        CHECK_EQ(h[1].index, 2);
        scribble = scribblers[i];
        CHECK_EQ(reap(spawn(die_in_section, &r)), -SIGKILL);
        CHECK_EQ(rl_arena_fill(&r.s, 100, &block), RL_ECORRUPT);
        CHECK_EQ(rl_check(&r.s, &broken), RL_ECORRUPT);
        CHECK_EQ(rl_slot_release(&r.s, 1), RL_ECORRUPT);
        CHECK_EQ(rl_session_leave(&r.s), RL_ECORRUPT);
        rl_session_dispose(&r.s);
        rl_segment_close(&r.map);
    }
    scribble = NULL;
}

int main(void)
{
    RUN(test_sections_of_several_processes_exclude_each_other);
    RUN(test_death_inside_is_repaired_once_by_the_next_owner);
    RUN(test_death_after_the_work_was_done_needs_no_repair);
    RUN(test_death_of_the_repairer_is_repaired_by_the_next);
    RUN(test_failed_repair_poisons_the_lock_for_ever);
    RUN(test_stopped_owner_is_named_and_waited_for_until_it_goes_on);
    RUN(test_stopped_owner_that_is_killed_is_repaired_after);
    RUN(test_session_goes_on_after_a_death_in_a_section);
    RUN(test_repair_of_nonsense_poisons_the_session);
    return 0;
}
