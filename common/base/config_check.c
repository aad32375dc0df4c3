/* What several options must be together, and how a configuration is printed.  See config.h. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config.h"
#include "common/base/config_options.h"
#include "common/base/cpu_list.h"

static bool is_plain_name(const char *s)
{
    return config_is_plain_name(s, strlen(s));
}

static int check_classes(const struct omni_config *c, struct error *err)
{
    char names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX];
    uint32_t n = config_classes(c, names), commas = 0;

    for (const char *p = c->group_classes; *p != '\0'; p++)
        commas += *p == ',';
    if (n == 0 || n != commas + 1)
        return error_set(
            err, -EINVAL,
            "group.classes: expected 1 to %d names of at most %d characters, separated "
            "by commas, found \"%s\"",
            CONFIG_CLASSES_MAX, CONFIG_CLASS_NAME_MAX - 1, c->group_classes);
    for (uint32_t i = 0; i < n; i++) {
        if (!is_plain_name(names[i]))
            return error_set(err, -EINVAL, "group.classes: bad name \"%s\"", names[i]);
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(names[i], names[j]) == 0)
                return error_set(err, -EINVAL, "group.classes: \"%s\" twice", names[i]);
        }
    }
    return 0;
}

static int check_queues(const struct omni_config *c, struct error *err)
{
    char item[32];

    for (uint32_t i = 0; config_list_item(c->router_queue_max, i, item, sizeof item); i++) {
        if (strspn(item, "0123456789") != strlen(item) || strlen(item) > 7)
            return error_set(err, -EINVAL, "router.queue_max: expected numbers, found \"%s\"",
                             item);
    }
    if (!config_list_item(c->router_queue_max, 0, item, sizeof item))
        return error_set(err, -EINVAL, "router.queue_max: expected at least one number");
    return 0;
}

uint32_t config_engine_share(const struct omni_config *c, uint32_t i)
{
    char item[32];

    while (i > 0 && !config_list_item(c->worker_engine_shares, i, item, sizeof item))
        i--;
    return config_list_item(c->worker_engine_shares, i, item, sizeof item)
               ? (uint32_t)strtoul(item, NULL, 10)
               : 0;
}

static int check_shares(const struct omni_config *c, struct error *err)
{
    const char *all = c->worker_engine_shares;
    uint32_t n = 0, commas = 0;
    bool good = true;
    char item[32];

    for (const char *p = all; *p != '\0'; p++)
        commas += *p == ',';
    for (; config_list_item(all, n, item, sizeof item); n++)
        good = good && strspn(item, "0123456789") == strlen(item) && strlen(item) <= 4 &&
               config_engine_share(c, n) > 0;
    if (!good || n != commas + 1)
        return error_set(err, -EINVAL,
                         "worker.engine_shares: expected numbers from 1 to 9999 separated by "
                         "commas, found \"%s\"",
                         all);
    if (n > c->group_n_engines)
        return error_set(err, -EINVAL, "worker.engine_shares: %u shares for %u engines", n,
                         c->group_n_engines);
    return 0;
}

int config_port_range(const char *text, uint16_t *first, uint16_t *last)
{
    char *dash, *end;
    const unsigned long a = strtoul(text, &dash, 10);
    const unsigned long b = *dash == '-' ? strtoul(dash + 1, &end, 10) : 0;

    /* strtoul would take blanks and signs too. */
    if (!isdigit((unsigned char)text[0]) || *dash != '-' || !isdigit((unsigned char)dash[1]) ||
        *end != '\0' || a == 0 || a > b || b > UINT16_MAX)
        return -EINVAL;
    *first = (uint16_t)a;
    *last = (uint16_t)b;
    return 0;
}

static int check_ports(const struct omni_config *c, struct error *err)
{
    uint16_t first, last;

    if (config_port_range(c->router_tcp_ports, &first, &last) < 0)
        return error_set(err, -EINVAL, "router.tcp_ports: expected first-last, found \"%s\"",
                         c->router_tcp_ports);
    if (c->router_tcp_port >= first && c->router_tcp_port <= last)
        return error_set(err, -EINVAL, "router.tcp_port %u lies in router.tcp_ports %s",
                         c->router_tcp_port, c->router_tcp_ports);
    return 0;
}

/* One list of cpus per member; fewer are fine, the others are placed by the topology.  Whether the
 * machine has these cpus is the topology's to say. */
