/* instructions.c - the core's hot path, over and over, for a counter of instructions to watch.
 *
 * Owns the loop and nothing else: instructions.py runs it under callgrind, which counts what each
 * public function of the core executes, and divides by the number of rounds (the argument). Two
 * members of one session are in one process, so nothing ever waits and the counts repeat.
 */
#include "harness.h"

enum { ROUNDS = 10000 };

static rig r;
static rl_session worker;

static rl_value small_value(const uint8_t *bytes)
{
    return (rl_value){.kind = 1, .block = RL_NIL, .nbytes = 8, .bytes = bytes, .fingerprint = 1};
}

static void get_and_drop(rl_handle h)
{
    rl_payload payload;
    CHECK(rl_object_is_sealed(&r.s, h));
    CHECK_EQ(rl_object_read(&r.s, h, &payload), 0);
    rl_object_release(&r.s, h);
}

/* submit, take, seal, finish, get */
static void task_round(const rl_value *value)
{
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    rl_handle mine, theirs;
    rl_job job;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &mine, NULL), 0);
    CHECK_EQ(rl_task_take(&worker, 0, &job), 0);
    CHECK_EQ(rl_task_returns(&worker, job.task, &theirs, 1), 0);
    CHECK_EQ(rl_task_return(&worker, job.task, theirs, value), 0);
    CHECK_EQ(rl_task_finish(&worker, job.task, (rl_handle){.index = RL_NIL}, NULL), 0);
    get_and_drop(mine);
}

static void put_round(const rl_value *value)
{
    rl_handle h;
    CHECK_EQ(rl_object_put(&r.s, value, &h), 0);
    get_and_drop(h);
}

/* The same through a block: claim it, seal it, read it, free it. */
static void block_round(void)
{
    rl_value value = small_value(NULL);
    value.bytes = NULL;
    value.nbytes = 64 * KIB;
    CHECK_EQ(rl_arena_fill(&r.s, value.nbytes, &value.block), 0);
    put_round(&value);
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : ROUNDS;
    static const uint8_t bytes[8] = "12345678";
    rl_value value = small_value(bytes);
    rig_make(&r);
    rig_join(&r, &worker);
    for (long i = 0; i < rounds; i++) {
        task_round(&value);
        put_round(&value);
        block_round();
    }
    leave_session(&worker);
    rig_drop(&r);
    return 0;
}
