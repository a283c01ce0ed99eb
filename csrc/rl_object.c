/* rl_object.c - see rl_object.h. */
#include "rl_object.h"

#include "rl_arena.h"
#include "rl_err.h"
#include "rl_fault.h"
#include "rl_list.h"
#include "rl_stream.h"
#include "rl_table.h"
#include "rl_task.h"
#include "rl_wait.h"

#include <errno.h>
#include <string.h>

/* ---- records ---- */

static uint32_t state_of(const rl_object *o)
{
    return atomic_load_explicit(&o->state, memory_order_acquire) & RL_OBJECT_STATE;
}

static uint64_t gen_of(const rl_object *o)
{
    return atomic_load_explicit(&o->gen, memory_order_acquire);
}

static int is_live(uint32_t state)
{
    return state == RL_OBJECT_PENDING || state == RL_OBJECT_SEALED || state == RL_OBJECT_DROPPED;
}

rl_handle rl_object_handle(const rl_mapping *m, uint32_t object)
{
    return (rl_handle){.index = object, .gen = gen_of(&m->objects[object])};
}

static int valid(const rl_session *s, rl_handle h)
{
    return h.index < s->map.control->objects.capacity; /* constant: read without the lock */
}

static uint32_t producer_of(const rl_object *o)
{
    return atomic_load_explicit(&o->producer, memory_order_relaxed);
}

int rl_object_is_of(const rl_mapping *m, uint32_t object, uint32_t task)
{
    return producer_of(&m->objects[object]) == task;
}

void rl_object_set_producer(rl_mapping *m, uint32_t object, uint32_t task)
{
    atomic_store_explicit(&m->objects[object].producer, task, memory_order_relaxed);
}

static int held_by_any(const rl_object *o)
{
    uint64_t any = 0;
    for (int w = 0; w < RL_SLOT_WORDS; w++) {
        any |= atomic_load_explicit(&o->holders[w], memory_order_seq_cst);
    }
    return any != 0;
}

static void set_bit(rl_object *o, uint32_t slot)
{
    atomic_fetch_or_explicit(&o->holders[slot / 64], UINT64_C(1) << (slot % 64),
                             memory_order_seq_cst);
}

static void clear_bit(rl_object *o, uint32_t slot)
{
    atomic_fetch_and_explicit(&o->holders[slot / 64], ~(UINT64_C(1) << (slot % 64)),
                              memory_order_seq_cst);
}

static uint32_t take_record(rl_mapping *m)
{
    return rl_table_take(&m->control->objects, m->objects, sizeof(rl_object),
                         offsetof(rl_object, next));
}

static void give_record(rl_mapping *m, uint32_t i)
{
    rl_table_give(&m->control->objects, m->objects, sizeof(rl_object), offsetof(rl_object, next),
                  i);
}

/* ---- freeing ---- */

static void count_names(rl_mapping *m, rl_list list)
{
    rl_walk w = rl_list_walk(m, list);
    for (uint32_t i = rl_walk_next(&w); i != RL_NIL; i = rl_walk_next(&w)) rl_object_name(m, i);
}

void rl_object_name(rl_mapping *m, uint32_t object)
{
    atomic_fetch_add_explicit(&m->objects[object].names, 1, memory_order_seq_cst);
}

/* Does nobody need object i any more? Its running producer's name does not count for the payload,
 * see push_if_only_produced(). */
static int unreachable(const rl_object *o)
{
    return is_live(state_of(o)) && !held_by_any(o) &&
           atomic_load_explicit(&o->names, memory_order_seq_cst) == 0;
}

static int is_unread_failure(const rl_object *o)
{
    return state_of(o) == RL_OBJECT_SEALED && o->kind == RL_KIND_ERROR &&
           (atomic_load_explicit(&o->flags, memory_order_relaxed) & RL_OBJECT_ASKED) == 0;
}

/* Keep a failure that nobody read for the supervisor to print; returns 0 if there is none. */
static int hand_to_supervisor(rl_section *section, rl_object *o)
{
    rl_control *c = section->s->map.control;
    if (c->supervisor == RL_NIL || atomic_load_explicit(&c->ended, memory_order_relaxed)) return 0;
    atomic_fetch_or_explicit(&o->flags, RL_OBJECT_REPORT | RL_OBJECT_ASKED, memory_order_relaxed);
    set_bit(o, c->supervisor);
    c->reports++;
    section->bell = 1;
    return 1;
}

static void push_if_unreachable(rl_section *section, uint32_t i, uint32_t *todo)
{
    rl_object *o = &section->s->map.objects[i];
    if (!unreachable(o)) return;
    if (is_unread_failure(o) && hand_to_supervisor(section, o)) return;
    uint32_t flags = atomic_load_explicit(&o->flags, memory_order_relaxed);
    RL_KILL_POINT("object.free.before");
    atomic_store_explicit(&o->state, RL_OBJECT_FREEING, memory_order_seq_cst); /* COMMIT */
    RL_KILL_POINT("object.free.after");
    if (flags & RL_OBJECT_REPORT) section->s->map.control->reports--; /* no supervisor took it */
    o->next = *todo;
    *todo = i;
}

