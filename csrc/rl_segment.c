/* rl_segment.c - see rl_segment.h. */
#include "rl_segment.h"

#include "rl_arena.h"
#include "rl_err.h"
#include "rl_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static const rl_capacities default_capacities = {.blocks = 1u << 20,
                                                 .objects = 1u << 22,
                                                 .tasks = 1u << 21,
                                                 .streams = 1u << 18,
                                                 .chunks = 1u << 21,
                                                 .edges = 1u << 22};

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static int memfd_make(const char *name, uint64_t size, int *out)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return errno;

    if (fchmod(fd, 0600) || ftruncate(fd, (off_t)size) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        int err = errno;
        close(fd);
        return err;
    }
    *out = fd;
    return 0;
}

static uint64_t place_table(rl_table *table, uint64_t offset, uint32_t capacity, size_t record)
{
    *table = (rl_table){.offset = offset, .capacity = capacity, .free = RL_NIL};
    return round_up(offset + (uint64_t)capacity * record, 4096);
}

/* Lay out the tables; returns the size of CONTROL. */
static uint64_t place_tables(rl_control *c, const rl_capacities *n)
{
    uint64_t end = round_up(sizeof *c, 4096);
    end = place_table(&c->slots, end, RL_MAX_SLOTS, sizeof(rl_slot));
    end = place_table(&c->classes, end, RL_MAX_CLASSES, sizeof(rl_class));
    end = place_table(&c->blocks, end, n->blocks, sizeof(rl_block));
    end = place_table(&c->objects, end, n->objects, sizeof(rl_object));
    end = place_table(&c->tasks, end, n->tasks, sizeof(rl_task));
    end = place_table(&c->streams, end, n->streams, sizeof(rl_stream));
    end = place_table(&c->actors, end, RL_MAX_ACTORS, sizeof(rl_actor));
    end = place_table(&c->chunks, end, n->chunks, sizeof(rl_chunk));
    end = place_table(&c->edges, end, n->edges, sizeof(rl_edge));
    return end;
}

static void find_tables(rl_mapping *m)
{
    char *base = (char *)m->control;
    rl_control *c = m->control;
    m->slots = (rl_slot *)(base + c->slots.offset);
    m->classes = (rl_class *)(base + c->classes.offset);
    m->blocks = (rl_block *)(base + c->blocks.offset);
    m->objects = (rl_object *)(base + c->objects.offset);
    m->tasks = (rl_task *)(base + c->tasks.offset);
    m->streams = (rl_stream *)(base + c->streams.offset);
    m->actors = (rl_actor *)(base + c->actors.offset);
    m->chunks = (rl_chunk *)(base + c->chunks.offset);
    m->edges = (rl_edge *)(base + c->edges.offset);
}

/* Map both segments into `m`, whose descriptors and sizes are set. */
static int map_both(rl_mapping *m)
{
    void *control = mmap(NULL, m->control_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                         m->control_fd, 0);
    if (control == MAP_FAILED) return errno;

    int err = 0;
    void *ro = mmap(NULL, m->data_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, m->data_fd, 0);
    if (ro == MAP_FAILED) {
        err = errno;
        goto unmap_control;
    }
    void *rw =
        mmap(NULL, m->data_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->data_fd, 0);
    if (rw == MAP_FAILED) {
        err = errno;
        goto unmap_ro;
    }
    m->control = control;
    m->ro = ro;
    m->rw = rw;
    return 0;

unmap_ro:
    munmap(ro, m->data_size);
unmap_control:
    munmap(control, m->control_size);
    return err;
}

static void init_data(rl_mapping *m)
{
    m->blocks[0] = (rl_block){.offset = 0, .tag = RL_BLOCK_FREE};
    m->control->blocks.high_water = 1;
    rl_arena_rebuild(m);
}

int rl_segment_create(uint64_t data_size, const rl_capacities *capacities, rl_mapping *out)
{
    rl_capacities n = capacities ? *capacities : default_capacities;
    if (n.blocks == 0) n.blocks = default_capacities.blocks;
    if (n.objects == 0) n.objects = default_capacities.objects;
    if (n.tasks == 0) n.tasks = default_capacities.tasks;
    if (n.streams == 0) n.streams = default_capacities.streams;
    if (n.chunks == 0) n.chunks = default_capacities.chunks;
    if (n.edges == 0) n.edges = default_capacities.edges;
    if (data_size == 0 || data_size > UINT64_C(1) << 46) return RL_EINVAL;

    rl_control plan = {.version = RL_LAYOUT_VERSION,
                       .data_size = round_up(data_size, 4096),
                       .supervisor = RL_NIL,
                       .next_seq = 1};
    plan.control_size = place_tables(&plan, &n);
    if (getrandom(&plan.cookie, sizeof plan.cookie, 0) != sizeof plan.cookie) return EIO;

    rl_mapping m = {.control_size = plan.control_size, .data_size = plan.data_size};
    int err = memfd_make("ray_lite.control", m.control_size, &m.control_fd);
    if (err) return err;
    err = memfd_make("ray_lite.data", m.data_size, &m.data_fd);
    if (err) goto close_control;
    err = map_both(&m);
    if (err) goto close_data;

    memcpy(m.control, &plan, sizeof plan);
    find_tables(&m);
    init_data(&m);
    err = rl_lock_init(&m.control->lock);
    if (err) {
        rl_segment_close(&m);
        return err;
    }
    atomic_thread_fence(memory_order_release);
    m.control->magic = RL_MAGIC;
    *out = m;
    return 0;

close_data:
    close(m.data_fd);
close_control:
    close(m.control_fd);
    return err;
}

