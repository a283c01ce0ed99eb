/* rl_stream.c - see rl_stream.h. */
#include "rl_stream.h"

#include "rl_actor.h"
#include "rl_err.h"
#include "rl_fault.h"
#include "rl_list.h"
#include "rl_table.h"
#include "rl_task.h"
#include "rl_wait.h"

#include <string.h>

enum { LOGGED = RL_CHUNK_NAMES / 2 }; /* fingerprints in a chunk */

/* ---- records ---- */

static int is_live(const rl_stream *t)
{
    return atomic_load_explicit(&t->state, memory_order_acquire) == RL_STREAM_LIVE;
}

static rl_stream *find(const rl_mapping *m, rl_handle h)
{
    if (h.index >= m->control->streams.capacity) return NULL;
    rl_stream *t = &m->streams[h.index];
    return is_live(t) && atomic_load_explicit(&t->gen, memory_order_acquire) == h.gen ? t : NULL;
}

static uint32_t produced_of(const rl_stream *t)
{
    return atomic_load_explicit(&t->produced, memory_order_seq_cst);
}

static uint32_t taken_of(const rl_stream *t)
{
    return atomic_load_explicit(&t->taken, memory_order_seq_cst);
}

static uint32_t task_of(const rl_stream *t)
{
    return atomic_load_explicit(&t->task, memory_order_seq_cst);
}

static uint32_t outlet_of(const rl_stream *t)
{
    return atomic_load_explicit(&t->outlet, memory_order_seq_cst);
}

static void set_outlet(rl_stream *t, uint32_t object)
{
    atomic_store_explicit(&t->outlet, object, memory_order_seq_cst);
}

static uint64_t untaken_bytes_of(const rl_stream *t)
{
    return atomic_load_explicit(&t->untaken_bytes, memory_order_seq_cst);
}

/* `items` of `nbytes` more are untaken, or less: both may be negative. */
static void add_untaken(rl_mapping *m, rl_stream *t, int32_t items, int64_t nbytes)
{
    atomic_fetch_add_explicit(&t->untaken_bytes, (uint64_t)nbytes, memory_order_seq_cst);
    if (t->actor == RL_NIL) return;
    atomic_fetch_add_explicit(&m->actors[t->actor].untaken, (uint32_t)items, memory_order_seq_cst);
}

static int has_outlet(const rl_stream *t)
{
    return outlet_of(t) != RL_NIL;
}

/* `head` is the first chunk that matters, and its place among all chunks of the items: one word,
 * for one store must move both. */
static uint64_t pack_head(uint32_t place, uint32_t chunk)
{
    return (uint64_t)place << 32 | chunk;
}

static uint32_t head_chunk(const rl_stream *t)
{
    return (uint32_t)atomic_load_explicit(&t->head, memory_order_relaxed);
}

static uint32_t head_place(const rl_stream *t)
{
    return (uint32_t)(atomic_load_explicit(&t->head, memory_order_relaxed) >> 32);
}

/* ---- items ---- */

/* The chunk of item i, i >= taken, walking from the head; RL_NIL for nonsense. */
static uint32_t chunk_of(const rl_mapping *m, const rl_stream *t, uint32_t i)
{
    uint32_t chunk = head_chunk(t);
    for (uint32_t place = head_place(t); place < i / RL_CHUNK_NAMES; place++) {
        if (chunk >= m->control->chunks.capacity) return RL_NIL;
        chunk = m->chunks[chunk].next;
    }
    return chunk < m->control->chunks.capacity ? chunk : RL_NIL;
}

void rl_stream_each_item(const rl_mapping *m, uint32_t stream, rl_stream_visit visit, void *context)
{
    const rl_stream *t = &m->streams[stream];
    uint32_t i = taken_of(t), end = produced_of(t);
    uint32_t chunk = i < end ? chunk_of(m, t, i) : RL_NIL;
    for (; i < end && chunk != RL_NIL; i++) {
        visit(context, m->chunks[chunk].object[i % RL_CHUNK_NAMES]);
        if ((i + 1) % RL_CHUNK_NAMES == 0 && i + 1 < end) chunk = m->chunks[chunk].next;
        if (chunk >= m->control->chunks.capacity) return;
    }
}