int rl_object_is_only_produced(const rl_mapping *m, uint32_t object)
{
    const rl_object *o = &m->objects[object];
    return state_of(o) == RL_OBJECT_PENDING && !held_by_any(o) && producer_of(o) != RL_NIL &&
           atomic_load_explicit(&o->names, memory_order_seq_cst) == 1;
}

/* Only its running producer names this value, for comparison with a second attempt: keep the
 * record (it has the fingerprint), give the memory back. */
static void push_if_only_produced(rl_section *section, uint32_t i, uint32_t *todo)
{
    rl_object *o = &section->s->map.objects[i];
    if (rl_object_is_only_produced(&section->s->map, i)) {
        rl_task_unreachable(section, producer_of(o));
        return;
    }
    if (state_of(o) != RL_OBJECT_SEALED || held_by_any(o)) return;
    if (atomic_load_explicit(&o->names, memory_order_relaxed) != 1) return;
    if (producer_of(o) == RL_NIL) return;
    if (is_unread_failure(o) && hand_to_supervisor(section, o)) return;
    RL_KILL_POINT("object.drop.before");
    atomic_store_explicit(&o->state, RL_OBJECT_DROPPED, memory_order_seq_cst); /* COMMIT */
    RL_KILL_POINT("object.drop.after");
    o->next = *todo;
    *todo = i;
}

void rl_object_unname_later(rl_section *section, uint32_t object, uint32_t *todo)
{
    atomic_fetch_sub_explicit(&section->s->map.objects[object].names, 1, memory_order_seq_cst);
    push_if_unreachable(section, object, todo);
    push_if_only_produced(section, object, todo);
}

static void drop_names(rl_section *section, rl_list list, uint32_t *todo)
{
    rl_mapping *m = &section->s->map;
    rl_walk w = rl_list_walk(m, list);
    for (uint32_t i = rl_walk_next(&w); i != RL_NIL; i = rl_walk_next(&w)) {
        rl_object_unname_later(section, i, todo);
    }
    rl_list_free(m, list);
}

/* The stream of an outlet. */
static rl_handle stream_in(const rl_object *o)
{
    rl_handle stream;
    memcpy(&stream, o->bytes, sizeof stream);
    return stream;
}

/* Release what object i keeps alive. What becomes unreachable is pushed on the work-list `*todo`. */
static void free_contents(rl_section *section, uint32_t i, uint32_t *todo)
{
    rl_object *o = &section->s->map.objects[i];
    if (o->block != RL_NIL) rl_arena_free(section, o->block);
    o->block = RL_NIL;
    rl_list refs = o->refs;
    o->refs = (rl_list){.head = RL_NIL};
    drop_names(section, refs, todo);
    if (o->kind == RL_KIND_OUTLET) rl_stream_let_go(section, stream_in(o), todo);
}

/* Free everything on the work-list; of what is DROPPED, the contents only. */
void rl_object_work_off(rl_section *section, uint32_t todo)
{
    rl_mapping *m = &section->s->map;
    while (todo != RL_NIL) {
        uint32_t i = todo;
        rl_object *o = &m->objects[i];
        todo = o->next;
        free_contents(section, i, &todo);
        if (state_of(o) == RL_OBJECT_DROPPED) continue;
        RL_KILL_POINT("object.freed.before");
        atomic_store_explicit(&o->state, RL_OBJECT_FREE, memory_order_release); /* COMMIT */
        RL_KILL_POINT("object.freed.after");
        m->control->objects_live--;
        give_record(m, i);
    }
}

static void release_one(rl_section *section, uint32_t i)
{
    uint32_t todo = RL_NIL;
    push_if_unreachable(section, i, &todo);
    push_if_only_produced(section, i, &todo);
    rl_object_work_off(section, todo);
}

void rl_object_unname(rl_section *section, uint32_t object)
{
    uint32_t todo = RL_NIL;
    rl_object_unname_later(section, object, &todo);
    rl_object_work_off(section, todo);
}

void rl_object_unname_list(rl_section *section, rl_list list)
{
    uint32_t todo = RL_NIL;
    drop_names(section, list, &todo);
    rl_object_work_off(section, todo);
}

