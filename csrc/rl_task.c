/* rl_task.c - see rl_task.h. */
#include "rl_task.h"

#include "rl_actor.h"
#include "rl_err.h"
#include "rl_fault.h"
#include "rl_list.h"
#include "rl_slot.h"
#include "rl_sort.h"
#include "rl_stream.h"
#include "rl_table.h"
#include "rl_wait.h"

#include <errno.h>
#include <string.h>

/* ---- records ---- */

static uint32_t word_of(const rl_task *t)
{
    return atomic_load_explicit(&t->state, memory_order_acquire);
}

static uint32_t state_of(const rl_task *t)
{
    return word_of(t) & RL_TASK_STATE;
}

static uint32_t worker_of(const rl_task *t)
{
    return word_of(t) >> RL_TASK_SLOT_SHIFT;
}

static uint64_t gen_of(const rl_task *t)
{
    return atomic_load_explicit(&t->gen, memory_order_acquire);
}

static void set_state(rl_task *t, uint32_t word)
{
    atomic_store_explicit(&t->state, word, memory_order_seq_cst);
}

static int is_live(const rl_task *t)
{
    uint32_t state = state_of(t);
    return state != RL_TASK_FREE && state != RL_TASK_FREEING;
}

/* The task of handle `h` if it is in `state`, else NULL. */
static rl_task *find(const rl_mapping *m, rl_handle h, uint32_t state)
{
    if (h.index >= m->control->tasks.capacity) return NULL; /* constant: read without the lock */
    rl_task *t = &m->tasks[h.index];
    return gen_of(t) == h.gen && state_of(t) == state ? t : NULL;
}

/* The task of handle `h` if this process runs it, else NULL. */
static rl_task *find_mine(const rl_session *s, rl_handle h)
{
    rl_task *t = find(&s->map, h, RL_TASK_CLAIMED);
    return t && worker_of(t) == s->slot ? t : NULL;
}

/* The task of handle `h` if its outcome is this process's to decide: it runs it, or it has stranded
 * and this is the supervisor. */
static rl_task *find_decidable(const rl_session *s, rl_handle h)
{
    rl_task *mine = find_mine(s, h);
    if (mine || s->slot != s->map.control->supervisor) return mine;
    return find(&s->map, h, RL_TASK_STRANDED);
}

static rl_handle object_handle(const rl_mapping *m, uint32_t object)
{
    return object == RL_NIL ? (rl_handle){.index = RL_NIL} : rl_object_handle(m, object);
}

uint32_t rl_task_worker(const rl_mapping *m, uint32_t task)
{
    if (task >= m->control->tasks.high_water) return RL_NIL;
    const rl_task *t = &m->tasks[task];
    return state_of(t) == RL_TASK_CLAIMED ? worker_of(t) : RL_NIL;
}

static uint32_t stream_of(const rl_task *t)
{
    return atomic_load_explicit(&t->stream, memory_order_relaxed);
}

static void set_stream(rl_task *t, uint32_t stream)
{
    atomic_store_explicit(&t->stream, stream, memory_order_relaxed);
}

uint32_t rl_task_stream(const rl_session *s, rl_handle task)
{
    const rl_task *t = find_mine(s, task);
    return t ? stream_of(t) : RL_NIL;
}

uint32_t rl_task_fills(const rl_mapping *m, uint32_t task)
{
    if (task >= m->control->tasks.capacity) return RL_NIL;
    uint32_t stream = stream_of(&m->tasks[task]);
    return stream < m->control->streams.capacity ? stream : RL_NIL;
}

int rl_task_runs_at_home(const rl_mapping *m, uint32_t task)
{
    uint32_t slot = rl_task_worker(m, task);
    return slot < RL_MAX_SLOTS && m->slots[slot].role == RL_ROLE_DRIVER;
}

int rl_task_is_awaited(const rl_mapping *m, uint32_t task)
{
    if (task >= m->control->tasks.capacity || m->tasks[task].returns.n != 1) return 0;
    uint32_t first = m->tasks[task].returns.head;
    return first < m->control->objects.capacity && rl_object_is_awaited(m, first);
}

int rl_task_has_stream(const rl_mapping *m, uint32_t task, uint32_t stream)
{
    return task < m->control->tasks.high_water && is_live(&m->tasks[task]) &&
           stream_of(&m->tasks[task]) == stream;
}

int rl_task_produces(const rl_mapping *m, uint32_t task, uint32_t object)
{
    if (task >= m->control->tasks.high_water || !is_live(&m->tasks[task])) return 0;
    rl_walk w = rl_list_walk(m, m->tasks[task].returns);
    for (uint32_t i = rl_walk_next(&w); i != RL_NIL; i = rl_walk_next(&w)) {
        if (i == object) return 1;
    }
    return 0;
}

/* ---- classes and resources ---- */

int rl_resource_intern(rl_session *s, const char *name, uint32_t *out)
{
    if (strlen(name) >= RL_RESOURCE_NAME || name[0] == 0) return RL_EINVAL;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_resource *r = s->map.control->resources;
    uint32_t i = 0;
    while (i < RL_MAX_RESOURCES && r[i].name[0] && strcmp(r[i].name, name) != 0) i++;
    if (i == RL_MAX_RESOURCES) {
        err = RL_ETABLE;
    } else {
        strncpy(r[i].name + 1, name + 1, RL_RESOURCE_NAME - 2);
        atomic_signal_fence(memory_order_release);
        r[i].name[0] = name[0]; /* COMMIT */
        *out = i;
    }
    rl_leave(&section);
    return err;
}

int rl_resource_set_total(rl_session *s, uint32_t resource, int64_t total)
{
    if (resource >= RL_MAX_RESOURCES) return RL_EINVAL;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_resource *r = &s->map.control->resources[resource];
    r->available += total - r->total;
    r->total = total;
    rl_leave(&section);
    return 0;
}

static int is_class(const rl_class *k, const int64_t demand[RL_MAX_RESOURCES], uint32_t nested)
{
    return k->nested == nested && memcmp(k->demand, demand, sizeof k->demand) == 0;
}

int rl_class_intern(rl_session *s, const int64_t demand[RL_MAX_RESOURCES], uint32_t *out)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    uint32_t nested = m->slots[s->slot].role == RL_ROLE_WORKER;
    uint32_t i = 0;
    while (i < RL_MAX_CLASSES && m->classes[i].used && !is_class(&m->classes[i], demand, nested)) {
        i++;
    }
    if (i == RL_MAX_CLASSES) {
        err = RL_ETABLE;
    } else if (!m->classes[i].used) {
        memcpy(m->classes[i].demand, demand, sizeof m->classes[i].demand);
        m->classes[i].nested = nested;
        m->classes[i].head = m->classes[i].tail = RL_NIL;
        atomic_signal_fence(memory_order_release);
        m->classes[i].used = 1; /* COMMIT */
    }
    if (!err) *out = i;
    rl_leave(&section);
    return err;
}

static int fits(const rl_control *c, const rl_class *k)
{
    for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
        if (k->demand[r] > 0 && k->demand[r] > c->resources[r].available) return 0;
    }
    return 1;
}

/* Is the CPU all that class k lacks now? */
static int lacks_only_cpu(const rl_control *c, const rl_class *k)
{
    for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
        if (r != RL_CPU && k->demand[r] > 0 && k->demand[r] > c->resources[r].available) return 0;
    }
    return 1;
}

static int is_feasible(const rl_control *c, const rl_class *k)
{
    for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
        if (k->demand[r] > c->resources[r].total) return 0;
    }
    return 1;
}

