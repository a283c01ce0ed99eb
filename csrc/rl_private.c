/* rl_private.c - see rl_private.h. */
#include "rl_private.h"

#include "rl_arena.h"
#include "rl_err.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static uint32_t place_of(const void *memory)
{
    uint64_t hash = ((uintptr_t)memory / RL_ALIGN) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 51); /* 13 bits */
}
_Static_assert(RL_MOST_PRIVATE == 1 << 13, "place_of() gives 13 bits");

static uint32_t next_place(uint32_t i)
{
    return (i + 1) % RL_MOST_PRIVATE;
}

/* The entry of `memory`, or NULL. */
static rl_private *find(rl_private_table *t, const void *memory)
{
    uint32_t i = place_of(memory);
    while (t->places[i].memory && t->places[i].memory != memory) i = next_place(i);
    return t->places[i].memory ? &t->places[i] : NULL;
}

static int is_sealed(const rl_private *p)
{
    return p->object.index != RL_NIL;
}

/* Take entry i out; those that it kept from their own place move up. */
static void remove_at(rl_private_table *t, uint32_t i)
{
    uint32_t hole = i;
    for (uint32_t k = next_place(i); t->places[k].memory; k = next_place(k)) {
        uint32_t distance = (k - place_of(t->places[k].memory)) % RL_MOST_PRIVATE;
        if (distance < (k - hole) % RL_MOST_PRIVATE) continue;
        t->places[hole] = t->places[k];
        hole = k;
    }
    t->places[hole].memory = NULL;
    t->count--;
}

/* ---- fork: see FORK ---- */

static pthread_once_t handlers = PTHREAD_ONCE_INIT;
static pthread_mutex_t tables_mutex = PTHREAD_MUTEX_INITIALIZER; /* before any table's */
static rl_private_table *tables;                                 /* of this process */
static int fork_pipe[2];                                         /* by tables_mutex; -1: none */

static void before_fork(void)
{
    uint32_t count = 0;
    pthread_mutex_lock(&tables_mutex);
    for (rl_private_table *t = tables; t; t = t->next) {
        pthread_mutex_lock(&t->mutex);
        count += t->count;
    }
    if (count == 0 || pipe2(fork_pipe, O_CLOEXEC)) fork_pipe[0] = fork_pipe[1] = -1;
}

static void wait_for_child(void)
{
    char byte;
    close(fork_pipe[1]);
    while (read(fork_pipe[0], &byte, 1) < 0 && errno == EINTR) {
    }
    close(fork_pipe[0]);
}

static void after_fork_in_parent(void)
{
    if (fork_pipe[0] >= 0) wait_for_child();
    for (rl_private_table *t = tables; t; t = t->next) pthread_mutex_unlock(&t->mutex);
    pthread_mutex_unlock(&tables_mutex);
}

static int copy_all(rl_private_table *t)
{
    for (uint32_t i = 0, left = t->count; left; i++) {
        const rl_private *p = &t->places[i];
        if (p->memory == NULL) continue;
        left--;
        int err = rl_segment_make_private(&t->s->map, p->memory, p->nbytes);
        if (err) return err;
    }
    return 0;
}

/* There is nobody to return an error to, and with shared memory the child must not go on. */
static void give_up(void)
{
    static const char text[] = "ray_lite: no memory for what a forked process has to copy\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
    _exit(1);
}

static void after_fork_in_child(void)
{
    for (rl_private_table *t = tables; t; t = t->next) {
        if (copy_all(t)) give_up();
        pthread_mutex_unlock(&t->mutex);
    }
    if (fork_pipe[0] >= 0) {
        if (write(fork_pipe[1], "", 1) < 0) give_up();
        close(fork_pipe[0]);
        close(fork_pipe[1]);
    }
    pthread_mutex_unlock(&tables_mutex);
}

static void set_handlers(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- the table ---- */

int rl_private_open(rl_private_table *t, rl_session *s)
{
    *t = (rl_private_table){.s = s};
    t->places = rl_reserve(RL_MOST_PRIVATE * sizeof(rl_private));
    if (t->places == NULL) return RL_ETABLE;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_once(&handlers, set_handlers);
    pthread_mutex_lock(&tables_mutex);
    t->next = tables;
    tables = t;
    pthread_mutex_unlock(&tables_mutex);
    return 0;
}

void rl_private_close(rl_private_table *t)
{
    pthread_mutex_lock(&tables_mutex);
    rl_private_table **link = &tables;
    while (*link != t) link = &(*link)->next;
    *link = t->next;
    pthread_mutex_unlock(&tables_mutex);
    rl_unreserve(t->places, RL_MOST_PRIVATE * sizeof(rl_private));
    pthread_mutex_destroy(&t->mutex);
}

/* Bytes in the private blocks of all processes; of a dead one until the janitor has been there. */
static uint64_t nbytes_of_all(const rl_mapping *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) {
        sum += atomic_load_explicit(&m->control->private_nbytes[i], memory_order_relaxed);
    }
    return sum;
}