void rl_object_drop_holds(rl_section *section, uint32_t slot)
{
    rl_mapping *m = &section->s->map;
    uint64_t bit = UINT64_C(1) << (slot % 64);
    for (uint32_t i = 0; i < m->control->objects.high_water; i++) {
        rl_object *o = &m->objects[i];
        if (!is_live(state_of(o))) continue;
        uint64_t word = atomic_load_explicit(&o->holders[slot / 64], memory_order_relaxed);
        if (word & bit) clear_bit(o, slot);
        RL_KILL_POINT("object.drop_holds");
        /* Also without the bit: the dead may have cleared it last and freed nothing yet. */
        release_one(section, i);
    }
}

/* ---- holding ---- */

void rl_object_hold(rl_session *s, rl_handle h)
{
    if (rl_is_detached(s)) return;
    pthread_mutex_lock(&s->local_mutex);
    uint32_t had = atomic_fetch_add_explicit(&s->local[h.index], 1, memory_order_relaxed);
    if (had == 0) set_bit(&s->map.objects[h.index], s->slot);
    pthread_mutex_unlock(&s->local_mutex);
}

static uint32_t number_of(const rl_object *o)
{
    return atomic_load_explicit(&o->flags, memory_order_relaxed) >> RL_OBJECT_NUMBER_SHIFT;
}

uint32_t rl_object_number(const rl_session *s, rl_handle h)
{
    return number_of(&s->map.objects[h.index]);
}

/* Index of the object that can be referred to by `gen` and `number`, or RL_NIL. */
static uint32_t search(const rl_mapping *m, uint64_t gen, uint32_t number)
{
    for (uint32_t i = 0; i < m->control->objects.high_water; i++) {
        const rl_object *o = &m->objects[i];
        if (gen_of(o) != gen || number_of(o) != number) continue;
        uint32_t state = state_of(o);
        if (state == RL_OBJECT_PENDING || state == RL_OBJECT_SEALED) return i;
    }
    return RL_NIL;
}

int rl_object_find(rl_session *s, uint64_t gen, uint32_t number, rl_handle *out)
{
    rl_section section;
    pthread_mutex_lock(&s->local_mutex);
    int err = rl_enter(s, &section, RL_OP_OBJECT);
    if (err) goto unlock;

    uint32_t i = search(&s->map, gen, number);
    if (i == RL_NIL) {
        err = RL_ESTALE;
    } else {
        atomic_fetch_add_explicit(&s->local[i], 1, memory_order_relaxed);
        set_bit(&s->map.objects[i], s->slot);
        *out = rl_object_handle(&s->map, i);
    }
    rl_leave(&section);
unlock:
    pthread_mutex_unlock(&s->local_mutex);
    return err;
}

/* The section that frees an object may find it freed, or reused, by another process already. */
static void release_shared(rl_session *s, rl_handle h)
{
    rl_section section;
    if (rl_enter(s, &section, RL_OP_OBJECT)) return;
    if (gen_of(&s->map.objects[h.index]) == h.gen) release_one(&section, h.index);
    rl_leave(&section);
}

void rl_object_release(rl_session *s, rl_handle h)
{
    if (rl_is_detached(s)) return;
    rl_object *o = &s->map.objects[h.index];
    int last = 0;
    pthread_mutex_lock(&s->local_mutex);
    if (atomic_fetch_sub_explicit(&s->local[h.index], 1, memory_order_relaxed) == 1) {
        clear_bit(o, s->slot);
        /* Another holder or another name: nothing to do now (FREEING). */
        uint32_t names = atomic_load_explicit(&o->names, memory_order_seq_cst);
        last = !held_by_any(o) && names <= (producer_of(o) != RL_NIL);
    }
    pthread_mutex_unlock(&s->local_mutex);
    if (last) release_shared(s, h);
}

/* This process's first references, to an object that no other thread knows yet. */
static void hold_new(rl_session *s, rl_object *o, uint32_t i, uint32_t count)
{
    atomic_store_explicit(&s->local[i], count, memory_order_relaxed);
    set_bit(o, s->slot);
}

/* ---- storing ---- */