/* Book (sign -1) or give back (+1) what class k demands; `blocked`: all but the CPU. */
static void book(rl_control *c, const rl_class *k, int64_t sign, int blocked)
{
    for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
        if (blocked && r == RL_CPU) continue;
        c->resources[r].available += sign * k->demand[r];
    }
}

/* ---- queues ---- */

static void push_ready(rl_mapping *m, uint32_t i)
{
    rl_task *t = &m->tasks[i];
    rl_class *k = &m->classes[t->class_];
    t->next = RL_NIL;
    if (k->count == 0) {
        k->head = i;
        m->control->ready_classes[t->class_ / 64] |= UINT64_C(1) << (t->class_ % 64);
    } else {
        m->tasks[k->tail].next = i;
    }
    k->tail = i;
    k->count++;
}

/* A task that is run again goes first: it has waited its turn once. */
static void push_ready_first(rl_mapping *m, uint32_t i)
{
    rl_class *k = &m->classes[m->tasks[i].class_];
    if (k->count == 0) {
        push_ready(m, i);
        return;
    }
    m->tasks[i].next = k->head;
    k->head = i;
    k->count++;
}

static void remove_ready(rl_mapping *m, uint32_t i)
{
    rl_class *k = &m->classes[m->tasks[i].class_];
    uint32_t before = RL_NIL;
    for (uint32_t q = k->head; q != i; q = m->tasks[q].next) {
        if (q == RL_NIL) return;
        before = q;
    }
    *(before == RL_NIL ? &k->head : &m->tasks[before].next) = m->tasks[i].next;
    if (k->tail == i) k->tail = before;
    if (--k->count == 0) {
        k->head = k->tail = RL_NIL;
        uint32_t class_ = m->tasks[i].class_;
        m->control->ready_classes[class_ / 64] &= ~(UINT64_C(1) << (class_ % 64));
    }
}

static uint32_t pop_ready(rl_mapping *m, uint32_t class_)
{
    rl_class *k = &m->classes[class_];
    uint32_t i = k->head;
    k->head = m->tasks[i].next;
    k->passed = 0;
    if (--k->count == 0) {
        k->head = k->tail = RL_NIL;
        m->control->ready_classes[class_ / 64] &= ~(UINT64_C(1) << (class_ % 64));
    }
    return i;
}

/* Call `visit` for each class that has queued tasks, until it returns non-zero. */
#define FOR_READY_CLASSES(m, k, bits, w)                                                           \
    for (uint32_t w = 0; w < RL_MAX_CLASSES / 64; w++)                                             \
        for (uint64_t bits = (m)->control->ready_classes[w], k = 0;                                \
             bits && (k = w * 64 + (uint32_t)__builtin_ctzll(bits), 1); bits &= bits - 1)

/* The class for whose head CPUs are kept free now, or NULL. The oldest, if several. */
static const rl_class *find_impatient(const rl_mapping *m)
{
    const rl_class *oldest = NULL;
    FOR_READY_CLASSES(m, i, bits, w)
    {
        const rl_class *k = &m->classes[i];
        if (k->passed < RL_PATIENCE || rl_now_ns() >= k->reserved_ns) continue;
        if (!is_feasible(m->control, k) || !lacks_only_cpu(m->control, k)) continue;
        if (!oldest || m->tasks[k->head].seq < m->tasks[oldest->head].seq) oldest = k;
    }
    return oldest;
}

/* May class k run although CPUs are kept free for another? A task's own task may: who waits for it
 * may hold what the other lacks. */
static int may_pass(const rl_class *k)
{
    return k->demand[RL_CPU] == 0 || k->nested;
}

/* Of the classes that may run now, or of the nested ones among them, that with the oldest head. */
static uint32_t choose_among(const rl_mapping *m, const rl_class *impatient, int only_nested)
{
    uint32_t best = RL_NIL;
    uint64_t best_seq = UINT64_MAX;
    FOR_READY_CLASSES(m, i, bits, w)
    {
        const rl_class *k = &m->classes[i];
        uint64_t seq = m->tasks[k->head].seq;
        if (seq >= best_seq || !fits(m->control, k)) continue;
        if (only_nested && !k->nested) continue;
        if (impatient && k != impatient && !may_pass(k)) continue;
        best = (uint32_t)i;
        best_seq = seq;
    }
    return best;
}

/* The class whose head is to run now, or RL_NIL. */
static uint32_t choose_class(const rl_mapping *m)
{
    const rl_class *impatient = find_impatient(m);
    if (atomic_load_explicit(&m->control->depth_first, memory_order_relaxed)) {
        uint32_t nested = choose_among(m, impatient, 1);
        if (nested != RL_NIL) return nested;
    }
    return choose_among(m, impatient, 0);
}

/* A younger task runs before the head of class k: once too often, and CPUs are kept free for it. */
static void count_passed(rl_class *k)
{
    if (++k->passed % RL_PATIENCE == 0) k->reserved_ns = rl_now_ns() + RL_RESERVE_NS;
}

/* A task may have become runnable: have one idle worker look, or the supervisor start one. The
 * worker that takes a task passes the word on, so one is enough. */
static void wake_for_ready(rl_section *section)
{
    rl_mapping *m = &section->s->map;
    if (choose_class(m) == RL_NIL) return;
    if (rl_slot_ring_idle(section)) return;
    if (m->control->occupied < m->control->workers) return; /* one was rung and will look */
    if (atomic_load_explicit(&m->control->growable, memory_order_relaxed)) section->bell = 1;
}

static int is_call(const rl_task *t)
{
    return t->actor != RL_NIL;
}

/* The actor that a call is for, or RL_NIL: it is dead. */
static uint32_t actor_of(const rl_mapping *m, const rl_task *t)
{
    return rl_actor_of(m, t->actor);
}

static void make_ready(rl_section *section, uint32_t i, int first)
{
    rl_mapping *m = &section->s->map;
    RL_KILL_POINT("task.ready.before");
    set_state(&m->tasks[i], RL_TASK_READY); /* COMMIT */
    RL_KILL_POINT("task.ready.after");
    if (is_call(&m->tasks[i])) {
        rl_actor_ring_group(section, actor_of(m, &m->tasks[i]), m->tasks[i].group);
        return;
    }
    (first ? push_ready_first : push_ready)(m, i);
    wake_for_ready(section);
}

/* ---- dependencies ---- */

static int is_sealed(const rl_mapping *m, uint32_t object)
{
    uint32_t state = atomic_load_explicit(&m->objects[object].state, memory_order_acquire);
    return (state & RL_OBJECT_STATE) != RL_OBJECT_PENDING;
}

/* Enter task i in the waiting list of each dependency that is not sealed; returns how many. */
static uint32_t hook(rl_mapping *m, uint32_t i)
{
    const rl_task *t = &m->tasks[i];
    uint32_t missing = 0;
    rl_walk w = rl_list_walk(m, t->refs);
    for (uint32_t k = 0; k < t->ndeps; k++) {
        uint32_t object = rl_walk_next(&w);
        if (object == RL_NIL || is_sealed(m, object)) continue;
        uint32_t e =
            rl_table_take(&m->control->edges, m->edges, sizeof(rl_edge), offsetof(rl_edge, next));
        m->edges[e] = (rl_edge){.task = i, .next = m->objects[object].waiting};
        m->objects[object].waiting = e;
        rl_object_await_end(m, object);
        missing++;
    }
    return missing;
}

