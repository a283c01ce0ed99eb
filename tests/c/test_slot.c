/* test_slot.c - joining and leaving, and what the janitor gives back. */
#include "harness.h"

static rig r;

static uint32_t state_of(uint32_t slot)
{
    return atomic_load(&r.map.slots[slot].state);
}

static void test_claimed_slot_says_whose_it_is(void)
{
    rl_session s;
    rig_make(&r);
    rig_join(&r, &s);
    const rl_slot *slot = &r.map.slots[s.slot];
    CHECK(s.slot != r.s.slot);
    CHECK_EQ(state_of(s.slot), RL_SLOT_LIVE);
    CHECK_EQ(slot->pid, (uint32_t)getpid());
    CHECK_EQ(slot->role, RL_ROLE_WORKER);
    CHECK(slot->start_time > 0);
    CHECK_EQ(slot->start_time, rl_process_start_time((uint32_t)getpid()));
    CHECK_EQ(r.map.control->supervisor, r.s.slot);
    uint32_t index = s.slot;
    uint64_t gen = slot->gen;
    leave_session(&s);
    CHECK_EQ(state_of(index), RL_SLOT_FREE);
    rig_join(&r, &s);
    CHECK_EQ(s.slot, index);
    CHECK_EQ(slot->gen, gen + 1);
    leave_session(&s);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_join_of_a_full_session_is_refused(void)
{
    static rl_session s[RL_MAX_SLOTS];
    rl_session extra;
    rig_make(&r);
    for (int i = 1; i < RL_MAX_SLOTS; i++) rig_join(&r, &s[i]);
    CHECK_EQ(rl_session_join(&extra, &r.map, RL_ROLE_WORKER, -1, -1), RL_ENOSLOT);
    CHECK_CLEAN(&r.s);
    leave_session(&s[200]);
    rig_join(&r, &s[200]);
    CHECK_EQ(s[200].slot, 200);
    rl_handle h;
    CHECK_EQ(value_put(&s[255], 100, 1, NULL, 0, &h), 0);
    CHECK_CLEAN(&r.s);
    for (int i = 1; i < RL_MAX_SLOTS; i++) leave_session(&s[i]);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_start_time_of_a_process_that_is_not_there_is_zero(void)
{
    CHECK_EQ(rl_process_start_time(0), 0);
    CHECK_EQ(rl_process_start_time(UINT32_MAX), 0);
    CHECK(rl_process_start_time(1) > 0);
}

static void test_release_of_a_free_or_impossible_slot_does_nothing(void)
{
    rig_make(&r);
    CHECK_EQ(rl_slot_release(&r.s, 9), 0);
    CHECK_EQ(rl_slot_release(&r.s, RL_MAX_SLOTS), RL_EINVAL);
    CHECK_EQ(rl_slot_release(&r.s, RL_NIL), RL_EINVAL);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- the janitor ---- */

/* Holds one of each kind of thing, and dies. */
static int hold_all_and_die(void *argument)
{
    const rl_handle *shown = argument;
    rl_session s;
    rl_handle h, inner, found, out[2];
    rl_job job;
    uint32_t block;
    rig_join(&r, &s);
    CHECK_EQ(rl_object_find(&s, shown->gen, 0, &found), 0);
    CHECK_EQ(rl_arena_fill(&s, 10000, &block), 0);
    CHECK_EQ(value_put(&s, 5000, 1, NULL, 0, &inner), 0);
    CHECK_EQ(value_put(&s, 5000, 1, &inner, 1, &h), 0);
    rl_spec spec = rig_spec(&r, 2, &h, 1);
    CHECK_EQ(rl_task_submit(&s, &spec, out, NULL), 0);
    CHECK_EQ(rl_task_take(&s, 0, &job), 0);
    CHECK_EQ(rl_task_block(&s), 1);
    raise(SIGKILL);
    return 1;
}

static void test_janitor_gives_back_all_that_a_dead_process_held(void)
{
    rl_handle h;
    rl_job job;
    uint32_t cursor = 0, open;
    rig_make(&r);
    CHECK_EQ(value_put(&r.s, 3000, 8, NULL, 0, &h), 0);
    uint64_t free_before = free_bytes(&r.s);
    pid_t pid = spawn(hold_all_and_die, &h);
    CHECK_EQ(reap(pid), -SIGKILL);
    uint32_t slot = rl_slot_find(&r.s, (uint32_t)pid);
    CHECK(slot != RL_NIL);
    OK(&r.s, rl_slot_release(&r.s, slot));
    CHECK_EQ(rl_slot_find(&r.s, (uint32_t)pid), RL_NIL);

    /* The task lives on, and with it what it needs; nobody holds its returns. */
    CHECK_EQ(free_bytes(&r.s), free_before - 2 * 5056);
    CHECK_EQ(rl_task_next_stranded(&r.s, &cursor, &job, &open), 0);
    CHECK_EQ(open, 2);
    CHECK_EQ(job.stranded, 0);
    uint8_t bytes[RL_INLINE];
    rl_value values[2] = {failure_value(1, bytes), failure_value(2, bytes)};
    OK(&r.s, rl_task_conclude(&r.s, job.task, values, 2));
    CHECK_EQ(free_bytes(&r.s), free_before);
    while (rl_object_take_report(&r.s, &job.task) == 0) rl_object_release(&r.s, job.task);
    CHECK_EQ(r.map.control->resources[RL_CPU].available, 2 * RL_RESOURCE_UNIT);
    OK(&r.s, rl_slot_release(&r.s, slot)); /* once more: harmless */
    rl_object_release(&r.s, h);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_janitor_rings_everybody(void)
{
    rl_session s, dead;
    rig_make(&r);
    rig_join(&r, &s);
    rig_join(&r, &dead);
    uint32_t seen = rl_doorbell_read(&s);
    uint32_t freed = atomic_load(&r.map.control->freed);
    OK(&r.s, rl_slot_release(&r.s, dead.slot));
    CHECK(rl_doorbell_read(&s) != seen);
    CHECK(atomic_load(&r.map.control->freed) != freed);
    rl_session_detach(&dead);
    rl_session_dispose(&dead);
    leave_session(&s);
    rig_drop(&r);
}

/* A process can die after it has cleared its last holder bit and before it has freed the object. */
static int die_between_last_bit_and_freeing(void *argument)
{
    (void)argument;
    rl_session s;
    rl_handle h;
    rig_join(&r, &s);
    CHECK_EQ(value_put(&s, 5000, 1, NULL, 0, &h), 0);
    atomic_store(&r.map.objects[h.index].holders[0], 0);
    raise(SIGKILL);
    return 1;
}

static void test_janitor_frees_what_the_dead_had_let_go_but_not_freed(void)
{
    rig_make(&r);
    pid_t pid = spawn(die_between_last_bit_and_freeing, NULL);
    CHECK_EQ(reap(pid), -SIGKILL);
    OK(&r.s, rl_slot_release(&r.s, rl_slot_find(&r.s, (uint32_t)pid)));
    rig_check_empty(&r);
    rig_drop(&r);
}

static int leave_in_good_order(void *argument)
{
    const rl_handle *shown = argument;
    rl_session s;
    rl_handle found;
    uint32_t block;
    rig_join(&r, &s);
    CHECK_EQ(rl_object_find(&s, shown->gen, 0, &found), 0);
    CHECK_EQ(rl_arena_fill(&s, 10000, &block), 0);
    leave_session(&s);
    return 0;
}

static void test_process_that_leaves_gives_back_what_it_held(void)
{
    rl_handle h;
    rig_make(&r);
    CHECK_EQ(value_put(&r.s, 3000, 8, NULL, 0, &h), 0);
    pid_t pid = spawn(leave_in_good_order, &h);
    CHECK_EQ(reap(pid), 0);
    CHECK_EQ(rl_slot_find(&r.s, (uint32_t)pid), RL_NIL);
    rl_object_release(&r.s, h);
    rig_check_empty(&r);
    rig_drop(&r);
}

int main(void)
{
    RUN(test_claimed_slot_says_whose_it_is);
    RUN(test_join_of_a_full_session_is_refused);
    RUN(test_start_time_of_a_process_that_is_not_there_is_zero);
    RUN(test_release_of_a_free_or_impossible_slot_does_nothing);
    RUN(test_janitor_gives_back_all_that_a_dead_process_held);
    RUN(test_janitor_rings_everybody);
    RUN(test_janitor_frees_what_the_dead_had_let_go_but_not_freed);
    RUN(test_process_that_leaves_gives_back_what_it_held);
    return 0;
}
