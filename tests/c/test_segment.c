/* test_segment.c - the two memfds: how they are made, and what attach refuses. */
#include "harness.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static rl_mapping made;

static void make(void)
{
    CHECK_EQ(rl_segment_create(MIB, &small_tables, &made), 0);
}

/* ---- create ---- */

static void test_new_segments_are_private_and_cannot_be_resized(void)
{
    make();
    int fds[2] = {made.control_fd, made.data_fd};
    for (int i = 0; i < 2; i++) {
        struct stat st;
        CHECK_EQ(fstat(fds[i], &st), 0);
        CHECK_EQ(st.st_mode & 0777, 0600);
        CHECK_EQ(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        CHECK(ftruncate(fds[i], 0) < 0);
        CHECK(ftruncate(fds[i], st.st_size + 4096) < 0);
        CHECK(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE) < 0);
    }
    rl_segment_close(&made);
    CHECK_EQ(made.control_fd, -1);
}

static void test_size_is_rounded_to_pages_and_nonsense_is_refused(void)
{
    CHECK_EQ(rl_segment_create(1, &small_tables, &made), 0);
    CHECK_EQ(made.data_size, 4096);
    rl_segment_close(&made);
    CHECK_EQ(rl_segment_create(0, NULL, &made), RL_EINVAL);
    CHECK_EQ(rl_segment_create(UINT64_MAX, NULL, &made), RL_EINVAL);
}

static void test_default_tables_cost_no_memory_until_used(void)
{
    struct stat st;
    CHECK_EQ(rl_segment_create(UINT64_C(8) << 30, NULL, &made), 0);
    CHECK_EQ(fstat(made.control_fd, &st), 0);
    CHECK(st.st_blocks * 512 < 256 * 1024);
    CHECK_EQ(fstat(made.data_fd, &st), 0);
    CHECK_EQ(st.st_blocks, 0);
    rl_segment_close(&made);
}

static void *write_to(void *address)
{
    *(volatile uint8_t *)address = 1;
    return NULL;
}

static int write_to_view(void *address)
{
    const struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(SIGSEGV, &action, NULL); /* a sanitizer has its own handler */
    write_to(address);
    return 0;
}

static void test_read_only_view_shows_what_is_written_and_cannot_be_written(void)
{
    make();
    made.rw[5000] = 77;
    CHECK_EQ(made.ro[5000], 77);
    CHECK_EQ(reap(spawn(write_to_view, (void *)(uintptr_t)&made.ro[5000])), -SIGSEGV);
    CHECK(mprotect((void *)(uintptr_t)made.rw, 4096, PROT_READ) == 0);
    CHECK_EQ(reap(spawn(write_to_view, made.rw)), -SIGSEGV);
    rl_segment_close(&made);
}

static void test_populate_takes_any_range(void)
{
    make();
    CHECK_EQ(rl_segment_populate(&made, 0, 1), 0);
    CHECK_EQ(rl_segment_populate(&made, 5000, 100), 0);
    CHECK_EQ(rl_segment_populate(&made, MIB - 1, 1), 0);
    struct stat st;
    CHECK_EQ(fstat(made.data_fd, &st), 0);
    CHECK(st.st_blocks * 512 <= 3 * 4096);
    rl_segment_close(&made);
}

/* ---- attach ---- */

static int attach_copy_of(const rl_mapping *m, rl_mapping *out)
{
    int control = dup(m->control_fd), data = dup(m->data_fd);
    int err = rl_segment_attach(control, data, out);
    if (err) {
        close(control);
        close(data);
    }
    return err;
}

static void test_attached_mapping_is_the_same_session(void)
{
    rig r;
    rl_mapping second;
    rl_session s;
    rl_handle h;
    rl_payload p;
    rig_make(&r);
    CHECK_EQ(attach_copy_of(&r.map, &second), 0);
    CHECK(second.control != r.map.control);
    CHECK_EQ(rl_session_join(&s, &second, RL_ROLE_DRIVER, -1, -1), 0);
    CHECK_EQ(value_put(&r.s, 5000, 4, NULL, 0, &h), 0);
    CHECK_EQ(find_for(&s, &r.s, h), 0);
    CHECK_EQ(rl_object_read(&s, h, &p), 0);
    CHECK(payload_is_whole(&p));
    CHECK(p.bytes >= second.ro && p.bytes < second.ro + second.data_size);
    leave_session(&s);
    rl_segment_close(&second);
    rl_object_release(&r.s, h);
    rig_check_empty(&r);
    rig_drop(&r);
}