uint32_t rl_stream_chunks(const rl_mapping *m, uint32_t stream)
{
    const rl_stream *t = &m->streams[stream];
    uint32_t end = produced_of(t);
    uint32_t items = end == 0 ? 0 : (end - 1) / RL_CHUNK_NAMES + 1 - head_place(t);
    uint32_t logged = t->logged ? (end + LOGGED - 1) / LOGGED : 0;
    return items + logged;
}

/* Append a chunk to the list that ends at `tail`, or start it; returns the new tail. */
static uint32_t extend(rl_mapping *m, uint32_t tail)
{
    uint32_t chunk = rl_list_take_chunk(m);
    if (tail != RL_NIL) m->chunks[tail].next = chunk;
    return chunk;
}

/* Write entry i of the items. The head of the first chunk is authoritative, so it is set here. */
static void write_item(rl_mapping *m, rl_stream *t, uint32_t i, uint32_t object)
{
    if (i % RL_CHUNK_NAMES == 0) {
        t->tail = extend(m, i == 0 ? RL_NIL : t->tail);
        if (i == 0) atomic_store_explicit(&t->head, pack_head(0, t->tail), memory_order_relaxed);
    }
    m->chunks[t->tail].object[i % RL_CHUNK_NAMES] = object;
}

static void write_log(rl_mapping *m, rl_stream *t, uint32_t i, uint64_t fingerprint)
{
    if (!t->logged) return;
    if (i % LOGGED == 0) {
        t->log_tail = extend(m, i == 0 ? RL_NIL : t->log_tail);
        if (i == 0) t->log = t->log_tail;
    }
    memcpy(&m->chunks[t->log_tail].object[i % LOGGED * 2], &fingerprint, sizeof fingerprint);
}

/* Give back the chunks whose items have all been taken; the last one stays, to be written on. */
static void trim(rl_mapping *m, rl_stream *t)
{
    uint32_t last = (produced_of(t) - 1) / RL_CHUNK_NAMES;
    uint32_t wanted = taken_of(t) / RL_CHUNK_NAMES;
    if (wanted > last) wanted = last;
    while (head_place(t) < wanted) {
        uint32_t old = head_chunk(t);
        uint64_t head = pack_head(head_place(t) + 1, m->chunks[old].next);
        RL_KILL_POINT("stream.trim.before");
        atomic_store_explicit(&t->head, head, memory_order_release); /* COMMIT */
        RL_KILL_POINT("stream.trim.after");
        rl_list_give_chunk(m, old);
    }
}

/* ---- life ---- */

uint32_t rl_stream_make(rl_session *s, const rl_stream_spec *spec, rl_handle *outlet)
{
    rl_mapping *m = &s->map;
    uint32_t i = rl_table_take(&m->control->streams, m->streams, sizeof(rl_stream),
                               offsetof(rl_stream, next));
    rl_stream *t = &m->streams[i];
    set_outlet(t, RL_NIL);
    atomic_store_explicit(&t->gen, spec->gen, memory_order_relaxed);
    atomic_store_explicit(&t->task, spec->task, memory_order_relaxed);
    atomic_store_explicit(&t->produced, 0, memory_order_relaxed);
    atomic_store_explicit(&t->taken, 0, memory_order_relaxed);
    atomic_store_explicit(&t->waited, 0, memory_order_relaxed);
    atomic_store_explicit(&t->paused, 0, memory_order_relaxed);
    atomic_store_explicit(&t->head, pack_head(0, RL_NIL), memory_order_relaxed);
    t->tail = t->log = t->log_tail = RL_NIL;
    atomic_store_explicit(&t->untaken_bytes, 0, memory_order_relaxed);
    t->limit = spec->limit;
    t->actor = spec->actor;
    t->logged = (uint32_t)spec->logged;
    RL_KILL_POINT("stream.make.before");
    atomic_store_explicit(&t->state, RL_STREAM_LIVE, memory_order_release); /* COMMIT */
    RL_KILL_POINT("stream.make.after");
    rl_handle stream = {.index = i, .gen = spec->gen, .kind = RL_HANDLE_STREAM};
    uint32_t object = rl_object_make_outlet(s, stream);
    set_outlet(t, object);
    *outlet = rl_object_handle(m, object);
    return i;
}