/* Count so many bytes more, or with a minus less. Under the mutex. */
static void count_share(rl_private_table *t, uint64_t nbytes)
{
    uint64_t now = atomic_load_explicit(&t->nbytes, memory_order_relaxed) + nbytes;
    atomic_store_explicit(&t->nbytes, now, memory_order_relaxed);
    if (rl_is_detached(t->s)) return; /* the slot is another's */
    rl_control *c = t->s->map.control;
    atomic_store_explicit(&c->private_nbytes[t->s->slot], now, memory_order_relaxed);
}

/* Count `nbytes` more; 0, and nothing is counted, if that is more than a share and not `asked_for`. */
static int reserve_share(rl_private_table *t, uint64_t nbytes, int asked_for)
{
    const rl_mapping *m = &t->s->map;
    pthread_mutex_lock(&t->mutex);
    int fits = asked_for || (t->nbytes + nbytes <= m->data_size / RL_PRIVATE_SHARE &&
                             nbytes_of_all(m) + nbytes <= m->data_size / RL_PRIVATE_SHARE_OF_ALL);
    if (fits) count_share(t, nbytes);
    pthread_mutex_unlock(&t->mutex);
    return fits;
}

/* 0 if the table is too full for a short search. */
static int insert(rl_private_table *t, const rl_private *entry)
{
    pthread_mutex_lock(&t->mutex);
    int fits = t->count < RL_MOST_PRIVATE / 2;
    if (fits) {
        uint32_t i = place_of(entry->memory);
        while (t->places[i].memory) i = next_place(i);
        t->places[i] = *entry;
        t->count++;
    }
    pthread_mutex_unlock(&t->mutex);
    return fits;
}

void *rl_private_alloc(rl_private_table *t, uint64_t nbytes, int asked_for)
{
    rl_private p = {.nbytes = nbytes, .asked_for = asked_for, .object = {.index = RL_NIL}};
    if (rl_is_detached(t->s) || nbytes > t->s->map.data_size) return NULL;
    if (!reserve_share(t, nbytes, asked_for)) return NULL;
    if (rl_arena_fill(t->s, RL_HEAD_ROOM + nbytes, &p.block) == 0) {
        p.memory = rl_arena_bytes(t->s, p.block) + RL_HEAD_ROOM;
        if (insert(t, &p)) return p.memory;
        rl_arena_abandon(t->s, p.block);
    }
    pthread_mutex_lock(&t->mutex);
    count_share(t, -nbytes);
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

int rl_private_free(rl_private_table *t, void *memory)
{
    pthread_mutex_lock(&t->mutex);
    rl_private *p = find(t, memory);
    rl_private gone = p ? *p : (rl_private){0};
    if (p) remove_at(t, (uint32_t)(p - t->places));
    if (gone.memory && !is_sealed(&gone)) count_share(t, -gone.nbytes);
    pthread_mutex_unlock(&t->mutex);
    if (gone.memory == NULL) return 0;
    if (is_sealed(&gone)) {
        rl_object_release(t->s, gone.object);
        return 1;
    }
    if (!rl_is_detached(t->s)) rl_arena_abandon(t->s, gone.block);
    return 1;
}

uint64_t rl_private_size(rl_private_table *t, const void *memory)
{
    pthread_mutex_lock(&t->mutex);
    const rl_private *p = find(t, memory);
    uint64_t nbytes = p ? p->nbytes : 0;
    pthread_mutex_unlock(&t->mutex);
    return nbytes;
}

void rl_private_expose(rl_private_table *t, const void *address)
{
    pthread_mutex_lock(&t->mutex);
    for (uint32_t i = 0, left = t->count; left; i++) {
        rl_private *p = &t->places[i];
        if (p->memory == NULL) continue;
        left--;
        if ((uintptr_t)address - (uintptr_t)p->memory < p->nbytes) p->exposed = 1;
    }
    pthread_mutex_unlock(&t->mutex);
}

uint32_t rl_private_block(rl_private_table *t, const void *memory, int asked_for)
{
    pthread_mutex_lock(&t->mutex);
    const rl_private *p = rl_is_detached(t->s) ? NULL : find(t, memory);
    int fits = p && !is_sealed(p) && p->asked_for == asked_for && !p->exposed;
    uint32_t block = fits ? p->block : RL_NIL;
    pthread_mutex_unlock(&t->mutex);
    return block;
}

void rl_private_sealed(rl_private_table *t, const void *memory, rl_handle object)
{
    pthread_mutex_lock(&t->mutex);
    rl_private *p = find(t, memory);
    if (p) {
        p->object = object;
        count_share(t, -p->nbytes);
    }
    pthread_mutex_unlock(&t->mutex);
}
