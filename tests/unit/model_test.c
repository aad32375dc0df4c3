#include "model_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[64];

const char *model_test_path(const char *name, char out[PATH_BYTES])
{
    if (!directory[0]) {
        snprintf(directory, sizeof(directory), "/tmp/omni-model-test-XXXXXX");
        assert_non_null(mkdtemp(directory));
    }
    snprintf(out, PATH_BYTES, "%s/%s", directory, name);
    return out;
}

void model_test_clean(void)
{
    char command[128];

    if (!directory[0])
        return;
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    if (system(command) != 0)
        fprintf(stderr, "could not remove %s\n", directory);
    directory[0] = 0;
}

static bool exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

bool model_test_shared(const char *name, char out[PATH_BYTES])
{
    const char *root = getenv("OMNI_SHARED_DATA");

    if (root)
        snprintf(out, PATH_BYTES, "%s/%s", root, name);
    else
        snprintf(out, PATH_BYTES, "%s/../shared/data/%s", OMNI_SOURCE_DIR, name);
    return exists(out);
}

bool model_test_demo(char out[PATH_BYTES])
{
    const char *path = getenv("OMNI_DEMO_MODEL");

    if (path)
        snprintf(out, PATH_BYTES, "%s", path);
    else
        snprintf(out, PATH_BYTES, "%s/build/models/smollm2-135m-instruct-q4_1.gguf",
                 OMNI_SOURCE_DIR);
    return exists(out);
}

struct model *model_test_open_random(const struct model_random_options *o)
{
    char path[PATH_BYTES];
    struct model *m;
    struct gguf_error err;

    assert_int_equal(model_random_write(model_test_path("random.gguf", path), o), 0);
    if (model_open(path, &m, &err))
        fail_msg("%s", err.text);
    return m;
}

struct tokenizer *model_test_tokenizer(const char *path)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct gguf_error err;

    if (gguf_open(path, &g, &err) || tokenizer_open(g, &t, &err))
        fail_msg("%s: %s", path, err.text);
    gguf_close(g);
    return t;
}

struct tokenizer *model_test_tiny_tokenizer(void)
{
    const struct model_random_options o = model_random_defaults();
    char path[PATH_BYTES];

    assert_int_equal(model_random_write(model_test_path("random.gguf", path), &o), 0);
    return model_test_tokenizer(path);
}

unsigned char *model_test_read(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    unsigned char *data;

    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    *size = (size_t)st.st_size;
    data = malloc(*size);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, f), *size);
    fclose(f);
    return data;
}