static void ring_holders(rl_section *section, rl_stream *t)
{
    if (!atomic_exchange_explicit(&t->waited, 0, memory_order_seq_cst)) return;
    if (has_outlet(t)) rl_object_ring_holders(section, outlet_of(t));
}

/* Items were taken: who pauses for them is to look. */
static void ring_producer(rl_section *section, rl_stream *t)
{
    if (t->actor != RL_NIL && section->s->map.actors[t->actor].most_untaken) {
        rl_actor_ring(section, t->actor); /* it may fill another stream by now */
    }
    if (!atomic_exchange_explicit(&t->paused, 0, memory_order_seq_cst)) return;
    uint32_t slot = rl_task_worker(&section->s->map, task_of(t));
    if (slot != RL_NIL) section->ring[slot / 64] |= UINT64_C(1) << (slot % 64);
}

/* Nobody will take the untaken items: free them. COMMIT first, so that a death in between leaves
 * objects without a name, which repair frees. */
static void drop_items(rl_section *section, uint32_t i, uint32_t *todo)
{
    rl_mapping *m = &section->s->map;
    rl_stream *t = &m->streams[i];
    uint32_t taken = taken_of(t), produced = produced_of(t);
    if (taken == produced) return;
    uint32_t chunk = chunk_of(m, t, taken);
    RL_KILL_POINT("stream.drop.before");
    atomic_store_explicit(&t->taken, produced, memory_order_seq_cst); /* COMMIT */
    RL_KILL_POINT("stream.drop.after");
    add_untaken(m, t, -(int32_t)(produced - taken), -(int64_t)untaken_bytes_of(t));
    for (; taken < produced && chunk != RL_NIL; taken++) {
        rl_object_unname_later(section, m->chunks[chunk].object[taken % RL_CHUNK_NAMES], todo);
        if ((taken + 1) % RL_CHUNK_NAMES == 0) chunk = m->chunks[chunk].next;
    }
    trim(m, t);
}

static void give_chunks(rl_mapping *m, uint32_t chunk)
{
    while (chunk != RL_NIL) {
        uint32_t next = m->chunks[chunk].next;
        rl_list_give_chunk(m, chunk);
        chunk = next;
    }
}

/* Apply R1 and R4 to stream i. */
static void settle(rl_section *section, uint32_t i, uint32_t *todo)
{
    rl_mapping *m = &section->s->map;
    rl_stream *t = &m->streams[i];
    if (!is_live(t) || has_outlet(t)) return;
    drop_items(section, i, todo);
    ring_producer(section, t);
    if (task_of(t) != RL_NIL) return;
    uint32_t head = head_chunk(t), log = t->log;
    RL_KILL_POINT("stream.free.before");
    atomic_store_explicit(&t->state, RL_STREAM_FREE, memory_order_release); /* COMMIT */
    RL_KILL_POINT("stream.free.after");
    give_chunks(m, head);
    give_chunks(m, log);
    rl_table_give(&m->control->streams, m->streams, sizeof(rl_stream), offsetof(rl_stream, next),
                  i);
}

void rl_stream_end(rl_section *section, uint32_t stream)
{
    rl_stream *t = &section->s->map.streams[stream];
    atomic_store_explicit(&t->task, RL_NIL, memory_order_seq_cst);
    ring_holders(section, t);
    uint32_t todo = RL_NIL;
    settle(section, stream, &todo);
    rl_object_work_off(section, todo);
}

void rl_stream_let_go(rl_section *section, rl_handle stream, uint32_t *todo)
{
    rl_stream *t = find(&section->s->map, stream);
    if (t == NULL) return;
    set_outlet(t, RL_NIL);
    settle(section, stream.index, todo);
}

int rl_stream_of(const rl_session *s, rl_handle outlet, rl_handle *stream)
{
    return rl_object_is_outlet(&s->map, outlet.index, stream) ? 0 : RL_EINVAL;
}

/* ---- append and take ---- */

