/* shm_test.h - what the tests of shared memory share: a private directory, a small geometry,
 * children that are killed at a labelled step. */
#ifndef OMNI_TESTS_UNIT_SHM_TEST_H
#define OMNI_TESTS_UNIT_SHM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/kv/geometry.h"

/* A fresh directory in /dev/shm, valid until shm_test_teardown; cmocka setup and teardown. */
extern char shm_test_dir[64];
int shm_test_setup(void **state);
int shm_test_teardown(void **state);

/* Two layers of different widths: 4 query heads, 2 KV heads, 8 wide; then 2, 1, 16. */
void shm_test_geometry(struct kv_geometry *g, uint32_t n_groups);

/* Runs body in a child that dies at the n-th pass of label (NULL: runs to its end).  Returns 1 if
 * it was killed there, 0 if it ended by itself with success; fails the test otherwise. */
int shm_test_child(const char *label, unsigned n, void (*body)(void *), void *arg);

#endif