static int is_placed(const rl_table *t, const rl_table *plan)
{
    return t->offset == plan->offset && t->high_water <= t->capacity;
}

/* Check a stranger's header, copied out first so that it cannot change under the check: the tables
 * must be where we would have put them. */
static int check_header(const rl_control *c, uint64_t control_size, uint64_t data_size)
{
    if (c->magic != RL_MAGIC || c->version != RL_LAYOUT_VERSION) return RL_ELAYOUT;
    if (c->control_size != control_size || c->data_size != data_size) return RL_ELAYOUT;
    if (c->slots.capacity != RL_MAX_SLOTS || c->classes.capacity != RL_MAX_CLASSES ||
        c->actors.capacity != RL_MAX_ACTORS)
        return RL_ELAYOUT;

    const rl_capacities n = {.blocks = c->blocks.capacity,
                             .objects = c->objects.capacity,
                             .tasks = c->tasks.capacity,
                             .streams = c->streams.capacity,
                             .chunks = c->chunks.capacity,
                             .edges = c->edges.capacity};
    rl_control plan;
    int placed = place_tables(&plan, &n) == control_size && is_placed(&c->slots, &plan.slots) &&
                 is_placed(&c->classes, &plan.classes) && is_placed(&c->blocks, &plan.blocks) &&
                 is_placed(&c->objects, &plan.objects) && is_placed(&c->tasks, &plan.tasks) &&
                 is_placed(&c->streams, &plan.streams) && is_placed(&c->actors, &plan.actors) &&
                 is_placed(&c->chunks, &plan.chunks) && is_placed(&c->edges, &plan.edges);
    return placed ? 0 : RL_ELAYOUT;
}

int rl_segment_attach(int control_fd, int data_fd, rl_mapping *out)
{
    struct stat control, data;
    if (fstat(control_fd, &control) || fstat(data_fd, &data)) return errno;
    if ((size_t)control.st_size < sizeof(rl_control) || data.st_size <= 0) return RL_ELAYOUT;

    rl_control header;
    if (pread(control_fd, &header, sizeof header, 0) != (ssize_t)sizeof header) return RL_ELAYOUT;
    int err = check_header(&header, (uint64_t)control.st_size, (uint64_t)data.st_size);
    if (err) return err;

    rl_mapping m = {.control_fd = control_fd,
                    .data_fd = data_fd,
                    .control_size = header.control_size,
                    .data_size = header.data_size};
    err = map_both(&m);
    if (err) return err;
    find_tables(&m);
    *out = m;
    return 0;
}

void rl_segment_close(rl_mapping *m)
{
    munmap(m->control, m->control_size);
    munmap((void *)(uintptr_t)m->ro, m->data_size);
    munmap(m->rw, m->data_size);
    close(m->control_fd);
    close(m->data_fd);
    *m = (rl_mapping){.control_fd = -1, .data_fd = -1};
}

int rl_segment_make_private(const rl_mapping *m, const void *at, uint64_t nbytes)
{
    uint64_t offset = (uint64_t)((const uint8_t *)at - m->rw);
    uint64_t begin = offset / 4096 * 4096;
    uint64_t end = round_up(offset + nbytes, 4096);
    uint8_t *own =
        mmap(NULL, end - begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED) return errno;
    memcpy(own, m->rw + begin, end - begin);
    void *moved =
        mremap(own, end - begin, end - begin, MREMAP_MAYMOVE | MREMAP_FIXED, m->rw + begin);
    return moved == MAP_FAILED ? errno : 0;
}

int rl_segment_populate(const rl_mapping *m, uint64_t offset, uint64_t nbytes)
{
    uint64_t begin = offset / 4096 * 4096;
    uint64_t end = round_up(offset + nbytes, 4096);
    if (madvise(m->rw + begin, end - begin, MADV_POPULATE_WRITE) == 0) return 0;
    return errno == EINVAL ? 0 : errno;
}

void *rl_reserve(size_t nbytes)
{
    void *base = mmap(NULL, nbytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

void *rl_reserve_wiped(size_t nbytes)
{
    void *base = rl_reserve(nbytes);
    if (base == NULL) return NULL;
    if (madvise(base, nbytes, MADV_WIPEONFORK) == 0) return base;
    rl_unreserve(base, nbytes);
    return NULL;
}

void rl_unreserve(void *base, size_t nbytes)
{
    munmap(base, nbytes);
}