int rl_stream_append(rl_session *s, rl_handle task, const rl_value *value)
{
    rl_mapping *m = &s->map;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_STREAM);
    if (err) return err;
    uint32_t index = rl_task_stream(s, task);
    rl_stream *t = index == RL_NIL ? NULL : &m->streams[index];
    if (t == NULL) err = RL_ESTALE;
    if (!err && !has_outlet(t)) err = RL_EAGAIN;
    if (!err && rl_table_room(&m->control->chunks) < 2 + rl_list_chunks(value->nrefs)) {
        err = RL_ETABLE;
    }
    uint32_t object = RL_NIL;
    uint32_t i = err ? 0 : produced_of(t);
    if (!err) err = rl_object_make_item(&section, value, t->gen, i + 2, &object);
    if (!err) {
        write_item(m, t, i, object);
        write_log(m, t, i, value->fingerprint);
        RL_KILL_POINT("stream.append.before");
        atomic_store_explicit(&t->produced, i + 1, memory_order_seq_cst); /* COMMIT */
        RL_KILL_POINT("stream.append.after");
        add_untaken(m, t, 1, (int64_t)value->nbytes);
        rl_object_name(m, object);
        ring_holders(&section, t);
    }
    rl_leave(&section);
    return err;
}

/* Take item `taken` of stream t. */
static rl_handle take(rl_section *section, rl_stream *t)
{
    rl_mapping *m = &section->s->map;
    uint32_t i = taken_of(t);
    uint32_t object = m->chunks[chunk_of(m, t, i)].object[i % RL_CHUNK_NAMES];
    rl_handle item = rl_object_adopt(section->s, object);
    RL_KILL_POINT("stream.take.before");
    atomic_store_explicit(&t->taken, i + 1, memory_order_seq_cst); /* COMMIT */
    RL_KILL_POINT("stream.take.after");
    add_untaken(m, t, -1, -(int64_t)m->objects[object].nbytes);
    rl_object_unname(section, object);
    trim(m, t);
    ring_producer(section, t);
    return item;
}

int rl_stream_next(rl_session *s, rl_handle stream, const rl_handle *task, rl_handle *item)
{
    rl_section section;
    pthread_mutex_lock(&s->local_mutex);
    int err = rl_enter(s, &section, RL_OP_STREAM);
    if (err) goto unlock;
    rl_stream *t = find(&s->map, stream);
    if (t == NULL) {
        err = RL_ESTALE;
    } else if (taken_of(t) < produced_of(t)) {
        if (task) rl_task_run_once(s, *task);
        *item = take(&section, t);
    } else {
        err = task_of(t) == RL_NIL ? RL_EEND : RL_EAGAIN;
    }
    rl_leave(&section);
unlock:
    pthread_mutex_unlock(&s->local_mutex);
    return err;
}

/* Something has changed for which the producer may pause. The flag stays, and a ring too many does
 * no harm. */
static void ring_if_paused(const rl_mapping *m, const rl_stream *t)
{
    if (!atomic_load_explicit(&t->paused, memory_order_seq_cst)) return;
    uint32_t slot = rl_task_worker(m, task_of(t));
    if (slot != RL_NIL) rl_doorbell_ring(&m->slots[slot]);
}

int rl_stream_is_ready(const rl_session *s, rl_handle stream)
{
    rl_stream *t = find(&s->map, stream);
    if (t == NULL) return 1; /* next() will say that it is stale */
    if (taken_of(t) == produced_of(t) && task_of(t) != RL_NIL &&
        !atomic_exchange_explicit(&t->waited, 1, memory_order_seq_cst)) {
        ring_if_paused(&s->map, t);
    }
    return taken_of(t) < produced_of(t) || task_of(t) == RL_NIL;
}

int rl_stream_has_item(const rl_session *s, rl_handle stream)
{
    const rl_stream *t = find(&s->map, stream);
    return t && taken_of(t) < produced_of(t);
}

/* Who waits for an item of this stream must not wait for those of others to be taken. */
static int has_room_in_actor(const rl_mapping *m, const rl_stream *t, uint32_t actor)
{
    const rl_actor *a = &m->actors[actor];
    uint32_t untaken = atomic_load_explicit(&a->untaken, memory_order_seq_cst);
    if (a->most_untaken == 0 || untaken < a->most_untaken) return 1;
    return produced_of(t) == taken_of(t) && atomic_load_explicit(&t->waited, memory_order_seq_cst);
}