/* Take task i out of the waiting lists. */
static void unhook(rl_mapping *m, uint32_t i)
{
    rl_task *t = &m->tasks[i];
    rl_walk w = rl_list_walk(m, t->refs);
    for (uint32_t k = 0; k < t->ndeps && t->missing; k++) {
        uint32_t object = rl_walk_next(&w);
        uint32_t *link = &m->objects[object].waiting;
        while (*link != RL_NIL) {
            uint32_t e = *link;
            if (m->edges[e].task != i) {
                link = &m->edges[e].next;
                continue;
            }
            *link = m->edges[e].next;
            rl_table_give(&m->control->edges, m->edges, sizeof(rl_edge), offsetof(rl_edge, next),
                          e);
            t->missing--;
        }
    }
}

/* Turn a waiting list, which is newest first, round: tasks become ready in the order of submission.
 * Returns its new head. */
static uint32_t oldest_first(rl_mapping *m, uint32_t e)
{
    uint32_t head = RL_NIL;
    while (e != RL_NIL) {
        uint32_t next = m->edges[e].next;
        m->edges[e].next = head;
        head = e;
        e = next;
    }
    return head;
}

void rl_task_dependency_sealed(rl_section *section, uint32_t object)
{
    rl_mapping *m = &section->s->map;
    uint32_t e = oldest_first(m, m->objects[object].waiting);
    m->objects[object].waiting = RL_NIL;
    while (e != RL_NIL) {
        rl_edge edge = m->edges[e];
        rl_table_give(&m->control->edges, m->edges, sizeof(rl_edge), offsetof(rl_edge, next), e);
        if (--m->tasks[edge.task].missing == 0) make_ready(section, edge.task, 0);
        e = edge.next;
    }
}

/* Leave a task to the supervisor. */
static void strand(rl_section *section, rl_task *t, uint32_t why)
{
    t->stranded = why;
    RL_KILL_POINT("task.strand.before");
    set_state(t, RL_TASK_STRANDED); /* COMMIT */
    RL_KILL_POINT("task.strand.after");
    section->s->map.control->stranded++;
    section->bell = 1;
}

/* Take a task that nobody has claimed out of whatever it waits in, for the supervisor to fail. */
static void withdraw(rl_section *section, uint32_t i, uint32_t why)
{
    rl_mapping *m = &section->s->map;
    rl_task *t = &m->tasks[i];
    if (is_call(t)) {
        rl_mailbox_remove(m, actor_of(m, t), i);
        rl_actor_ring_group(section, actor_of(m, t), t->group); /* it may have held up others */
    } else if (state_of(t) == RL_TASK_READY) {
        remove_ready(m, i);
    }
    unhook(m, i);
    strand(section, t, why);
}

/* ---- submit ---- */

static int check_spec(const rl_session *s, const rl_spec *spec)
{
    const rl_control *c = s->map.control;
    if (spec->class_ >= RL_MAX_CLASSES || !s->map.classes[spec->class_].used) return RL_EINVAL;
    if (spec->ndeps > spec->nrefs || spec->function.index >= c->objects.capacity) return RL_EINVAL;
    if (spec->args.index == RL_NIL && spec->nbytes > RL_TASK_INLINE) return RL_EINVAL;
    if (spec->streams && rl_table_room(&c->streams) == 0) return RL_ETABLE;
    if (spec->makes) {
        if (spec->nreturns != 1 || spec->actor || spec->streams) return RL_EINVAL;
        int err = rl_actor_check_spec(&s->map, spec->makes);
        if (err) return err;
    }
    if (spec->actor) {
        if (spec->actor->index >= c->objects.high_water) return RL_EINVAL;
        if (rl_object_handle(&s->map, spec->actor->index).gen != spec->actor->gen) return RL_ESTALE;
        uint32_t a = rl_actor_of(&s->map, spec->actor->index);
        if (a != RL_NIL && rl_actor_is_full(&s->map, a, s->slot)) return EBUSY;
    }
    uint64_t chunks = rl_list_chunks(spec->nrefs) + (uint64_t)rl_list_chunks(spec->nreturns);
    uint64_t objects = spec->nreturns + (uint64_t)(spec->streams != 0);
    int room = rl_table_room(&c->tasks) >= 1 && rl_table_room(&c->objects) >= objects &&
               rl_table_room(&c->chunks) >= chunks && rl_table_room(&c->edges) >= spec->ndeps;
    return room ? 0 : RL_ETABLE;
}

static void write_task(rl_mapping *m, rl_task *t, const rl_spec *spec, uint32_t submitter)
{
    t->attempt = 0;
    t->seq = m->control->next_seq++;
    t->submitter = submitter;
    t->class_ = spec->class_;
    t->function = spec->function.index;
    t->args = spec->args.index;
    t->ndeps = spec->ndeps;
    t->kind = spec->kind;
    t->nbytes = spec->nbytes;
    atomic_store_explicit(&t->max_retries, spec->max_retries, memory_order_relaxed);
    t->options = spec->options;
    set_stream(t, RL_NIL);
    t->stranded = 0;
    atomic_store_explicit(&t->cancel, 0, memory_order_relaxed);
    t->actor = spec->actor ? spec->actor->index : RL_NIL;
    t->mailbox = RL_NIL;
    t->group = spec->group;
    strncpy(t->name, spec->name, RL_TASK_NAME - 1);
    t->name[RL_TASK_NAME - 1] = 0;
    if (spec->args.index == RL_NIL && spec->nbytes) memcpy(t->bytes, spec->bytes, spec->nbytes);
}

/* Does claimed task t hold what it demands, as the one task of a worker (T4 to T6)? */
static int is_booked(const rl_mapping *m, const rl_task *t)
{
    return !is_call(t) && m->slots[worker_of(t)].role != RL_ROLE_DRIVER;
}

/* Call `each` for every object that task t names. */
static void name_all(rl_mapping *m, const rl_task *t)
{
    rl_object_name(m, t->function);
    if (t->args != RL_NIL) rl_object_name(m, t->args);
    if (is_call(t)) rl_object_name(m, t->actor);
    rl_walk returns = rl_list_walk(m, t->returns);
    for (uint32_t o = rl_walk_next(&returns); o != RL_NIL; o = rl_walk_next(&returns)) {
        rl_object_name(m, o);
        rl_object_set_producer(m, o, (uint32_t)(t - m->tasks));
    }
    rl_walk refs = rl_list_walk(m, t->refs);
    for (uint32_t o = rl_walk_next(&refs); o != RL_NIL; o = rl_walk_next(&refs)) {
        rl_object_name(m, o);
    }
}

/* A new task waits where it is looked for: a call in its mailbox, another once it is READY in the
 * queue of its class. */
static void line_up(rl_section *section, uint32_t i)
{
    rl_mapping *m = &section->s->map;
    rl_task *t = &m->tasks[i];
    if (is_call(t)) {
        uint32_t actor = actor_of(m, t);
        rl_actor_count(m, actor, t->submitter, 1);
        rl_mailbox_add(m, actor, i);
        if (!t->missing) rl_actor_ring_group(section, actor, t->group);
    } else if (!t->missing) {
        push_ready(m, i);
        wake_for_ready(section);
    }
}

/* seq of the task that submits another, or 0. */
static uint64_t parent_of(const rl_session *s, const rl_spec *spec)
{
    if (spec->parent) {
        const rl_task *parent = find_mine(s, *spec->parent);
        return parent ? parent->seq : 0;
    }
    if (!pthread_equal(pthread_self(), s->runner)) return 0;
    return atomic_load_explicit(&s->running, memory_order_relaxed);
}

