#include "router/counters.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 48, ROWS_MAX = N_COUNTERS + CONFIG_CLASSES_MAX * N_CLASS_COUNTERS };

#define ROW(NAME, text, how, what) {.name = text, .kind = how, .doc = what},
static const struct stats_row rows_of_router[N_COUNTERS] = {COUNTERS(ROW)};
static const struct stats_row rows_of_class[N_CLASS_COUNTERS] = {CLASS_COUNTERS(ROW)};

void counters_init(struct counters *c, uint32_t n_classes)
{
    memset(c, 0, sizeof *c);
    c->n_classes = n_classes;
    c->page = STATS_NONE;
}

int counters_open_page(struct counters *c, const char *dir,
                       char (*class_names)[CONFIG_CLASS_NAME_MAX], struct error *err)
{
    struct stats_row rows[ROWS_MAX];
    char names[ROWS_MAX][NAME_BYTES];
    uint32_t n = N_COUNTERS;

    memcpy(rows, rows_of_router, sizeof rows_of_router);
    for (uint32_t k = 0; k < c->n_classes; k++) {
        for (uint32_t i = 0; i < N_CLASS_COUNTERS; i++, n++) {
            snprintf(names[n], NAME_BYTES, "%s_%s", class_names[k], rows_of_class[i].name);
            rows[n] = rows_of_class[i];
            rows[n].name = names[n];
        }
    }
    return stats_create(&c->page, dir, "router", 0, rows, n, err);
}

void counters_fini(struct counters *c)
{
    stats_detach(&c->page);
}

void counters_publish(struct counters *c)
{
    uint32_t n = N_COUNTERS;

    if (c->page.values == NULL)
        return;
    for (uint32_t i = 0; i < N_COUNTERS; i++)
        stats_set(&c->page, i, c->values[i]);
    for (uint32_t k = 0; k < c->n_classes; k++) {
        for (uint32_t i = 0; i < N_CLASS_COUNTERS; i++)
            stats_set(&c->page, n++, c->of_class[k][i]);
    }
}

const char *counter_name(enum counter i)
{
    return rows_of_router[i].name;
}

const char *class_counter_name(enum class_counter i)
{
    return rows_of_class[i].name;
}
