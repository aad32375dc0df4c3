/* cmocka_all.h - cmocka with the headers that it needs before it. */
#ifndef OMNI_TESTS_UNIT_CMOCKA_ALL_H
#define OMNI_TESTS_UNIT_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