static void describe(const rl_mapping *m, uint32_t i, rl_job *out)
{
    const rl_task *t = &m->tasks[i];
    out->task = (rl_handle){.index = i, .gen = gen_of(t)};
    out->function = object_handle(m, t->function);
    out->args = object_handle(m, t->args);
    out->stream = (rl_handle){.index = stream_of(t), .kind = RL_HANDLE_STREAM};
    if (out->stream.index != RL_NIL) out->stream.gen = t->seq;
    out->actor = object_handle(m, t->actor);
    out->attempt = t->attempt;
    out->nreturns = t->returns.n;
    out->nrefs = t->refs.n;
    out->ndeps = t->ndeps;
    out->kind = t->kind;
    out->nbytes = t->nbytes;
    out->options = t->options;
    out->max_retries = atomic_load_explicit(&t->max_retries, memory_order_relaxed);
    out->stranded = t->stranded;
    out->cancel = atomic_load_explicit(&t->cancel, memory_order_relaxed);
    out->class_ = t->class_;
    out->is_actor = t->mailbox != RL_NIL;
    out->kill =
        out->is_actor ? atomic_load_explicit(&m->actors[t->mailbox].kill, memory_order_relaxed) : 0;
    memcpy(out->name, t->name, sizeof out->name);
    if (t->args == RL_NIL) memcpy(out->bytes, t->bytes, t->nbytes);
}

/* May its submitter run task t, which waits for nothing, before all others? */
static int is_next(const rl_mapping *m, const rl_task *t)
{
    if (!is_call(t)) return 1;
    const rl_actor *a = &m->actors[actor_of(m, t)];
    return !(a->flags & RL_ACTOR_ORDERED) || a->calls == 0;
}

static void submit(rl_section *section, const rl_spec *spec, rl_handle *returns, rl_handle *outlet)
{
    rl_session *s = section->s;
    rl_mapping *m = &s->map;
    uint32_t i =
        rl_table_take(&m->control->tasks, m->tasks, sizeof(rl_task), offsetof(rl_task, next));
    rl_task *t = &m->tasks[i];
    write_task(m, t, spec, s->slot);
    for (uint32_t k = 0; k < spec->nreturns; k++) {
        returns[k] = rl_object_handle(m, rl_object_make_pending(s, i, t->seq, k + 1));
    }
    rl_list_make(m, returns, spec->nreturns, &t->returns);
    rl_list_make(m, spec->refs, spec->nrefs, &t->refs);
    if (spec->streams) {
        const rl_stream_spec stream = {.task = i,
                                       .gen = t->seq,
                                       .actor = is_call(t) ? actor_of(m, t) : RL_NIL,
                                       .limit = spec->stream_limit,
                                       .logged = spec->max_retries != 0};
        set_stream(t, rl_stream_make(s, &stream, outlet));
    }
    t->parent = parent_of(s, spec);
    if (spec->makes) t->mailbox = rl_actor_make(m, i, spec->makes);
    int orphan = is_call(t) && actor_of(m, t) == RL_NIL;
    t->missing = orphan ? 0 : hook(m, i);
    int claims = spec->claimed && !orphan && !t->missing && is_next(m, t);
    if (orphan) {
        strand(section, t, RL_TASK_ORPHANED); /* COMMIT */
    } else {
        RL_KILL_POINT("task.submit.before");
        set_state(t, claims       ? RL_TASK_CLAIMED | s->slot << RL_TASK_SLOT_SHIFT
                     : t->missing ? RL_TASK_WAITING
                                  : RL_TASK_READY); /* COMMIT */
        RL_KILL_POINT("task.submit.after");
    }
    m->control->tasks_live++;
    name_all(m, t);
    if (spec->claimed) spec->claimed->task.index = RL_NIL;
    if (claims) {
        if (is_call(t)) rl_actor_count(m, actor_of(m, t), t->submitter, 1);
        describe(m, i, spec->claimed);
    } else if (!orphan) {
        line_up(section, i);
    }
}

int rl_task_submit(rl_session *s, const rl_spec *spec, rl_handle *returns, rl_handle *outlet)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    err = check_spec(s, spec);
    if (!err) submit(&section, spec, returns, outlet);
    rl_leave(&section);
    return err;
}

/* ---- take ---- */

static void set_current(rl_session *s, uint32_t task)
{
    atomic_store_explicit(&s->map.slots[s->slot].task, task, memory_order_relaxed);
}

static void claim(rl_section *section, uint32_t class_, rl_job *out)
{
    rl_session *s = section->s;
    rl_mapping *m = &s->map;
    uint64_t seq = m->tasks[m->classes[class_].head].seq;
    FOR_READY_CLASSES(m, k, bits, w)
    {
        rl_class *other = &m->classes[k];
        if (k != class_ && m->tasks[other->head].seq < seq) count_passed(other);
    }
    uint32_t i = pop_ready(m, class_);
    rl_task *t = &m->tasks[i];
    RL_KILL_POINT("task.claim.before");
    set_state(t, RL_TASK_CLAIMED | s->slot << RL_TASK_SLOT_SHIFT); /* COMMIT */
    RL_KILL_POINT("task.claim.after");
    book(m->control, &m->classes[class_], -1, 0);
    set_current(s, i);
    atomic_store_explicit(&s->running, t->seq, memory_order_relaxed);
    m->control->occupied++;
    describe(m, i, out);
    wake_for_ready(section); /* pass the baton */
}

/* One look: take a task, or enter the idle set. */
static int try_take(rl_session *s, rl_job *out)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    uint64_t bit = UINT64_C(1) << (s->slot % 64);
    m->control->idle[s->slot / 64] &= ~bit;
    uint32_t class_ = choose_class(m);
    if (atomic_load_explicit(&m->slots[s->slot].leaving, memory_order_relaxed)) {
        err = RL_EAGAIN;
        wake_for_ready(&section); /* the ring that woke us may have been for a task */
    } else if (class_ != RL_NIL) {
        claim(&section, class_, out);
    } else {
        m->control->idle[s->slot / 64] |= bit;
        err = RL_ETIMEDOUT;
    }
    rl_leave(&section);
    return err;
}

/* No ring for this worker may be lost while it looks elsewhere; returns `err`. */
static int leave_idle(rl_session *s, int err)
{
    rl_section section;
    if (rl_enter(s, &section, RL_OP_TASK)) return err;
    uint64_t bit = UINT64_C(1) << (s->slot % 64);
    int was_rung = !(s->map.control->idle[s->slot / 64] & bit);
    s->map.control->idle[s->slot / 64] &= ~bit;
    if (was_rung) wake_for_ready(&section);
    rl_leave(&section);
    return err;
}

int rl_task_take(rl_session *s, int64_t deadline_ns, rl_job *out)
{
    s->runner = pthread_self();
    for (;;) {
        uint32_t seen = rl_doorbell_read(s);
        int err = try_take(s, out);
        if (err != RL_ETIMEDOUT || deadline_ns == RL_NO_WAIT) return err;
        if (rl_doorbell_spin(s, seen)) continue;
        err = rl_doorbell_wait(s, seen, deadline_ns);
        if (err) return leave_idle(s, err);
    }
}

/* One thread was rung, and has taken a call: if there is another call, another thread is to look. */
static void pass_call_on(rl_section *section, uint32_t actor, uint32_t group)
{
    const rl_session *s = section->s;
    if (!atomic_load_explicit(&s->map.slots[s->slot].idlers, memory_order_seq_cst)) return;
    if (rl_mailbox_choose(&s->map, actor, group) == RL_NIL) return;
    rl_actor_ring_group(section, actor, group);
}

