/* Segments: created whole or not at all, refused when they do not fit, cleaned up when unused. */
#include "shm_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/shm/segment.h"

static struct segment_spec spec_of(const char *name)
{
    return (struct segment_spec){.dir = shm_test_dir,
                                 .name = name,
                                 .kind = SEGMENT_ENGINE,
                                 .layout_version = 3,
                                 .geometry_hash = 0x1234,
                                 .bytes = 10000,
                                 .numa_node = SEGMENT_ANY_NODE};
}

static void make(struct segment *s, const char *name)
{
    struct segment_spec spec = spec_of(name);
    struct error err;

    assert_int_equal(segment_create(s, &spec, &err), 0);
    assert_int_equal(segment_publish(s, &err), 0);
}

static uint32_t count_files(void)
{
    uint32_t removed, left;
    struct error err;
    char copy[64];

    strcpy(copy, shm_test_dir);
    assert_int_equal(segment_unlink_stale(copy, &removed, &left, &err), 0);
    return removed + left;
}

static void create_then_attach(void **state)
{
    struct segment a, b;
    struct segment_spec spec = spec_of("one");
    struct stat st;
    struct error err;

    (void)state;
    make(&a, "one");
    assert_int_equal(stat(a.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(shm_test_dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_true(a.bytes >= 10000 && a.bytes % SHM_PAGE == 0);
    memcpy(a.base + 9000, "payload", 8);
    assert_int_equal(segment_attach(&b, &spec, false, &err), 0);
    assert_string_equal((const char *)b.base + 9000, "payload");
    assert_true(segment_is_current(&a) && segment_is_current(&b));
    segment_detach(&b);
    segment_detach(&b);
    segment_detach(&a);
}

static void unpublished_is_invisible(void **state)
{
    struct segment a, b;
    struct segment_spec spec = spec_of("one");
    struct error err;

    (void)state;
    assert_int_equal(segment_create(&a, &spec, &err), 0);
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ENOENT);
    segment_detach(&a);
    assert_int_equal(count_files(), 0);
}

static void mismatch_names_expected_and_found(void **state)
{
    struct segment a, b;
    struct segment_spec spec = spec_of("one");
    struct error err;

    (void)state;
    make(&a, "one");
    spec.layout_version = 4;
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ESTALE);
    assert_non_null(strstr(err.text, "layout version: expected 0x4, found 0x3"));
    spec = spec_of("one");
    spec.geometry_hash = 0x99;
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ESTALE);
    assert_non_null(strstr(err.text, "geometry hash: expected 0x99, found 0x1234"));
    spec.geometry_hash = 0;
    assert_int_equal(segment_attach(&b, &spec, true, &err), 0);
    segment_detach(&b);
    spec.kind = SEGMENT_JOBS;
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ESTALE);
    assert_non_null(strstr(err.text, "kind: expected 0x2, found 0x1"));
    spec = spec_of("one");
    spec.bytes = 1 << 20;
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ESTALE);
    assert_non_null(strstr(err.text, "expected 1048576 bytes, found 12288"));
    spec = spec_of("one");
    segment_header(&a)->creator_uid = 4711;
    assert_int_equal(segment_attach(&b, &spec, true, &err), -EPERM);
    assert_non_null(strstr(err.text, "4711"));
    segment_header(&a)->creator_uid = (uint32_t)geteuid();
    atomic_store(&segment_header(&a)->state, SEGMENT_BUILDING);
    assert_int_equal(segment_attach(&b, &spec, true, &err), -EAGAIN);
    atomic_store(&segment_header(&a)->state, SEGMENT_READY);
    segment_header(&a)->magic = 7;
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ESTALE);
    assert_non_null(strstr(err.text, "magic"));
    assert_int_equal(truncate(a.path, 100), 0);
    assert_int_equal(segment_attach(&b, &spec, true, &err), -ESTALE);
    segment_detach(&a);
}

static void file_of_another_uid_is_refused(void **state)
{
    struct segment a, b;
    struct segment_spec spec = spec_of("one");
    struct error err;

    (void)state;
    if (geteuid() != 0)
        skip();
    make(&a, "one");
    assert_int_equal(chown(a.path, 4711, 4711), 0);
    assert_int_equal(segment_attach(&b, &spec, true, &err), -EPERM);
    assert_non_null(strstr(err.text, "found uid 4711"));
    assert_int_equal(chown(a.path, 0, 0), 0);
    segment_detach(&a);
    assert_int_equal(chmod(shm_test_dir, 0755), 0);
    assert_int_equal(segment_dir_prepare(shm_test_dir, &err), -EPERM);
    assert_non_null(strstr(err.text, "expected mode 0700, found 0755"));
    assert_int_equal(chmod(shm_test_dir, 0700), 0);
}

static void replaced_segment_is_noticed(void **state)
{
    struct segment old, new;

    (void)state;
    make(&old, "one");
    assert_true(segment_is_current(&old));
    make(&new, "one");
    assert_false(segment_is_current(&old));
    assert_true(segment_is_current(&new));
    old.base[5000] = 1; /* still mapped: no fault */
    segment_detach(&old);
    segment_detach(&new);
}

static void clean_up_takes_only_what_nobody_maps(void **state)
{
    struct segment used, stale, half;
    struct segment_spec spec = spec_of("half");
    uint32_t removed, left;
    struct error err;
    char note[128];
    int fd;

    (void)state;
    make(&used, "used");
    make(&stale, "stale");
    segment_detach(&stale);
    assert_int_equal(segment_create(&half, &spec, &err), 0);
    snprintf(note, sizeof note, "%s/notes.txt", shm_test_dir);
    fd = open(note, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "not a segment", 13), 13);
    close(fd);
    assert_int_equal(segment_unlink_stale(shm_test_dir, &removed, &left, &err), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(left, 3); /* used, the half-made one, the note */
    assert_int_equal(segment_publish(&half, &err), 0);
    segment_detach(&half);
    segment_detach(&used);
    unlink(note);
    assert_int_equal(segment_unlink_stale(shm_test_dir, &removed, &left, &err), 0);
    assert_int_equal(removed, 2);
    assert_int_equal(left, 0);
    assert_int_equal(access(shm_test_dir, F_OK), -1); /* empty: gone too */
    assert_int_equal(segment_unlink_stale(shm_test_dir, &removed, &left, &err), 0);
}

