/* rl_segment.h - the two memfds of a session and their mappings.
 *
 * The only file that calls mmap, memfd_create and madvise. A mapping is made once for a process and
 * never undone while the process lives in the session: the kernel may still write to a robust
 * mutex's page after the last unlock (glibc bug 14485), so its address range must not be reused.
 *
 * CONTROL is mapped read-write, DATA twice: `ro` is what Python readers get, `rw` is for the
 * process that fills a block. Neither file has a name; both are sealed against resizing.
 */
#ifndef RL_SEGMENT_H
#define RL_SEGMENT_H

#include "rl_layout.h"

#include <stddef.h>

typedef struct rl_mapping {
    int control_fd;
    int data_fd;
    rl_control *control;
    rl_slot *slots;
    rl_class *classes;
    rl_block *blocks;
    rl_object *objects;
    rl_task *tasks;
    rl_stream *streams;
    rl_actor *actors;
    rl_chunk *chunks;
    rl_edge *edges;
    const uint8_t *ro;
    uint8_t *rw;
    uint64_t control_size;
    uint64_t data_size;
} rl_mapping;

/* Sizes of the tables; 0 takes the default. */
typedef struct rl_capacities {
    uint32_t blocks, objects, tasks, streams, chunks, edges;
} rl_capacities;

/* Make both memfds and map them; every record is free, DATA is one free block of `data_size`
 * bytes (rounded up to whole pages). Returns 0, an errno, or RL_EINVAL. */
int rl_segment_create(uint64_t data_size, const rl_capacities *capacities, rl_mapping *out);

/* Map the segments behind two descriptors that another process made; they are owned by the mapping
 * on success. Refuses (RL_ELAYOUT) what is not a session of this version, before any use. */
int rl_segment_attach(int control_fd, int data_fd, rl_mapping *out);

/* Unmap and close. For a process that leaves the session for good and holds no view. */
void rl_segment_close(rl_mapping *m);

/* Have rw[offset, offset + nbytes) in this process's page table, resident, before it is written:
 * a fault for each page costs ten times as much. Returns 0 or an errno (ENOMEM: the machine has no
 * memory left); systems without MADV_POPULATE_WRITE do without. */
int rl_segment_populate(const rl_mapping *m, uint64_t offset, uint64_t nbytes);

/* In a forked child: the pages of rw that [at, at + nbytes) touches become the child's own, with what
 * they hold now. Returns 0 or an errno. */
int rl_segment_make_private(const rl_mapping *m, const void *at, uint64_t nbytes);

/* Anonymous zeroed memory that costs nothing until touched; NULL when there is none. */
void *rl_reserve(size_t nbytes);
/* As rl_reserve, but zeroed in a forked child: how a process knows that it is one. */
void *rl_reserve_wiped(size_t nbytes);
void rl_unreserve(void *base, size_t nbytes);

#endif
