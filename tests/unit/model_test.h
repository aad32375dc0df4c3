/* model_test.h - what the tests of common/model share: files to work on, and cmocka's includes. */
#ifndef OMNI_TESTS_UNIT_MODEL_TEST_H
#define OMNI_TESTS_UNIT_MODEL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/model/model.h"
#include "common/model/model_random.h"
#include "common/model/tokenizer.h"

#define PATH_BYTES 512

/* A path in a directory of this process's own, removed by model_test_clean. */
const char *model_test_path(const char *name, char out[PATH_BYTES]);
void model_test_clean(void);

/* A file of the reference data (OMNI_SHARED_DATA, else ../shared/data beside the sources); false:
 * it is not there, and the test is skipped. */
bool model_test_shared(const char *name, char out[PATH_BYTES]);

/* The demo model (OMNI_DEMO_MODEL, else build/models beside the sources); false: not there. */
bool model_test_demo(char out[PATH_BYTES]);

/* Writes a random model and opens it; fails the test with the message. */
struct model *model_test_open_random(const struct model_random_options *o);

/* Opens a file's tokenizer; fails the test with the message. */
struct tokenizer *model_test_tokenizer(const char *path);

/* The tokenizer of a random model. */
struct tokenizer *model_test_tiny_tokenizer(void);

/* All bytes of a file, malloc'ed to their exact size. */
unsigned char *model_test_read(const char *path, size_t *size);

#endif
