/* rl_private.h - memory that this process computes in, and that can become a value as it is.
 *
 * A private block is a block that the process fills (B4) and hands out as ordinary memory, e.g. to
 * numpy. Sealing such a block costs no copy. Until then nobody else can see it; when the process dies,
 * the janitor frees it like any block that was being filled.
 *
 * LAYOUT     [head room | memory]: the memory starts RL_HEAD_ROOM bytes into the block, so that a
 *            payload's head can be written before it.
 * LIFE       PRIVATE -> free            rl_private_free()
 *            PRIVATE -> SEALED -> free  rl_private_sealed(): from then on the memory is a holder of
 *                                       the object, until rl_private_free() lets go of it.
 * LIMIT      Private blocks that nobody asked for are not made once those of the process take one part
 *            in RL_PRIVATE_SHARE of the store, or those of all processes one in RL_PRIVATE_SHARE_OF_ALL:
 *            what is computed must not take the room of what is stored. Then, or when the store is
 *            full, the caller takes memory from elsewhere.
 * ADDRESS    Who was told where memory is (rl_private_expose()) may write to it at any time, and no count
 *            of references tells: such a block becomes no value, but is copied.
 * FORK       A fork copies memory that is not shared. So does one here: the child puts private copies in
 *            the place of all of it before fork() returns, and in the parent fork() returns after that.
 *            Meanwhile nobody there takes or gives memory; and who forks with Python's GIL keeps it, so
 *            that no other thread writes unless it computes without.
 * LOCAL      The table of them is the process's own: a death needs no repair. Its mutex is held while
 *            another lock is taken by a fork alone, which takes those of all tables.
 */
#ifndef RL_PRIVATE_H
#define RL_PRIVATE_H

#include "rl_object.h"

enum {
    RL_HEAD_ROOM = 256,
    RL_PRIVATE_SHARE = 4,
    RL_PRIVATE_SHARE_OF_ALL = 2,
    RL_MOST_PRIVATE = 8192
};

typedef struct rl_private {
    void *memory; /* NULL: an unused place of the table */
    uint64_t nbytes;
    uint32_t block;
    int asked_for;
    int exposed;
    rl_handle object; /* index RL_NIL: not sealed yet */
} rl_private;

typedef struct rl_private_table {
    rl_session *s;
    pthread_mutex_t mutex;
    rl_private *places; /* open addressing, RL_MOST_PRIVATE of them */
    uint32_t count;
    _Atomic uint64_t nbytes;       /* in blocks that are not sealed */
    struct rl_private_table *next; /* of this process */
} rl_private_table;

/* Returns 0 or RL_ETABLE (no memory). */
int rl_private_open(rl_private_table *t, rl_session *s);
void rl_private_close(rl_private_table *t);

/* Memory for `nbytes` > 0, aligned to RL_ALIGN; NULL: LIMIT, or the session is over. `asked_for`: who
 * has it knows that it becomes read-only when it is stored. */
void *rl_private_alloc(rl_private_table *t, uint64_t nbytes, int asked_for);

/* Give memory back. Returns 0 if it did not come from rl_private_alloc(). */
int rl_private_free(rl_private_table *t, void *memory);

/* Length of memory that came from rl_private_alloc(), else 0. */
uint64_t rl_private_size(rl_private_table *t, const void *memory);

/* Somebody is told an address in this process's own memory; any other address means nothing. */
void rl_private_expose(rl_private_table *t, const void *address);

/* The private block whose memory starts here and which is neither sealed nor exposed, one that was
 * `asked_for` or one that was not; RL_NIL otherwise. */
uint32_t rl_private_block(rl_private_table *t, const void *memory, int asked_for);

/* The block belongs to `object` now, which this process holds once for the memory's sake. */
void rl_private_sealed(rl_private_table *t, const void *memory, rl_handle object);

#endif