static int check_cpus(const char *key, const char *lists, uint32_t n_members, struct error *err)
{
    const char *rest = lists[0] != '\0' ? lists : NULL;
    uint64_t bits[CPU_LIST_WORDS];
    uint32_t n_lists = 0;

    while (rest != NULL) {
        const char *text = rest;
        size_t n = cpu_list_next(&rest);

        n_lists++;
        if (cpu_list_parse(text, n, bits) != 0)
            return error_set(err, -EINVAL,
                             "%s: expected lists of cpus below %d separated by '|', such as "
                             "0-3,8|16-19, found \"%s\"",
                             key, CPU_LIST_CPUS_MAX, lists);
    }
    return n_lists <= n_members ? 0
                                : error_set(err, -EINVAL, "%s: %u lists of cpus for %u processes",
                                            key, n_lists, n_members);
}

int config_check(const struct omni_config *c, struct error *err)
{
    struct config_tenants tenants;
    int rc;

    if (!is_plain_name(c->group_name))
        return error_set(err, -EINVAL,
                         "group.name: expected letters, digits, '.', '_' and '-', found \"%s\"",
                         c->group_name);
    if (c->engine_block_tokens % 32 != 0)
        return error_set(err, -EINVAL, "engine.block_tokens: expected a multiple of 32, found %u",
                         c->engine_block_tokens);
    if (c->engine_chunk_tokens > c->engine_batch_tokens_max)
        return error_set(err, -EINVAL, "engine.chunk_tokens %u is above engine.batch_tokens_max %u",
                         c->engine_chunk_tokens, c->engine_batch_tokens_max);
    if (c->engine_offload == CONFIG_OFFLOAD_ALWAYS && c->group_n_workers == 0)
        return error_set(err, -EINVAL, "engine.offload = always needs group.n_workers >= 1");
    if (c->worker_kill_ms != 0 && c->worker_kill_ms <= c->worker_late_ms)
        return error_set(err, -EINVAL, "worker.kill_ms %u must be above worker.late_ms %u",
                         c->worker_kill_ms, c->worker_late_ms);
    rc = check_classes(c, err);
    if (rc == 0)
        rc = config_tenants(c, &tenants, err);
    if (rc == 0)
        rc = check_queues(c, err);
    if (rc == 0)
        rc = check_shares(c, err);
    if (rc == 0)
        rc = check_ports(c, err);
    if (rc == 0)
        rc = check_cpus("engine.cpus", c->engine_cpus, c->group_n_engines, err);
    if (rc == 0)
        rc = check_cpus("worker.cpus", c->worker_cpus, c->group_n_workers, err);
    return rc;
}

/* ---- print ----------------------------------------------------------------------------------- */

static void print_value(const struct config_option *o, const void *field, FILE *out)
{
    uint32_t number;
    size_t len;
    const char *name;

    switch (o->type) {
    case CONFIG_TYPE_U32:
    case CONFIG_TYPE_MS:
        memcpy(&number, field, sizeof number);
        fprintf(out, "%u", number);
        break;
    case CONFIG_TYPE_BOOL:
        fputs(*(const bool *)field ? "yes" : "no", out);
        break;
    case CONFIG_TYPE_STRING:
        fputs(field, out);
        break;
    case CONFIG_TYPE_ENUM:
        memcpy(&number, field, sizeof number);
        name = config_enum_name(o, number, &len);
        fprintf(out, "%.*s", (int)len, name != NULL ? name : "");
        break;
    }
}

static void print_bounds(const struct config_option *o, FILE *out)
{
    fprintf(out, "; default: %s", o->default_text[0] != '\0' ? o->default_text : "(empty)");
    if (o->type == CONFIG_TYPE_ENUM)
        fprintf(out, ", one of %s", o->unit);
    else if (o->type == CONFIG_TYPE_U32 || o->type == CONFIG_TYPE_MS)
        fprintf(out, ", %llu to %llu%s%s", (unsigned long long)o->min, (unsigned long long)o->max,
                o->unit[0] != '\0' ? " " : "", o->unit);
    fputc('\n', out);
}

void config_print(const struct omni_config *c, FILE *out)
{
    uint32_t n;
    const struct config_option *options = config_options(&n);
    const char *section = "";

    for (uint32_t i = 0; i < n; i++) {
        const struct config_option *o = &options[i];
        if (strcmp(section, o->section) != 0)
            fprintf(out, "%s[%s]\n", i > 0 ? "\n" : "", o->section);
        section = o->section;
        fprintf(out, "; %s\n", o->doc);
        print_bounds(o, out);
        fprintf(out, "%s = ", o->key);
        print_value(o, (const uint8_t *)c + o->offset, out);
        fputc('\n', out);
    }
}
