/* test_gpu_kernels.c - every kernel of the CUDA device against its reference, on the CPU (shim.h), with
 * threads in every order and copies that land early and late. */
#include "tests/gpu/checks/check.h"
#include "tests/gpu/shim/shim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void *memory_alloc(enum check_memory kind, size_t bytes)
{
    void *memory = NULL;

    (void)kind;
    return posix_memalign(&memory, 256, bytes) == 0 ? memory : NULL;
}

static void memory_release(enum check_memory kind, void *memory)
{
    (void)kind;
    free(memory);
}

static int no_wait(void)
{
    return 0;
}

static void test_check(void **state)
{
    const struct check *check = *state;
    struct check_run run = {.alloc = memory_alloc, .release = memory_release, .sync = no_wait};
    double worst = 0;

    for (int order = 0; order < SHIM_ORDERS; order++) {
        for (int landing = 0; landing < SHIM_LANDINGS; landing++) {
            shim_set_schedule((struct shim_schedule){
                .order = (enum shim_order)order, .landing = (enum shim_landing)landing, .seed = 7});
            if (check_execute(&run, check) != 0)
                fail_msg("order %d, landing %d: %s %s", order, landing, run.why, shim_error());
            worst = run.worst > worst ? run.worst : worst;
        }
    }
    print_message("%s: largest error %.2f of the tolerance\n", check->name, worst);
}

/* All checks, or those named on the command line. */
int main(int argc, char **argv)
{
    struct CMUnitTest tests[64];
    size_t n = 0;

    (void)argc;
    for (size_t i = 0; i < N_CHECKS; i++)
        tests[n++] = (struct CMUnitTest){.name = CHECKS[i].name,
                                         .test_func = test_check,
                                         .initial_state = (void *)(uintptr_t)&CHECKS[i]};
    if (argv[1] != NULL)
        cmocka_set_test_filter(argv[1]);
    int rc = _cmocka_run_group_tests("gpu kernels", tests, n, NULL, NULL);
    shim_fini();
    return rc;
}