/* One look into the mailbox. */
static int try_take_call(rl_session *s, rl_handle actor, uint32_t group, rl_job *out)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    rl_task *self = find_mine(s, actor);
    uint32_t a = self ? self->mailbox : RL_NIL;
    int dying = a != RL_NIL && atomic_load_explicit(&m->actors[a].kill, memory_order_relaxed);
    uint32_t i = a == RL_NIL || dying ? RL_NIL : rl_mailbox_choose(m, a, group);
    if (a == RL_NIL) {
        err = RL_ESTALE;
    } else if (dying) {
        err = RL_ETIMEDOUT; /* what was submitted after the kill does not run */
    } else if (i != RL_NIL) {
        rl_mailbox_remove(m, a, i);
        RL_KILL_POINT("task.call.before");
        set_state(&m->tasks[i], RL_TASK_CLAIMED | s->slot << RL_TASK_SLOT_SHIFT); /* COMMIT */
        RL_KILL_POINT("task.call.after");
        if (pthread_equal(pthread_self(), s->runner)) {
            atomic_store_explicit(&s->running, m->tasks[i].seq, memory_order_relaxed);
        }
        describe(m, i, out);
        pass_call_on(&section, a, group);
    } else if (rl_actor_is_over(m, a)) {
        m->actors[a].name[0] = 0; /* nobody is to find it any more */
        rl_actor_ring_over(&section, a);
        err = RL_EEND;
    } else {
        err = RL_ETIMEDOUT;
    }
    rl_leave(&section);
    return err;
}

int rl_task_take_call(rl_session *s, rl_handle actor, uint32_t group, int64_t deadline_ns,
                      rl_job *out)
{
    /* The constructor is done: between calls nothing runs that could lend its CPU. */
    if (pthread_equal(pthread_self(), s->runner)) {
        atomic_store_explicit(&s->running, 0, memory_order_relaxed);
    }
    uint32_t bit = rl_group_bit(group);
    for (;;) {
        uint32_t seen = rl_callbell_read(s);
        int err = try_take_call(s, actor, group, out);
        if (err != RL_ETIMEDOUT || deadline_ns == RL_NO_WAIT) return err;
        if (rl_callbell_spin(s, bit, seen)) {
            if (rl_now_ns() < deadline_ns) continue;
            return try_take_call(s, actor, group, out); /* who rings for a spinner wakes no other */
        }
        err = rl_callbell_wait(s, bit, seen, deadline_ns);
        if (err) return err;
    }
}

static int copy_handles(const rl_mapping *m, rl_list list, rl_handle *out, uint32_t n)
{
    if (n > list.n) return RL_EINVAL;
    rl_walk w = rl_list_walk(m, list);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = rl_walk_next(&w);
        if (i == RL_NIL) return RL_ECORRUPT;
        out[k] = rl_object_handle(m, i);
    }
    return 0;
}

int rl_task_returns(rl_session *s, rl_handle task, rl_handle *out, uint32_t n)
{
    const rl_task *t = find_decidable(s, task);
    return t ? copy_handles(&s->map, t->returns, out, n) : RL_ESTALE;
}

int rl_task_refs(rl_session *s, rl_handle task, rl_handle *out, uint32_t n)
{
    const rl_task *t = find_mine(s, task);
    return t ? copy_handles(&s->map, t->refs, out, n) : RL_ESTALE;
}

/* ---- return and finish ---- */

/* Store a return value of a task that the caller has checked. */
static int return_value(rl_section *section, uint32_t task, rl_handle object, const rl_value *value)
{
    rl_mapping *m = &section->s->map;
    if (object.index >= m->control->objects.high_water) return RL_EINVAL;
    if (rl_object_handle(m, object.index).gen != object.gen) return RL_ESTALE;
    if (is_sealed(m, object.index)) return EEXIST;
    if (!rl_object_is_of(m, object.index, task)) return RL_EINVAL;
    return rl_object_seal(section, object.index, value);
}

int rl_task_return(rl_session *s, rl_handle task, rl_handle object, const rl_value *value)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    err = find_mine(s, task) ? return_value(&section, task.index, object, value) : RL_ESTALE;
    rl_leave(&section);
    return err;
}

int rl_task_returned(rl_session *s, rl_handle object, uint64_t *fingerprint)
{
    if (object.index >= s->map.control->objects.capacity) return 0;
    const rl_object *o = &s->map.objects[object.index];
    if (!is_sealed(&s->map, object.index)) return 0;
    *fingerprint = o->fingerprint;
    return 1;
}

/* An actor is over: what it has not claimed will not run. */
static void strand_mailbox(rl_section *section, uint32_t actor)
{
    rl_mapping *m = &section->s->map;
    for (uint32_t i = m->actors[actor].head; i != RL_NIL; i = m->actors[actor].head) {
        withdraw(section, i, RL_TASK_ORPHANED);
    }
}

/* Drop all that task i names, then its record. */
static void free_task(rl_section *section, uint32_t i)
{
    rl_mapping *m = &section->s->map;
    rl_task *t = &m->tasks[i];
    rl_list returns = t->returns, refs = t->refs;
    uint32_t function = t->function, args = t->args, stream = stream_of(t);
    uint32_t mailbox = t->mailbox, actor = t->actor;
    if (mailbox != RL_NIL) strand_mailbox(section, mailbox);
    if (actor != RL_NIL && actor_of(m, t) != RL_NIL) {
        rl_actor_count(m, actor_of(m, t), t->submitter, -1);
    }
    RL_KILL_POINT("task.free.before");
    set_state(t, RL_TASK_FREEING); /* COMMIT */
    RL_KILL_POINT("task.free.after");
    rl_walk w = rl_list_walk(m, returns);
    for (uint32_t o = rl_walk_next(&w); o != RL_NIL; o = rl_walk_next(&w)) {
        rl_object_set_producer(m, o, RL_NIL);
    }
    rl_object_unname_list(section, returns);
    rl_object_unname_list(section, refs);
    rl_object_unname(section, function);
    if (mailbox != RL_NIL) {
        rl_stream_forget_actor(m, mailbox);
        rl_actor_free(m, mailbox);
    }
    if (actor != RL_NIL) rl_object_unname(section, actor);
    if (args != RL_NIL) rl_object_unname(section, args);
    if (stream != RL_NIL) rl_stream_end(section, stream);
    atomic_store_explicit(&t->gen, gen_of(t) + 1, memory_order_release);
    RL_KILL_POINT("task.freed.before");
    set_state(t, RL_TASK_FREE); /* COMMIT */
    RL_KILL_POINT("task.freed.after");
    m->control->tasks_live--;
    m->control->tasks_finished++;
    rl_table_give(&m->control->tasks, m->tasks, sizeof(rl_task), offsetof(rl_task, next), i);
}

static uint32_t count_open(const rl_mapping *m, const rl_task *t)
{
    uint32_t open = 0;
    rl_walk w = rl_list_walk(m, t->returns);
    for (uint32_t i = rl_walk_next(&w); i != RL_NIL; i = rl_walk_next(&w)) {
        open += !is_sealed(m, i);
    }
    return open;
}

/* The task of this process ends: its resources are free for the next. */
static void put_down(rl_section *section, const rl_task *t)
{
    rl_session *s = section->s;
    if (pthread_equal(pthread_self(), s->runner)) {
        atomic_store_explicit(&s->running, 0, memory_order_relaxed);
    }
    if (!is_booked(&s->map, t)) return;
    rl_slot *slot = &s->map.slots[s->slot];
    int blocked = (int)atomic_exchange_explicit(&slot->blocked, 0, memory_order_relaxed);
    book(s->map.control, &s->map.classes[t->class_], 1, blocked);
    set_current(s, RL_NIL);
    s->map.control->occupied--;
}

