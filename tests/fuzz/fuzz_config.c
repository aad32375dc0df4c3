/* libFuzzer target: any bytes as a configuration file, and each of its lines as a --set.  What is
 * refused says why; what is taken prints as a file that reads back to the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/config.h"
#include "common/base/invariant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { FILE_BYTES_MAX = 1 << 15 };

/* Reads the bytes as a file; the reason of a refusal in err. */
static int load(struct omni_config *c, const void *data, size_t n, struct error *err)
{
    int fd = memfd_create("fuzz-config", 0);
    char path[64];

    invariant(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    config_defaults(c);
    int rc = config_load(c, path, err);

    if (rc == 0)
        rc = config_check(c, err);
    close(fd);
    return rc;
}

/* Everything that reads an option's text must cope with what the checks let through. */
static void use(const struct omni_config *c)
{
    char names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX];
    struct config_tenants tenants;
    struct error err;
    uint16_t first, last;

    invariant(config_classes(c, names) >= 1);
    invariant(config_tenants(c, &tenants, &err) == 0 && tenants.n >= 1);
    (void)config_tenant_find(&tenants, "b", 1);
    for (uint32_t i = 0; i < 16; i++)
        invariant(config_engine_share(c, i) >= 1);
    (void)config_port_range(c->router_tcp_ports, &first, &last);
}

static void read_back(const struct omni_config *c)
{
    static struct omni_config again;
    static char text[2][FILE_BYTES_MAX];
    struct error err;

    for (int i = 0; i < 2; i++) {
        FILE *out = fmemopen(text[i], sizeof text[i], "w");

        invariant(out != NULL);
        config_print(i == 0 ? c : &again, out);
        fclose(out);
        if (i == 0)
            invariant(load(&again, text[0], strlen(text[0]), &err) == 0);
    }
    invariant(strcmp(text[0], text[1]) == 0);
}

static void set_lines(const uint8_t *data, size_t n)
{
    static struct omni_config c;
    char line[200];
    struct error err;

    config_defaults(&c);
    for (size_t at = 0; at < n;) {
        const uint8_t *end = memchr(data + at, '\n', n - at);
        size_t len = (end != NULL ? (size_t)(end - data) : n) - at;

        if (len < sizeof line) {
            memcpy(line, data + at, len);
            line[len] = '\0';
            err.text[0] = '\0';
            invariant(config_set(&c, line, &err) == 0 || err.text[0] != '\0');
        }
        at += len + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct omni_config c;
    struct error err = {""};

    if (n > FILE_BYTES_MAX)
        return 0;
    if (load(&c, data, n, &err) == 0) {
        use(&c);
        read_back(&c);
    } else {
        invariant(err.text[0] != '\0');
    }
    set_lines(data, n);
    return 0;
}