static int memfd_of(const void *bytes, size_t nbytes)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)nbytes), 0);
    CHECK_EQ(write(fd, bytes, nbytes), (ssize_t)nbytes);
    return fd;
}

static void test_attach_of_what_is_no_session_is_refused(void)
{
    rl_mapping out = {.control_fd = 77};
    char zeros[sizeof(rl_control) + 4096] = {0};
    make();
    int small = memfd_of("x", 1), blank = memfd_of(zeros, sizeof zeros);
    int pipes[2];
    CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
    CHECK_EQ(rl_segment_attach(-1, made.data_fd, &out), EBADF);
    CHECK_EQ(rl_segment_attach(small, made.data_fd, &out), RL_ELAYOUT);
    CHECK_EQ(rl_segment_attach(blank, made.data_fd, &out), RL_ELAYOUT);
    CHECK_EQ(rl_segment_attach(pipes[0], made.data_fd, &out), RL_ELAYOUT);
    CHECK_EQ(rl_segment_attach(made.control_fd, small, &out), RL_ELAYOUT);
    CHECK_EQ(rl_segment_attach(made.data_fd, made.control_fd, &out), RL_ELAYOUT);
    CHECK_EQ(out.control_fd, 77);
    for (int i = 0; i < 2; i++) close(pipes[i]);
    close(small);
    close(blank);
    rl_segment_close(&made);
}

static void test_attach_to_another_version_is_refused(void)
{
    rl_mapping out;
    make();
    made.control->version++;
    CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
    made.control->version--;
    made.control->magic = 0; /* not ready yet */
    CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
    made.control->magic = RL_MAGIC;
    CHECK_EQ(attach_copy_of(&made, &out), 0);
    rl_segment_close(&out);
    rl_segment_close(&made);
}

/* On nonsense both may fail, and a debug build may stop at a broken invariant; none may touch memory
 * outside of the segments. */
static int attach_and_join(void *argument)
{
    (void)argument;
    rl_mapping out;
    rl_session s;
    int err = attach_copy_of(&made, &out);
    if (err) return err == RL_ELAYOUT ? 0 : 2;
    rl_session_join(&s, &out, RL_ROLE_DRIVER, -1, -1);
    return 0;
}

static void test_attach_with_any_table_out_of_place_is_refused(void)
{
    rl_mapping out;
    make();
    rl_control *c = made.control;
    rl_table *tables[] = {&c->slots, &c->classes, &c->blocks, &c->objects,
                          &c->tasks, &c->chunks,  &c->edges};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        rl_table *t = tables[i], was = *t;
        t->offset = c->control_size;
        CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
        t->offset = UINT64_MAX - 63;
        CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
        t->offset = was.offset + 4;
        CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
        *t = was;
        t->capacity = UINT32_MAX;
        CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
        *t = was;
        t->high_water = t->capacity + 1;
        CHECK_EQ(attach_copy_of(&made, &out), RL_ELAYOUT);
        *t = was;
    }
    rl_segment_close(&made);
}

static void test_flipped_bits_of_the_constants_never_crash_an_attach(void)
{
    make();
    uint64_t rng = 5;
    uint8_t *header = (uint8_t *)made.control;
    for (int i = 0; i < (SANITIZED ? 200 : 1000); i++) {
        uint32_t at = rng_below(&rng, offsetof(rl_control, resources));
        uint8_t was = header[at];
        header[at] ^= (uint8_t)(1u << rng_below(&rng, 8));
        int how = reap(spawn(attach_and_join, NULL));
        header[at] = was;
        if (how != 0 && how != -SIGABRT) FAIL("a flip in byte %u ended an attach with %d", at, how);
        for (int k = 0; k < RL_MAX_SLOTS; k++) atomic_store(&made.slots[k].state, RL_SLOT_FREE);
    }
    rl_segment_close(&made);
}

int main(void)
{
    RUN(test_new_segments_are_private_and_cannot_be_resized);
    RUN(test_size_is_rounded_to_pages_and_nonsense_is_refused);
    RUN(test_default_tables_cost_no_memory_until_used);
    RUN(test_read_only_view_shows_what_is_written_and_cannot_be_written);
    RUN(test_populate_takes_any_range);
    RUN(test_attached_mapping_is_the_same_session);
    RUN(test_attach_of_what_is_no_session_is_refused);
    RUN(test_attach_to_another_version_is_refused);
    RUN(test_attach_with_any_table_out_of_place_is_refused);
    RUN(test_flipped_bits_of_the_constants_never_crash_an_attach);
    return 0;
}
