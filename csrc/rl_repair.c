/* rl_repair.c - see rl_repair.h. */
#include "rl_repair.h"

#include "rl_actor.h"
#include "rl_arena.h"
#include "rl_err.h"
#include "rl_fault.h"
#include "rl_list.h"
#include "rl_object.h"
#include "rl_stream.h"
#include "rl_task.h"

int rl_repair(rl_session *s)
{
    rl_mapping *m = &s->map;
    rl_section section = {.s = s};

    if (rl_task_validate(m)) return RL_ECORRUPT;

    /* Tags of blocks follow from objects; then the arena is whole and can take blocks back. */
    int err = rl_object_rebuild_begin(m);
    if (err) return err;
    RL_KILL_POINT("repair.arena");
    err = rl_arena_rebuild(m);
    if (err) return err;

    RL_KILL_POINT("repair.names");
    rl_list_rebuild_begin(m);
    rl_stream_rebuild_begin(m);
    rl_actor_rebuild_begin(m);
    rl_object_rebuild_names(m);
    rl_stream_rebuild_names(m);
    rl_task_rebuild_names(m);
    rl_actor_rebuild_end(m);
    rl_list_rebuild_end(m);

    /* Queues before objects: what becomes unreachable below may be needed by no task. */
    RL_KILL_POINT("repair.tasks");
    rl_task_rebuild_end(&section);
    RL_KILL_POINT("repair.objects");
    rl_object_rebuild_end(&section);
    rl_stream_rebuild_end(&section);
    return 0;
}