static void clear_record(rl_object *o)
{
    for (int w = 0; w < RL_SLOT_WORDS; w++) {
        atomic_store_explicit(&o->holders[w], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&o->names, 0, memory_order_relaxed);
    atomic_store_explicit(&o->flags, 0, memory_order_relaxed);
    o->block = RL_NIL;
    atomic_store_explicit(&o->producer, RL_NIL, memory_order_relaxed);
    o->waiting = RL_NIL;
    o->refs = (rl_list){.head = RL_NIL};
}

static void write_value(rl_object *o, const rl_value *v, rl_list refs)
{
    o->kind = v->kind;
    o->nbytes = v->nbytes;
    o->block = v->block;
    o->refs = refs;
    o->fingerprint = v->fingerprint;
    if (v->block == RL_NIL && v->nbytes) memcpy(o->bytes, v->bytes, v->nbytes);
}

static int check_value(const rl_session *s, const rl_value *v)
{
    if (v->block == RL_NIL) return v->nbytes <= RL_INLINE ? 0 : RL_EINVAL;
    if (v->block >= s->map.control->blocks.high_water) return RL_EINVAL;
    const rl_block *b = &s->map.blocks[v->block];
    uint32_t tag = atomic_load_explicit(&b->tag, memory_order_relaxed);
    if (tag != (RL_BLOCK_FILLING | s->slot)) return RL_EINVAL;
    return v->nbytes <= b->length ? 0 : RL_EINVAL;
}

int rl_object_check_values(const rl_session *s, const rl_value *values, uint32_t n)
{
    uint64_t chunks = 0;
    for (uint32_t i = 0; i < n; i++) {
        int err = check_value(s, &values[i]);
        if (err) return err;
        chunks += rl_list_chunks(values[i].nrefs);
    }
    return chunks <= rl_table_room(&s->map.control->chunks) ? 0 : RL_ETABLE;
}

/* After the COMMIT of a seal: what is derived from it. */
static void settle_value(rl_mapping *m, uint32_t i, const rl_value *v)
{
    if (v->block != RL_NIL) {
        rl_arena_seal(m, v->block, i);
        m->control->sealed_in_place += v->counts_as == RL_IN_PLACE;
        m->control->copied += v->counts_as == RL_COPIED;
    }
    count_names(m, m->objects[i].refs);
}

/* Make a SEALED object of a value; `hold`: for this process. The record is not named. */
static int make_sealed(rl_session *s, const rl_value *v, uint64_t gen, uint32_t number, int hold,
                       uint32_t *out)
{
    rl_mapping *m = &s->map;
    rl_list refs;
    int err = check_value(s, v);
    if (!err && rl_table_room(&m->control->objects) == 0) err = RL_ETABLE;
    if (!err) err = rl_list_make(m, v->refs, v->nrefs, &refs);
    if (err) return err;

    uint32_t i = take_record(m);
    rl_object *o = &m->objects[i];
    clear_record(o);
    atomic_store_explicit(&o->gen, gen, memory_order_relaxed);
    atomic_store_explicit(&o->flags, number << RL_OBJECT_NUMBER_SHIFT, memory_order_relaxed);
    write_value(o, v, refs);
    uint32_t holds = (uint32_t)(hold != 0) + (v->kept != NULL);
    if (holds) hold_new(s, o, i, holds);
    if (v->kept) *v->kept = (rl_handle){.index = i, .gen = gen};
    RL_KILL_POINT("object.put.before");
    atomic_store_explicit(&o->state, RL_OBJECT_SEALED, memory_order_release); /* COMMIT */
    RL_KILL_POINT("object.put.after");
    m->control->objects_live++;
    settle_value(m, i, v);
    *out = i;
    return 0;
}

int rl_object_put(rl_session *s, const rl_value *v, rl_handle *out)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_OBJECT);
    if (err) return err;
    uint32_t i;
    err = make_sealed(s, v, s->map.control->next_seq++, 0, 1, &i);
    if (!err) *out = rl_object_handle(&s->map, i);
    rl_leave(&section);
    if (!err) out->kind = RL_HANDLE_SEALED;
    return err;
}

int rl_object_make_item(rl_section *section, const rl_value *v, uint64_t gen, uint32_t number,
                        uint32_t *out)
{
    return make_sealed(section->s, v, gen, number, 0, out);
}

uint32_t rl_object_make_outlet(rl_session *s, rl_handle stream)
{
    const rl_value v = {
        .kind = RL_KIND_OUTLET, .block = RL_NIL, .nbytes = sizeof stream, .bytes = &stream};
    uint32_t i;
    return make_sealed(s, &v, s->map.control->next_seq++, 0, 1, &i) ? RL_NIL : i;
}

void rl_object_await_end(rl_mapping *m, uint32_t object)
{
    rl_object *o = &m->objects[object];
    if (rl_task_fills(m, producer_of(o)) == RL_NIL) return;
    atomic_fetch_or_explicit(&o->state, RL_OBJECT_WAITED, memory_order_seq_cst);
    rl_stream_end_is_awaited(m, producer_of(o));
}

int rl_object_is_awaited(const rl_mapping *m, uint32_t object)
{
    uint32_t state = atomic_load_explicit(&m->objects[object].state, memory_order_seq_cst);
    return (state & RL_OBJECT_STATE) == RL_OBJECT_PENDING && state != RL_OBJECT_PENDING;
}

int rl_object_is_outlet(const rl_mapping *m, uint32_t object, rl_handle *stream)
{
    if (object >= m->control->objects.capacity) return 0;
    const rl_object *o = &m->objects[object];
    if (state_of(o) != RL_OBJECT_SEALED || o->kind != RL_KIND_OUTLET) return 0;
    *stream = stream_in(o);
    return 1;
}