int rl_task_finish(rl_session *s, rl_handle task, rl_handle object, const rl_value *value)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_task *t = find_mine(s, task);
    if (t == NULL) err = RL_ESTALE;
    uint32_t open = t ? count_open(&s->map, t) : 0;
    if (!err && open != (value != NULL)) err = RL_EINVAL;
    if (!err && value) err = return_value(&section, task.index, object, value);
    if (!err) {
        put_down(&section, t);
        free_task(&section, task.index);
    }
    rl_leave(&section);
    return err;
}

/* ---- stranded tasks ---- */

int rl_task_strand(rl_session *s, rl_handle task)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_task *t = find_mine(s, task);
    if (t == NULL) {
        err = RL_ESTALE;
    } else {
        put_down(&section, t);
        strand(&section, t, RL_TASK_RAISED);
        wake_for_ready(&section);
    }
    rl_leave(&section);
    return err;
}

int rl_task_repeat(rl_session *s, rl_handle task)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_task *t = find_mine(s, task);
    if (t) t->attempt++;
    if (t && t->mailbox != RL_NIL) {
        atomic_store_explicit(&s->map.actors[t->mailbox].kill, 0, memory_order_relaxed);
    }
    rl_leave(&section);
    return t ? 0 : RL_ESTALE;
}

void rl_task_strand_claims(rl_section *section, uint32_t slot)
{
    rl_mapping *m = &section->s->map;
    uint32_t claimed = RL_TASK_CLAIMED | slot << RL_TASK_SLOT_SHIFT;
    int blocked = (int)atomic_load_explicit(&m->slots[slot].blocked, memory_order_relaxed);
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        rl_task *t = &m->tasks[i];
        if (word_of(t) != claimed) continue;
        if (is_booked(m, t)) {
            book(m->control, &m->classes[t->class_], 1, blocked);
            m->control->occupied--;
        }
        strand(section, t, 0);
    }
    wake_for_ready(section);
}

void rl_task_recheck_waiting(rl_section *section)
{
    rl_mapping *m = &section->s->map;
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        rl_task *t = &m->tasks[i];
        if (state_of(t) == RL_TASK_WAITING && t->missing == 0) make_ready(section, i, 0);
    }
    wake_for_ready(section);
}

int rl_task_next_stranded(rl_session *s, uint32_t *cursor, rl_job *out, uint32_t *open)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    err = RL_EAGAIN;
    for (uint32_t i = *cursor; i < m->control->tasks.high_water && err; i++) {
        if (state_of(&m->tasks[i]) != RL_TASK_STRANDED) continue;
        describe(m, i, out);
        *open = count_open(m, &m->tasks[i]);
        *cursor = i + 1;
        err = 0;
    }
    rl_leave(&section);
    return err;
}

int rl_task_requeue(rl_session *s, rl_handle task)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_task *t = find(&s->map, task, RL_TASK_STRANDED);
    if (t == NULL) {
        err = RL_ESTALE;
    } else {
        t->attempt++;
        s->map.control->stranded--;
        if (t->mailbox != RL_NIL) {
            atomic_store_explicit(&s->map.actors[t->mailbox].kill, 0, memory_order_relaxed);
        }
        if (is_call(t) && actor_of(&s->map, t) == RL_NIL) {
            strand(&section, t, RL_TASK_ORPHANED); /* it died meanwhile */
        } else {
            if (is_call(t)) rl_mailbox_add(&s->map, actor_of(&s->map, t), task.index);
            make_ready(&section, task.index, 1);
        }
    }
    rl_leave(&section);
    return err;
}

/* ---- cancelling ---- */

static void cancel(rl_section *section, uint32_t i, uint32_t how)
{
    rl_mapping *m = &section->s->map;
    rl_task *t = &m->tasks[i];
    uint32_t state = state_of(t);
    if (t->mailbox != RL_NIL || state == RL_TASK_FREE || state == RL_TASK_FREEING) return;
    uint32_t had = atomic_load_explicit(&t->cancel, memory_order_relaxed);
    if ((had & how) == how) return;
    atomic_store_explicit(&t->cancel, how, memory_order_relaxed);
    if (state == RL_TASK_WAITING || state == RL_TASK_READY) {
        withdraw(section, i, RL_TASK_WITHDRAWN);
    }
    atomic_store_explicit(&m->control->orders, 1, memory_order_relaxed);
    section->bell = 1;
}

/* Cancel all tasks that task `seq` has submitted, and what those have; each pass goes one level
 * down. */
static void cancel_children(rl_section *section, uint64_t seq, uint32_t how)
{
    rl_mapping *m = &section->s->map;
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        rl_task *t = &m->tasks[i];
        if (!is_live(t) || t->parent != seq) continue;
        if (atomic_load_explicit(&t->cancel, memory_order_relaxed)) continue;
        uint32_t state = state_of(t);
        uint64_t own = t->seq;
        cancel(section, i, is_call(t) ? RL_CANCEL : how);
        if (state == RL_TASK_CLAIMED) cancel_children(section, own, how);
    }
}

/* The live task that fills a held object or stream, or RL_NIL. */
static uint32_t task_behind(const rl_session *s, rl_handle h)
{
    const rl_mapping *m = &s->map;
    if (h.kind == RL_HANDLE_STREAM) {
        return atomic_load_explicit(&m->streams[h.index].task, memory_order_relaxed);
    }
    const rl_object *o = &m->objects[h.index];
    uint32_t producer = atomic_load_explicit(&o->producer, memory_order_relaxed);
    if (producer != RL_NIL) return producer;
    /* An item of a stream has its task's generation. */
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        if (is_live(&m->tasks[i]) && m->tasks[i].seq == h.gen) return i;
    }
    return RL_NIL;
}

int rl_task_cancel(rl_session *s, rl_handle h, int force, int recursive)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    uint32_t i = task_behind(s, h);
    uint32_t how = RL_CANCEL | (force ? RL_CANCEL_FORCE : 0);
    if (i != RL_NIL && force && is_call(&m->tasks[i])) {
        err = RL_EINVAL;
    } else if (i != RL_NIL) {
        uint64_t seq = m->tasks[i].seq;
        int runs = state_of(&m->tasks[i]) == RL_TASK_CLAIMED;
        cancel(&section, i, how);
        if (runs && recursive) cancel_children(&section, seq, how);
    }
    rl_leave(&section);
    return err;
}

int rl_task_is_cancelled(const rl_session *s, rl_handle task)
{
    const rl_task *t = find_mine(s, task);
    return t && atomic_load_explicit(&t->cancel, memory_order_relaxed);
}

void rl_task_run_once(rl_session *s, rl_handle task)
{
    rl_task *t = find_mine(s, task);
    if (t) atomic_store_explicit(&t->max_retries, RL_TASK_ONCE, memory_order_release);
}

int rl_task_is_run_once(const rl_session *s, rl_handle task)
{
    const rl_task *t = find_decidable(s, task);
    return t && atomic_load_explicit(&t->max_retries, memory_order_acquire) == RL_TASK_ONCE;
}

/* What the supervisor is to do about task i: 0 nothing, 1 tell its process, 2 kill that. */
static int order_of(rl_section *section, uint32_t i)
{
    rl_mapping *m = &section->s->map;
    rl_task *t = &m->tasks[i];
    uint32_t state = state_of(t);
    if (t->mailbox != RL_NIL && is_live(t)) {
        rl_actor *a = &m->actors[t->mailbox];
        uint32_t kill = atomic_load_explicit(&a->kill, memory_order_relaxed);
        if (kill && state == RL_TASK_CLAIMED) return 2;
        if (kill && state != RL_TASK_STRANDED) withdraw(section, i, RL_TASK_WITHDRAWN);
        return 0;
    }
    uint32_t how = atomic_load_explicit(&t->cancel, memory_order_relaxed);
    if (state != RL_TASK_CLAIMED || how == 0 || (how & RL_CANCEL_TOLD)) return 0;
    atomic_store_explicit(&t->cancel, how | RL_CANCEL_TOLD, memory_order_relaxed);
    return how & RL_CANCEL_FORCE ? 2 : 1;
}

