/* tenants.weights: "name:weight,...".  See config.h. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config.h"

enum { WEIGHT_DIGITS_MAX = 4 };

bool config_is_plain_name(const char *s, size_t n)
{
    if (n == 0 || s[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && (s[i] == '\0' || strchr("._-", s[i]) == NULL))
            return false;
    }
    return true;
}

uint32_t config_tenant_find(const struct config_tenants *t, const char *name, size_t n)
{
    for (uint32_t i = 1; i < t->n; i++) {
        if (strlen(t->names[i]) == n && memcmp(t->names[i], name, n) == 0)
            return i;
    }
    return 0;
}

/* One "name:weight" behind the others.  False: it is none, or the name is there. */
static bool add(struct config_tenants *t, const char *item)
{
    const char *colon = strchr(item, ':');
    size_t n = colon != NULL ? (size_t)(colon - item) : 0;
    size_t digits = colon != NULL ? strlen(colon + 1) : 0;

    if (!config_is_plain_name(item, n) || n >= CONFIG_TENANT_NAME_MAX || digits == 0 ||
        digits > WEIGHT_DIGITS_MAX || strspn(colon + 1, "0123456789") != digits ||
        config_tenant_find(t, item, n) != 0)
        return false;
    t->weights[t->n] = (uint32_t)strtoul(colon + 1, NULL, 10);
    memcpy(t->names[t->n], item, n);
    return t->weights[t->n++] > 0;
}

int config_tenants(const struct omni_config *c, struct config_tenants *out, struct error *err)
{
    char item[CONFIG_TENANT_NAME_MAX + WEIGHT_DIGITS_MAX + 2];
    uint32_t commas = 0;
    bool good = true;

    memset(out, 0, sizeof *out);
    out->weights[0] = c->tenants_others;
    out->n = 1;
    if (c->tenants_weights[0] == '\0')
        return 0;
    for (const char *p = c->tenants_weights; *p != '\0'; p++)
        commas += *p == ',';
    if (commas + 2 > CONFIG_TENANTS_MAX)
        return error_set(err, -EINVAL, "tenants.weights: at most %d tenants",
                         CONFIG_TENANTS_MAX - 1);
    for (uint32_t i = 0; good && i <= commas; i++)
        good = config_list_item(c->tenants_weights, i, item, sizeof item) && add(out, item);
    return good ? 0
                : error_set(err, -EINVAL,
                            "tenants.weights: expected name:weight,... with different names and "
                            "weights from 1 to 9999, found \"%s\"",
                            c->tenants_weights);
}