static void roles_have_one_owner(void **state)
{
    struct segment a, b;
    struct segment_spec spec = spec_of("one");
    struct error err;

    (void)state;
    make(&a, "one");
    assert_int_equal(segment_attach(&b, &spec, true, &err), 0);
    assert_false(segment_role_held(&b, SEGMENT_ROLE_WORKER));
    assert_int_equal(segment_role_lock(&a, SEGMENT_ROLE_WORKER), 0);
    assert_true(segment_role_held(&b, SEGMENT_ROLE_WORKER));
    assert_false(segment_role_held(&b, SEGMENT_ROLE_ENGINE));
    assert_int_equal(segment_role_lock(&b, SEGMENT_ROLE_WORKER), -EBUSY);
    assert_int_equal(segment_role_lock(&b, SEGMENT_ROLE_ENGINE), 0);
    segment_detach(&a); /* the lock goes with the open file */
    assert_int_equal(segment_role_lock(&b, SEGMENT_ROLE_WORKER), 0);
    segment_detach(&b);
}

static void create_body(void *arg)
{
    struct segment s;

    make(&s, arg);
}

static void killed_at_every_step(void **state)
{
    static const char *const labels[] = {"segment.created", "segment.allocated", "segment.header",
                                         "segment.ready", "segment.published"};
    struct segment_spec spec = spec_of("one");
    struct segment s;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        int rc, complete = strcmp(labels[i], "segment.published") == 0;

        assert_int_equal(shm_test_child(labels[i], 1, create_body, "one"), 1);
        rc = segment_attach(&s, &spec, true, &err);
        assert_int_equal(rc, complete ? 0 : -ENOENT); /* whole, or not there */
        segment_detach(&s);
        assert_int_equal(count_files(), 1); /* what was left is found and removed */
        assert_int_equal(segment_dir_prepare(shm_test_dir, &err), 0);
    }
}

static void node_and_pages_are_reported(void **state)
{
    struct segment_spec spec = spec_of("one");
    struct segment s;
    struct error err;

    (void)state;
    spec.bytes = 8 << 20;
    spec.numa_node = 0;
    spec.want_huge = true;
    assert_int_equal(segment_create(&s, &spec, &err), 0);
    assert_int_equal((uintptr_t)s.base % SHM_HUGE_PAGE, 0);
    /* A kernel or a container may refuse the call; if the bound is claimed it must be true. */
    if (s.bound_node == 0)
        assert_int_equal(segment_page_node(&s, 5 << 20), 0);
    assert_true(segment_huge_bytes(&s) <= s.bytes);
    segment_detach(&s);
}

/* In a mount namespace of its own: a tmpfs of 1 MiB (and one with huge pages, if the kernel can).
 */
static int on_private_tmpfs(const char *options, int (*body)(const char *dir))
{
    char dir[128];
    struct error err;

    snprintf(dir, sizeof dir, "%s/g", shm_test_dir);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("omni", shm_test_dir, "tmpfs", 0, options) != 0)
        return 77;
    if (segment_dir_prepare(dir, &err) != 0)
        return 1;
    return body(dir);
}

static int too_large_for_one_mib(const char *dir)
{
    struct segment_spec spec = spec_of("one");
    struct segment s;
    struct error err;

    spec.dir = dir;
    spec.bytes = 3 << 20;
    if (segment_create(&s, &spec, &err) != -ENOSPC)
        return 2;
    if (strstr(err.text, "needs 3.0 MiB") == NULL || strstr(err.text, "free are 1.0 MiB") == NULL ||
        strstr(err.text, "shm.dir") == NULL)
        return 3;
    spec.bytes = 512 << 10;
    if (segment_create(&s, &spec, &err) != 0)
        return 4;
    memset(s.base + sizeof(struct segment_header), 1, spec.bytes - sizeof(struct segment_header));
    return 0;
}

static int all_huge(const char *dir)
{
    struct segment_spec spec = spec_of("one");
    struct segment s;
    struct error err;

    spec.dir = dir;
    spec.bytes = 8 << 20;
    spec.want_huge = true;
    if (segment_create(&s, &spec, &err) != 0)
        return 2;
    /* Nothing was touched yet: its kind of pages is settled all the same. */
    return segment_huge_bytes(&s) == s.bytes ? 0 : 3;
}

static void in_child(const char *options, int (*body)(const char *dir))
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(on_private_tmpfs(options, body));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void too_little_space_names_the_remedy(void **state)
{
    (void)state;
    in_child("size=1m", too_large_for_one_mib);
}

static void huge_pages_of_a_huge_tmpfs_are_counted(void **state)
{
    (void)state;
    in_child("size=64m,huge=always", all_huge);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_then_attach),
        TEST(unpublished_is_invisible),
        TEST(mismatch_names_expected_and_found),
        TEST(file_of_another_uid_is_refused),
        TEST(replaced_segment_is_noticed),
        TEST(clean_up_takes_only_what_nobody_maps),
        TEST(roles_have_one_owner),
        TEST(killed_at_every_step),
        TEST(node_and_pages_are_reported),
        TEST(too_little_space_names_the_remedy),
        TEST(huge_pages_of_a_huge_tmpfs_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