int rl_task_next_order(rl_session *s, uint32_t *cursor, uint32_t *slot, int *kill)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    err = RL_EAGAIN;
    if (*cursor == 0) atomic_store_explicit(&m->control->orders, 0, memory_order_relaxed);
    for (uint32_t i = *cursor; i < m->control->tasks.high_water && err; i++) {
        *cursor = i + 1;
        if (!is_live(&m->tasks[i])) continue;
        int order = order_of(&section, i);
        if (order == 0) continue;
        *slot = worker_of(&m->tasks[i]);
        *kill = order == 2;
        err = 0;
    }
    rl_leave(&section);
    return err;
}

int rl_task_conclude(rl_session *s, rl_handle task, const rl_value *values, uint32_t nvalues)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_task *t = find_decidable(s, task);
    int mine = t && state_of(t) == RL_TASK_CLAIMED;
    if (t == NULL) err = RL_ESTALE;
    if (!err && count_open(&s->map, t) != nvalues) err = RL_EINVAL;
    if (!err) err = rl_object_check_values(s, values, nvalues);
    if (!err) {
        rl_walk w = rl_list_walk(&s->map, t->returns);
        for (uint32_t i = rl_walk_next(&w); i != RL_NIL && !err; i = rl_walk_next(&w)) {
            if (!is_sealed(&s->map, i)) err = rl_object_seal(&section, i, values++);
        }
    }
    if (!err) {
        if (mine) {
            put_down(&section, t);
        } else {
            s->map.control->stranded--;
        }
        free_task(&section, task.index);
    }
    rl_leave(&section);
    return err;
}

void rl_task_unreachable(rl_section *section, uint32_t task)
{
    uint32_t actor = section->s->map.tasks[task].mailbox;
    if (actor != RL_NIL) rl_actor_ring_over(section, actor);
}

/* ---- load, blocking ---- */

static void describe_infeasible(const rl_mapping *m, uint32_t class_, rl_load *load)
{
    const rl_class *k = &m->classes[class_];
    load->infeasible = class_;
    memcpy(load->infeasible_demand, k->demand, sizeof load->infeasible_demand);
    memcpy(load->infeasible_task, m->tasks[k->head].name, sizeof load->infeasible_task);
}

int rl_task_load(rl_session *s, rl_load *out)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_TASK);
    if (err) return err;
    rl_mapping *m = &s->map;
    rl_load load = {.infeasible = RL_NIL,
                    .runnable = choose_class(m) != RL_NIL,
                    .stranded = m->control->stranded,
                    .reports = m->control->reports};
    FOR_READY_CLASSES(m, k, bits, w)
    {
        load.ready += m->classes[k].count;
        if (!is_feasible(m->control, &m->classes[k])) describe_infeasible(m, (uint32_t)k, &load);
    }
    for (uint32_t i = 0; i < m->control->slots.high_water; i++) {
        const rl_slot *slot = &m->slots[i];
        if (atomic_load_explicit(&slot->state, memory_order_relaxed) != RL_SLOT_LIVE) continue;
        if (slot->role != RL_ROLE_WORKER) continue;
        load.workers++;
        load.idle += atomic_load_explicit(&slot->task, memory_order_relaxed) == RL_NIL;
        load.blocked += atomic_load_explicit(&slot->blocked, memory_order_relaxed);
        uint32_t task = atomic_load_explicit(&slot->task, memory_order_relaxed);
        load.actors += task != RL_NIL && m->tasks[task].mailbox != RL_NIL;
    }
    *out = load;
    rl_leave(&section);
    return 0;
}

int rl_worker_dismiss(rl_session *s, uint32_t slot)
{
    if (slot >= RL_MAX_SLOTS) return RL_EINVAL;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_SLOT);
    if (err) return err;
    atomic_store_explicit(&s->map.slots[slot].leaving, 1, memory_order_relaxed);
    rl_slot_ring(&section, slot);
    rl_leave(&section);
    return 0;
}

static void set_blocked(rl_session *s, uint32_t blocked)
{
    rl_section section;
    if (rl_enter(s, &section, RL_OP_TASK)) return;
    rl_mapping *m = &s->map;
    rl_slot *slot = &m->slots[s->slot];
    uint32_t i = atomic_load_explicit(&slot->task, memory_order_relaxed);
    uint32_t was = atomic_load_explicit(&slot->blocked, memory_order_relaxed);
    if (i != RL_NIL && was != blocked) {
        const rl_class *k = &m->classes[m->tasks[i].class_];
        m->control->resources[RL_CPU].available += (blocked ? 1 : -1) * k->demand[RL_CPU];
        atomic_store_explicit(&slot->blocked, blocked, memory_order_relaxed);
        if (blocked) wake_for_ready(&section);
    }
    rl_leave(&section);
}

int rl_task_block(rl_session *s)
{
    const rl_slot *slot = &s->map.slots[s->slot];
    if (atomic_load_explicit(&slot->task, memory_order_relaxed) == RL_NIL) return 0;
    if (!pthread_equal(pthread_self(), s->runner)) return 0;
    if (!atomic_load_explicit(&s->running, memory_order_relaxed)) return 0;
    set_blocked(s, 1);
    return 1;
}

void rl_task_unblock(rl_session *s)
{
    set_blocked(s, 0);
}

/* ---- rebuild ---- */

int rl_task_validate(const rl_mapping *m)
{
    const rl_control *c = m->control;
    for (uint32_t i = 0; i < c->tasks.high_water; i++) {
        const rl_task *t = &m->tasks[i];
        if (!is_live(t)) continue;
        int sound = t->class_ < RL_MAX_CLASSES && t->function < c->objects.capacity &&
                    (t->args == RL_NIL || t->args < c->objects.capacity) &&
                    (stream_of(t) == RL_NIL || stream_of(t) < c->streams.capacity) &&
                    (t->actor == RL_NIL || t->actor < c->objects.capacity) &&
                    (t->mailbox == RL_NIL || t->mailbox < RL_MAX_ACTORS) &&
                    t->submitter < RL_MAX_SLOTS && worker_of(t) < RL_MAX_SLOTS;
        if (!sound) return RL_ECORRUPT;
    }
    return 0;
}

void rl_task_rebuild_names(rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        const rl_task *t = &m->tasks[i];
        if (!is_live(t)) continue;
        rl_list_rebuild_mark(m, t->returns);
        rl_list_rebuild_mark(m, t->refs);
        name_all(m, t);
        if (t->mailbox != RL_NIL) rl_actor_rebuild_use(m, t->mailbox, i);
        if (stream_of(t) == RL_NIL) continue;
        atomic_store_explicit(&m->streams[stream_of(t)].task, i, memory_order_relaxed);
    }
}

static void forget_queues(rl_mapping *m)
{
    rl_control *c = m->control;
    memset(c->ready_classes, 0, sizeof c->ready_classes);
    for (uint32_t k = 0; k < RL_MAX_CLASSES; k++) {
        rl_class *class_ = &m->classes[k];
        class_->head = class_->tail = RL_NIL;
        class_->count = class_->passed = 0;
    }
    rl_table_rebuild_begin(&c->tasks);
    rl_table_rebuild_begin(&c->edges);
    for (uint32_t e = c->edges.high_water; e-- > 0;) {
        rl_table_give(&c->edges, m->edges, sizeof(rl_edge), offsetof(rl_edge, next), e);
    }
    for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
        c->resources[r].available = c->resources[r].total;
    }
    c->tasks_live = 0;
    c->stranded = 0;
    c->workers = 0;
    c->occupied = 0;
}