static int has_room(const rl_mapping *m, const rl_stream *t)
{
    if (!has_outlet(t) || task_of(t) == RL_NIL) return 1; /* nobody takes, or nobody produces */
    if (t->limit && produced_of(t) - taken_of(t) >= t->limit) return 0;
    uint32_t actor = atomic_load_explicit(&t->actor, memory_order_relaxed);
    if (actor != RL_NIL) return has_room_in_actor(m, t, actor);
    return untaken_bytes_of(t) <= m->control->data_size / RL_STREAM_SHARE ||
           rl_task_is_awaited(m, task_of(t)) || rl_task_runs_at_home(m, task_of(t));
}

int rl_stream_has_room(const rl_session *s, rl_handle stream)
{
    const rl_stream *t = find(&s->map, stream);
    return t == NULL || has_room(&s->map, t);
}

int rl_stream_wait_room(rl_session *s, rl_handle stream, int64_t deadline_ns)
{
    for (;;) {
        rl_stream *t = find(&s->map, stream); /* its record may be another's by now */
        if (t == NULL) return RL_ESTALE;
        uint32_t seen = rl_doorbell_read(s);
        if (has_room(&s->map, t)) return 0;
        atomic_store_explicit(&t->paused, 1, memory_order_seq_cst);
        if (has_room(&s->map, t)) return 0;
        int err = rl_doorbell_wait(s, seen, deadline_ns);
        if (err) return err;
    }
}

void rl_stream_end_is_awaited(const rl_mapping *m, uint32_t task)
{
    uint32_t i = rl_task_fills(m, task);
    if (i != RL_NIL) ring_if_paused(m, &m->streams[i]);
}

void rl_stream_forget_actor(rl_mapping *m, uint32_t actor)
{
    for (uint32_t i = 0; i < m->control->streams.high_water; i++) {
        if (m->streams[i].actor == actor) m->streams[i].actor = RL_NIL;
    }
}

uint32_t rl_stream_produced(const rl_session *s, rl_handle stream)
{
    const rl_stream *t = find(&s->map, stream);
    return t ? produced_of(t) : 0;
}

int rl_stream_log(rl_session *s, rl_handle stream, uint64_t *fingerprints, uint32_t n)
{
    const rl_mapping *m = &s->map;
    const rl_stream *t = find(m, stream);
    if (t == NULL || !t->logged || n > produced_of(t)) return RL_EINVAL;
    uint32_t chunk = t->log;
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && i % LOGGED == 0) chunk = m->chunks[chunk].next;
        if (chunk >= m->control->chunks.capacity) return RL_ECORRUPT;
        memcpy(&fingerprints[i], &m->chunks[chunk].object[i % LOGGED * 2], sizeof *fingerprints);
    }
    return 0;
}

/* ---- rebuild ---- */

/* Is `outlet` the outlet of live stream i? */
static int is_outlet_of(const rl_mapping *m, uint32_t outlet, uint32_t i)
{
    rl_handle stream;
    return rl_object_is_outlet(m, outlet, &stream) && stream.index == i && find(m, stream);
}

void rl_stream_rebuild_begin(rl_mapping *m)
{
    /* Only where it is wrong: who waits for items, or for room, reads it without the lock. */
    for (uint32_t i = 0; i < m->control->streams.high_water; i++) {
        rl_stream *t = &m->streams[i];
        if (!is_outlet_of(m, outlet_of(t), i)) set_outlet(t, RL_NIL);
        if (t->actor >= RL_MAX_ACTORS) t->actor = RL_NIL;
        if (rl_task_has_stream(m, task_of(t), i)) continue;
        atomic_store_explicit(&t->task, RL_NIL, memory_order_seq_cst);
    }
    rl_handle stream;
    for (uint32_t o = 0; o < m->control->objects.high_water; o++) {
        if (!rl_object_is_outlet(m, o, &stream) || !find(m, stream)) continue;
        if (outlet_of(&m->streams[stream.index]) != o) set_outlet(&m->streams[stream.index], o);
    }
}

/* Mark `n` chunks from `chunk` on, cut the list behind them, and return the last. */
static uint32_t mark_chunks(rl_mapping *m, uint32_t chunk, uint32_t n)
{
    uint32_t tail = RL_NIL;
    for (; n > 0 && chunk < m->control->chunks.high_water; n--) {
        m->chunks[chunk].used = 1;
        tail = chunk;
        chunk = m->chunks[chunk].next;
    }
    if (tail != RL_NIL) m->chunks[tail].next = RL_NIL;
    return tail;
}