rl_handle rl_object_adopt(rl_session *s, uint32_t object)
{
    atomic_fetch_add_explicit(&s->local[object], 1, memory_order_relaxed);
    set_bit(&s->map.objects[object], s->slot);
    return rl_object_handle(&s->map, object);
}

uint32_t rl_object_make_pending(rl_session *s, uint32_t producer, uint64_t gen, uint32_t number)
{
    rl_mapping *m = &s->map;
    uint32_t i = take_record(m);
    if (i == RL_NIL) return RL_NIL;
    rl_object *o = &m->objects[i];
    clear_record(o);
    atomic_store_explicit(&o->gen, gen, memory_order_relaxed);
    atomic_store_explicit(&o->flags, number << RL_OBJECT_NUMBER_SHIFT, memory_order_relaxed);
    atomic_store_explicit(&o->producer, producer, memory_order_relaxed);
    hold_new(s, o, i, 1);
    RL_KILL_POINT("object.pending.before");
    atomic_store_explicit(&o->state, RL_OBJECT_PENDING, memory_order_release); /* COMMIT */
    RL_KILL_POINT("object.pending.after");
    m->control->objects_live++;
    return i;
}

void rl_object_ring_holders(rl_section *section, uint32_t object)
{
    const rl_object *o = &section->s->map.objects[object];
    for (int w = 0; w < RL_SLOT_WORDS; w++) {
        section->ring[w] |= atomic_load_explicit(&o->holders[w], memory_order_relaxed);
    }
}

int rl_object_seal(rl_section *section, uint32_t i, const rl_value *v)
{
    rl_mapping *m = &section->s->map;
    rl_object *o = &m->objects[i];
    if (state_of(o) != RL_OBJECT_PENDING) return RL_ESTALE;
    rl_list refs;
    int err = check_value(section->s, v);
    if (!err) err = rl_list_make(m, v->refs, v->nrefs, &refs);
    if (err) return err;

    write_value(o, v, refs);
    RL_KILL_POINT("object.seal.before");
    uint32_t old =
        atomic_exchange_explicit(&o->state, RL_OBJECT_SEALED, memory_order_seq_cst); /* COMMIT */
    RL_KILL_POINT("object.seal.after");
    settle_value(m, i, v);
    int failed = v->kind == RL_KIND_ERROR;
    if (failed) atomic_fetch_add_explicit(&m->control->failures, 1, memory_order_seq_cst);
    if (old & RL_OBJECT_WAITED || (old & RL_OBJECT_WATCHED && failed)) {
        rl_object_ring_holders(section, i);
    }
    rl_task_dependency_sealed(section, i);
    release_one(section, i); /* its refs may be gone already */
    return 0;
}

/* ---- reading ---- */

int rl_object_is_sealed(const rl_session *s, rl_handle h)
{
    return state_of(&s->map.objects[h.index]) == RL_OBJECT_SEALED;
}

int rl_object_is_failure(const rl_session *s, rl_handle h)
{
    const rl_object *o = &s->map.objects[h.index];
    return state_of(o) == RL_OBJECT_SEALED && o->kind == RL_KIND_ERROR;
}

static void mark_read(rl_object *o)
{
    if (atomic_load_explicit(&o->flags, memory_order_relaxed) & RL_OBJECT_ASKED) return;
    atomic_fetch_or_explicit(&o->flags, RL_OBJECT_ASKED, memory_order_relaxed);
}

int rl_object_read(rl_session *s, rl_handle h, rl_payload *out)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    if (!valid(s, h)) return RL_ESTALE;
    rl_object *o = &s->map.objects[h.index];
    if (gen_of(o) != h.gen) return RL_ESTALE;
    uint32_t state = state_of(o);
    if (state == RL_OBJECT_PENDING) return RL_EAGAIN;
    if (state != RL_OBJECT_SEALED) return RL_ESTALE;

    out->kind = o->kind;
    out->nrefs = o->refs.n;
    out->nbytes = o->nbytes;
    out->fingerprint = o->fingerprint;
    out->in_block = o->block != RL_NIL;
    if (out->in_block) {
        if (o->block >= s->map.control->blocks.capacity) return RL_ECORRUPT;
        uint64_t offset = s->map.blocks[o->block].offset;
        if (offset > s->map.data_size || out->nbytes > s->map.data_size - offset)
            return RL_ECORRUPT;
        out->bytes = s->map.ro + offset;
    } else {
        if (out->nbytes > RL_INLINE) return RL_ECORRUPT;
        memcpy(out->copy, o->bytes, RL_INLINE);
        out->bytes = out->copy;
    }
    if (out->kind == RL_KIND_ERROR) mark_read(o);
    return 0;
}

