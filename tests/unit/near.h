/* near.h - assert_near(value, expected, tolerance) for doubles, where cmocka has none. */
#ifndef OMNI_TESTS_UNIT_NEAR_H
#define OMNI_TESTS_UNIT_NEAR_H

#include <math.h>

#include "cmocka_all.h"

#define assert_near(value, expected, tolerance)                                                    \
    near_check((value), (expected), (tolerance), #value, __FILE__, __LINE__)

static inline void near_check(double value, double expected, double tolerance, const char *what,
                              const char *file, int line)
{
    if (fabs(value - expected) <= tolerance)
        return;
    print_error("%s is %.9g, expected %.9g +- %.3g\n", what, value, expected, tolerance);
    _fail(file, line);
}

#endif