/* Does it stand in a mailbox (any call that nobody has claimed) or in a queue (what is READY)? */
static int is_lined_up(const rl_task *t)
{
    uint32_t state = state_of(t);
    return state == RL_TASK_READY || (state == RL_TASK_WAITING && is_call(t));
}

/* All that stands in a queue or a mailbox, in the order of submission. */
static uint32_t sort_lined_up(rl_mapping *m)
{
    rl_sorter sorter =
        rl_sort_begin(m->tasks, sizeof(rl_task), offsetof(rl_task, next), offsetof(rl_task, seq));
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        if (is_lined_up(&m->tasks[i])) rl_sort_add(&sorter, i);
    }
    return rl_sort_end(&sorter);
}

static void rebuild_claimed(rl_mapping *m, uint32_t i)
{
    rl_task *t = &m->tasks[i];
    if (!is_booked(m, t)) return;
    rl_slot *slot = &m->slots[worker_of(t)];
    atomic_store_explicit(&slot->task, i, memory_order_relaxed);
    m->control->occupied++;
    int blocked = (int)atomic_load_explicit(&slot->blocked, memory_order_relaxed);
    book(m->control, &m->classes[t->class_], -1, blocked);
    m->control->idle[worker_of(t) / 64] &= ~(UINT64_C(1) << (worker_of(t) % 64));
}

/* Count a call; one whose actor's task is over will not run. */
static void rebuild_call(rl_mapping *m, rl_task *t)
{
    uint32_t actor = actor_of(m, t);
    if (actor != RL_NIL) {
        rl_actor_count(m, actor, t->submitter, 1);
        return;
    }
    uint32_t state = state_of(t);
    if (state != RL_TASK_WAITING && state != RL_TASK_READY) return;
    t->stranded = RL_TASK_ORPHANED;
    set_state(t, RL_TASK_STRANDED);
}

void rl_task_rebuild_end(rl_section *section)
{
    rl_mapping *m = &section->s->map;
    forget_queues(m);
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) {
        rl_slot *slot = &m->slots[i];
        atomic_store_explicit(&slot->task, RL_NIL, memory_order_relaxed);
        int live = atomic_load_explicit(&slot->state, memory_order_relaxed) != RL_SLOT_FREE;
        m->control->workers += live && slot->role == RL_ROLE_WORKER;
    }
    for (uint32_t i = m->control->tasks.high_water; i-- > 0;) {
        rl_task *t = &m->tasks[i];
        if (state_of(t) == RL_TASK_FREEING) {
            atomic_store_explicit(&t->gen, gen_of(t) + 1, memory_order_release);
            set_state(t, RL_TASK_FREE);
            m->control->tasks_finished++;
        }
        if (state_of(t) == RL_TASK_FREE) {
            rl_table_give(&m->control->tasks, m->tasks, sizeof(rl_task), offsetof(rl_task, next),
                          i);
            continue;
        }
        m->control->tasks_live++;
        if (is_call(t)) rebuild_call(m, t);
        m->control->stranded += state_of(t) == RL_TASK_STRANDED;
        if (state_of(t) == RL_TASK_CLAIMED) rebuild_claimed(m, i);
        if (state_of(t) != RL_TASK_WAITING) continue;
        t->missing = hook(m, i);
        if (t->missing == 0) set_state(t, RL_TASK_READY);
    }
    uint32_t next = RL_NIL;
    for (uint32_t i = sort_lined_up(m); i != RL_NIL; i = next) {
        const rl_task *t = &m->tasks[i];
        next = t->next;
        if (is_call(t)) {
            rl_mailbox_add(m, actor_of(m, t), i);
        } else {
            push_ready(m, i);
        }
    }
}

/* ---- check ---- */

static const char *check_queue(const rl_mapping *m, uint32_t k, uint32_t *queued)
{
    const rl_class *class_ = &m->classes[k];
    uint32_t n = 0;
    for (uint32_t i = class_->head; n < class_->count; i = m->tasks[i].next, n++) {
        if (i >= m->control->tasks.high_water) return "task: broken queue (T3)";
        const rl_task *t = &m->tasks[i];
        if (state_of(t) != RL_TASK_READY || t->class_ != k) return "task: stranger in a queue (T3)";
    }
    *queued += n;
    return NULL;
}

static uint32_t count_missing(const rl_mapping *m, const rl_task *t)
{
    uint32_t missing = 0;
    rl_walk w = rl_list_walk(m, t->refs);
    for (uint32_t k = 0; k < t->ndeps; k++) missing += !is_sealed(m, rl_walk_next(&w));
    return missing;
}

const char *rl_task_check(const rl_mapping *m)
{
    const rl_control *c = m->control;
    uint32_t nfree = 0, nready = 0, nqueued = 0, nstranded = 0;
    uint32_t nclaimed = 0, nedges = 0;
    int64_t used[RL_MAX_RESOURCES] = {0};
    for (uint32_t i = 0; i < c->tasks.high_water; i++) {
        const rl_task *t = &m->tasks[i];
        uint32_t state = state_of(t);
        if (state == RL_TASK_FREEING) return "task: left half freed";
        nfree += state == RL_TASK_FREE;
        nready += state == RL_TASK_READY && !is_call(t);
        nstranded += state == RL_TASK_STRANDED;
        if (state == RL_TASK_WAITING && (t->missing == 0 || t->missing != count_missing(m, t))) {
            return "task: waits for a wrong number of objects (T2)";
        }
        nedges += state == RL_TASK_WAITING ? t->missing : 0;
        if (state != RL_TASK_CLAIMED) continue;
        uint32_t w = worker_of(t);
        if (w >= RL_MAX_SLOTS || atomic_load(&m->slots[w].state) == RL_SLOT_FREE) {
            return "task: claimed by nobody";
        }
        if (!is_booked(m, t)) continue;
        nclaimed++;
        if (atomic_load(&m->slots[w].task) != i) return "task: its worker runs another (T5)";
        for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
            if (r == RL_CPU && atomic_load(&m->slots[w].blocked)) continue;
            used[r] += m->classes[t->class_].demand[r];
        }
    }
    if (nfree != c->tasks.nfree) return "task: a free record is lost";
    if (c->tasks_live != c->tasks.high_water - nfree) return "task: live count differs";
    if (nedges + c->edges.nfree != c->edges.high_water) return "task: an edge is lost (T2)";
    if (nstranded != c->stranded) return "task: stranded count differs";
    if (nclaimed != c->occupied) return "task: count of occupied workers differs (T6)";
    for (uint32_t r = 0; r < RL_MAX_RESOURCES; r++) {
        if (c->resources[r].available != c->resources[r].total - used[r]) {
            return "task: resource books differ (T4)";
        }
    }
    for (uint32_t k = 0; k < RL_MAX_CLASSES; k++) {
        int flagged = (c->ready_classes[k / 64] >> (k % 64)) & 1;
        if (!m->classes[k].used && !flagged) continue;
        if (flagged != (m->classes[k].count > 0)) return "task: ready_classes differs (T3)";
        const char *broken = check_queue(m, k, &nqueued);
        if (broken) return broken;
    }
    return nqueued == nready ? NULL : "task: a ready task is in no queue (T3)";
}