int rl_object_read_refs(rl_session *s, rl_handle h, rl_handle *out, uint32_t n)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    const rl_object *o = &s->map.objects[h.index];
    if (gen_of(o) != h.gen || state_of(o) != RL_OBJECT_SEALED) return RL_ESTALE;
    if (n > o->refs.n) return RL_EINVAL;
    rl_walk w = rl_list_walk(&s->map, o->refs);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = rl_walk_next(&w);
        if (i == RL_NIL) return RL_ECORRUPT;
        out[k] = rl_object_handle(&s->map, i);
        rl_object_hold(s, out[k]);
    }
    return 0;
}

/* ---- waiting ---- */

/* Leave word on a pending object that we wait for it: RL_OBJECT_WAITED or _WATCHED. Returns whether
 * it is sealed, and so nobody will ring. */
static int leave_word(rl_session *s, rl_object *o, uint32_t word)
{
    uint32_t state = atomic_load_explicit(&o->state, memory_order_seq_cst);
    while ((state & RL_OBJECT_STATE) == RL_OBJECT_PENDING && (state & word) != word) {
        if (!atomic_compare_exchange_weak_explicit(&o->state, &state, state | word,
                                                   memory_order_seq_cst, memory_order_seq_cst)) {
            continue;
        }
        rl_stream_end_is_awaited(&s->map, producer_of(o));
        return state_of(o) == RL_OBJECT_SEALED;
    }
    return (state & RL_OBJECT_STATE) == RL_OBJECT_SEALED;
}

/* What is waited for. */
typedef struct rl_wish {
    const rl_handle *h;
    uint32_t n, need;
    int stop_at_error;
    int64_t deadline_ns;
    uint32_t interrupts;
} rl_wish;

/* How far a wait has come. In the end n - need objects may be missing; so it is enough to leave word
 * on one more of those that are, and a seal of any other rings nobody. The last of the list are
 * watched, for what was submitted first is mostly there first. */
typedef struct rl_watch {
    uint32_t from;     /* h[from..n) have been looked at */
    uint32_t missing;  /* of those: RL_OBJECT_WAITED is left on them */
    int failed;        /* one that is sealed is a failure */
    int told;          /* RL_OBJECT_WATCHED is left on h[0..from) */
    uint32_t failures; /* the session's count when h[0..from) were last looked at */
} rl_watch;

/* Is h[i] sealed (a stream: has it an item, or ended)? Else leaves `word` on it. */
static uint8_t look_at(rl_session *s, const rl_wish *w, uint32_t i, uint32_t word, int *failed)
{
    if (w->h[i].kind == RL_HANDLE_STREAM) return (uint8_t)rl_stream_is_ready(s, w->h[i]);
    rl_object *o = &s->map.objects[w->h[i].index];
    if (!leave_word(s, o, word)) return 0;
    *failed |= o->kind == RL_KIND_ERROR;
    return 1;
}

static int ends_by_failure(const rl_wish *w, const rl_watch *watch)
{
    return w->stop_at_error && watch->failed;
}

/* Look again at what is watched, and at more of the list while too few are missing. */
static int is_enough(rl_session *s, const rl_wish *w, uint8_t *ready, rl_watch *watch)
{
    uint32_t may_miss = w->n - w->need, left = watch->missing;
    for (uint32_t i = watch->from; left > 0 && watch->missing > may_miss; i++) {
        if (ready[i]) continue;
        ready[i] = look_at(s, w, i, RL_OBJECT_WAITED, &watch->failed);
        watch->missing -= ready[i];
        left--;
    }
    while (watch->from > 0 && watch->missing <= may_miss) {
        uint32_t i = --watch->from;
        ready[i] = look_at(s, w, i, RL_OBJECT_WAITED, &watch->failed);
        watch->missing += !ready[i];
    }
    return watch->missing <= may_miss || ends_by_failure(w, watch);
}

/* Look at the objects that are not watched, once and after each failure of the session: the end of
 * a stream is to know that it is awaited, and a failure may end the wait. Returns whether it does.
 */
static int is_ended_by_others(rl_session *s, const rl_wish *w, rl_watch *watch)
{
    uint32_t failures = atomic_load_explicit(&s->map.control->failures, memory_order_seq_cst);
    if (watch->told && (!w->stop_at_error || watch->failures == failures)) return 0;
    watch->told = 1;
    watch->failures = failures;
    for (uint32_t i = 0; i < watch->from; i++) {
        look_at(s, w, i, RL_OBJECT_WATCHED, &watch->failed);
    }
    return ends_by_failure(w, watch);
}

/* Sleep until the doorbell differs from `seen`: 0 to look again, else the end of the wait. */
static int sleep_for(rl_session *s, const rl_wish *w, uint32_t seen)
{
    if (atomic_load_explicit(&s->interrupts, memory_order_seq_cst) != w->interrupts) return EINTR;
    if (rl_doorbell_spin(s, seen)) return 0;
    int err = rl_doorbell_wait(s, seen, w->deadline_ns);
    return err == RL_ETIMEDOUT ? 0 : err;
}