typedef struct item_count {
    rl_mapping *m;
    uint64_t nbytes;
} item_count;

static void count_item(void *context, uint32_t object)
{
    item_count *count = context;
    rl_object_name(count->m, object);
    count->nbytes += count->m->objects[object].nbytes;
}

void rl_stream_rebuild_names(rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->streams.high_water; i++) {
        rl_stream *t = &m->streams[i];
        if (!is_live(t)) continue;
        uint32_t end = produced_of(t);
        item_count count = {.m = m};
        rl_stream_each_item(m, i, count_item, &count);
        atomic_store_explicit(&t->untaken_bytes, 0, memory_order_relaxed);
        add_untaken(m, t, (int32_t)(end - taken_of(t)), (int64_t)count.nbytes);
        uint32_t nitems = end == 0 ? 0 : (end - 1) / RL_CHUNK_NAMES + 1 - head_place(t);
        t->tail = mark_chunks(m, head_chunk(t), nitems);
        t->log_tail = mark_chunks(m, t->log, t->logged ? (end + LOGGED - 1) / LOGGED : 0);
        if (end > 0) continue;
        atomic_store_explicit(&t->head, pack_head(0, RL_NIL), memory_order_relaxed);
        t->log = RL_NIL;
    }
}

void rl_stream_rebuild_end(rl_section *section)
{
    rl_mapping *m = &section->s->map;
    rl_table *table = &m->control->streams;
    rl_table_rebuild_begin(table);
    for (uint32_t i = table->high_water; i-- > 0;) {
        if (is_live(&m->streams[i])) continue;
        rl_table_give(table, m->streams, sizeof(rl_stream), offsetof(rl_stream, next), i);
    }
    uint32_t todo = RL_NIL;
    for (uint32_t i = 0; i < table->high_water; i++) {
        rl_stream *t = &m->streams[i];
        if (t->actor != RL_NIL && m->actors[t->actor].task == RL_NIL) t->actor = RL_NIL;
        settle(section, i, &todo);
    }
    rl_object_work_off(section, todo);
}

/* ---- check ---- */

typedef struct byte_count {
    const rl_mapping *m;
    uint64_t nbytes;
} byte_count;

static void count_bytes(void *context, uint32_t object)
{
    byte_count *count = context;
    count->nbytes += count->m->objects[object].nbytes;
}

/* Are the items that the actor's producers may have to pause for counted right (A4)? */
static int counts_untaken(const rl_mapping *m, uint32_t actor)
{
    uint32_t untaken = 0;
    for (uint32_t i = 0; i < m->control->streams.high_water; i++) {
        const rl_stream *t = &m->streams[i];
        if (is_live(t) && t->actor == actor) untaken += produced_of(t) - taken_of(t);
    }
    return untaken == atomic_load_explicit(&m->actors[actor].untaken, memory_order_relaxed);
}

const char *rl_stream_check(const rl_mapping *m)
{
    uint32_t nfree = 0;
    for (uint32_t i = 0; i < m->control->streams.high_water; i++) {
        const rl_stream *t = &m->streams[i];
        if (!is_live(t)) {
            nfree++;
            continue;
        }
        if (taken_of(t) > produced_of(t)) return "stream: more taken than produced (R2)";
        if (!has_outlet(t) && task_of(t) == RL_NIL) return "stream: lives for nobody (R1)";
        if (!has_outlet(t) && taken_of(t) != produced_of(t))
            return "stream: keeps items for nobody (R4)";
        if (has_outlet(t) && !is_outlet_of(m, outlet_of(t), i))
            return "stream: its outlet is another object (R5)";
        byte_count bytes = {.m = m};
        rl_stream_each_item(m, i, count_bytes, &bytes);
        if (bytes.nbytes != untaken_bytes_of(t)) return "stream: untaken bytes differ";
        if (t->actor != RL_NIL && !counts_untaken(m, t->actor))
            return "stream: untaken items of an actor differ (A4)";
        uint32_t task = task_of(t);
        if (task != RL_NIL && !rl_task_has_stream(m, task, i)) return "stream: not its task's (R3)";
    }
    return nfree == m->control->streams.nfree ? NULL : "stream: a free record is lost";
}