static int sleep_until_enough(rl_session *s, const rl_wish *w, uint8_t *ready)
{
    rl_watch watch = {.from = w->n};
    for (;;) {
        uint32_t seen = rl_doorbell_read(s);
        if (is_enough(s, w, ready, &watch)) return 0;
        if (w->deadline_ns != INT64_MAX && rl_now_ns() >= w->deadline_ns) return RL_ETIMEDOUT;
        if (is_ended_by_others(s, w, &watch)) return 0;
        int err = sleep_for(s, w, seen);
        if (err) return err;
    }
}

/* Which of them are there now, watched or not? If their values are asked for, all are marked. */
static uint32_t look_at_all(rl_session *s, const rl_wish *w, uint8_t *ready, int *failed)
{
    uint32_t nready = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        int is_object = w->h[i].kind != RL_HANDLE_STREAM;
        if (w->stop_at_error && is_object) mark_read(&s->map.objects[w->h[i].index]);
        ready[i] = look_at(s, w, i, 0, failed);
        nready += ready[i];
    }
    return nready;
}

int rl_object_wait(rl_session *s, const rl_handle *h, uint32_t n, uint32_t need, int stop_at_error,
                   int64_t deadline_ns, uint8_t *ready, uint32_t *nready)
{
    uint32_t interrupts = atomic_load_explicit(&s->interrupts, memory_order_seq_cst);
    return rl_object_wait_since(s, h, n, need, stop_at_error, deadline_ns, interrupts, ready,
                                nready);
}

int rl_object_wait_since(rl_session *s, const rl_handle *h, uint32_t n, uint32_t need,
                         int stop_at_error, int64_t deadline_ns, uint32_t interrupts,
                         uint8_t *ready, uint32_t *nready)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    for (uint32_t i = 0; i < n; i++) {
        if (h[i].kind != RL_HANDLE_STREAM && !valid(s, h[i])) return RL_ESTALE;
    }
    const rl_wish wish = {h, n, need, stop_at_error, deadline_ns, interrupts};
    for (;;) {
        int failed = 0;
        int err = sleep_until_enough(s, &wish, ready);
        *nready = look_at_all(s, &wish, ready, &failed);
        if (*nready >= need || (stop_at_error && failed)) return 0;
        if (err) return err;
    } /* another thread took an item of a stream that was there before */
}

/* Index of an object that is kept for its report, or RL_NIL. */
static uint32_t find_report(rl_control *c, const rl_object *objects)
{
    if (c->reports == 0) return RL_NIL;
    for (uint32_t n = 0; n < c->objects.high_water; n++) {
        uint32_t i = (c->report_from + n) % c->objects.high_water;
        const rl_object *o = &objects[i];
        uint32_t flags = atomic_load_explicit(&o->flags, memory_order_relaxed);
        if (state_of(o) != RL_OBJECT_SEALED || !(flags & RL_OBJECT_REPORT)) continue;
        c->report_from = i;
        return i;
    }
    return RL_NIL;
}

int rl_object_take_report(rl_session *s, rl_handle *out)
{
    rl_mapping *m = &s->map;
    rl_section section;
    pthread_mutex_lock(&s->local_mutex);
    int err = rl_enter(s, &section, RL_OP_OBJECT);
    if (err) goto unlock;
    uint32_t i = find_report(m->control, m->objects);
    if (i == RL_NIL) {
        err = RL_EAGAIN;
    } else {
        rl_object *o = &m->objects[i];
        atomic_fetch_and_explicit(&o->flags, ~(uint32_t)RL_OBJECT_REPORT, memory_order_relaxed);
        m->control->reports--;
        *out = rl_object_adopt(s, i);
    }
    rl_leave(&section);
unlock:
    pthread_mutex_unlock(&s->local_mutex);
    return err;
}

/* ---- rebuild ---- */

/* Can object i have this block? It is sealed for it, or was being filled for it by the dead. */
static int is_block_of(const rl_mapping *m, uint32_t block, uint32_t i)
{
    if (block >= m->control->blocks.high_water) return 0;
    uint32_t tag = atomic_load_explicit(&m->blocks[block].tag, memory_order_relaxed);
    return tag == (RL_BLOCK_SEALED | i) || (tag & RL_BLOCK_KIND) == RL_BLOCK_FILLING;
}

int rl_object_rebuild_begin(rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->objects.high_water; i++) {
        rl_object *o = &m->objects[i];
        atomic_store_explicit(&o->names, 0, memory_order_relaxed);
        atomic_store_explicit(&o->producer, RL_NIL, memory_order_relaxed);
        o->waiting = RL_NIL;
        uint32_t state = state_of(o);
        if (state == RL_OBJECT_FREE) clear_record(o);
        if (state != RL_OBJECT_SEALED || o->block == RL_NIL) continue;
        if (!is_block_of(m, o->block, i)) return RL_ECORRUPT;
        rl_arena_seal(m, o->block, i); /* O4 */
    }
    return 0;
}

void rl_object_rebuild_names(rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->objects.high_water; i++) {
        if (state_of(&m->objects[i]) != RL_OBJECT_SEALED) continue;
        rl_list_rebuild_mark(m, m->objects[i].refs);
        count_names(m, m->objects[i].refs);
    }
}

/* A block that says it is sealed but that no sealed object has: its object was being freed. */
static void free_ownerless_blocks(rl_section *section)
{
    rl_mapping *m = &section->s->map;
    for (uint32_t b = 0; b < m->control->blocks.high_water; b++) {
        uint32_t tag = atomic_load_explicit(&m->blocks[b].tag, memory_order_relaxed);
        if ((tag & RL_BLOCK_KIND) != RL_BLOCK_SEALED) continue;
        const rl_object *o = &m->objects[tag & RL_BLOCK_WHO];
        if (state_of(o) != RL_OBJECT_SEALED || o->block != b) rl_arena_free(section, b);
    }
}

void rl_object_rebuild_end(rl_section *section)
{
    rl_mapping *m = &section->s->map;
    rl_control *c = m->control;
    free_ownerless_blocks(section);

    rl_table_rebuild_begin(&c->objects);
    c->objects_live = 0;
    c->reports = 0;
    for (uint32_t i = c->objects.high_water; i-- > 0;) {
        rl_object *o = &m->objects[i];
        uint32_t state = state_of(o);
        /* Its submitter died before the task was committed; nobody else knows of it (O5). */
        int orphan = state == RL_OBJECT_PENDING && producer_of(o) == RL_NIL;
        if (state == RL_OBJECT_FREEING || orphan) {
            clear_record(o);
            atomic_store_explicit(&o->state, RL_OBJECT_FREE, memory_order_release);
            state = RL_OBJECT_FREE;
        }
        if (state == RL_OBJECT_FREE) {
            give_record(m, i);
            continue;
        }
        if (state == RL_OBJECT_DROPPED) {
            o->block = RL_NIL;
            o->refs = (rl_list){.head = RL_NIL};
        }
        c->objects_live++;
        if (!(atomic_load_explicit(&o->flags, memory_order_relaxed) & RL_OBJECT_REPORT)) continue;
        c->reports++;
        if (c->supervisor != RL_NIL) set_bit(o, c->supervisor);
    }
    for (uint32_t i = 0; i < c->objects.high_water; i++) release_one(section, i);
}

/* ---- check ---- */

static const char *check_sealed_blocks(const rl_mapping *m)
{
    for (uint32_t b = 0; b < m->control->blocks.high_water; b++) {
        uint32_t tag = atomic_load_explicit(&m->blocks[b].tag, memory_order_relaxed);
        if ((tag & RL_BLOCK_KIND) != RL_BLOCK_SEALED) continue;
        const rl_object *o = &m->objects[tag & RL_BLOCK_WHO];
        if (state_of(o) != RL_OBJECT_SEALED || o->block != b)
            return "object: a block has none (B4)";
    }
    return NULL;
}

const char *rl_object_check_reachable(const rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->objects.high_water; i++) {
        const rl_object *o = &m->objects[i];
        if (unreachable(o)) return "object: nobody can reach it, yet it lives (O1)";
        if (state_of(o) == RL_OBJECT_PENDING && !rl_task_produces(m, producer_of(o), i)) {
            return "object: pending without a producer (O5)";
        }
    }
    return NULL;
}

/* `names` is recounted by rl_check.c, which sees all owners. */
const char *rl_object_check(const rl_mapping *m)
{
    const rl_control *c = m->control;
    uint32_t nfree = 0, nreports = 0;
    for (uint32_t i = 0; i < c->objects.high_water; i++) {
        const rl_object *o = &m->objects[i];
        uint32_t state = state_of(o);
        if (state == RL_OBJECT_FREEING) return "object: left half freed";
        if (state == RL_OBJECT_FREE) {
            nfree++;
            if (held_by_any(o)) return "object: a free record has a holder (O1)";
            continue;
        }
        nreports += (atomic_load_explicit(&o->flags, memory_order_relaxed) & RL_OBJECT_REPORT) != 0;
        if (state == RL_OBJECT_SEALED && o->block != RL_NIL &&
            atomic_load_explicit(&m->blocks[o->block].tag, memory_order_relaxed) !=
                (RL_BLOCK_SEALED | i)) {
            return "object: its block does not say so (O4)";
        }
    }
    if (nfree != c->objects.nfree) return "object: a free record is lost";
    if (c->objects_live != c->objects.high_water - nfree) return "object: live count differs";
    if (nreports != c->reports) return "object: count of unread failures differs";
    return check_sealed_blocks(m);
}
