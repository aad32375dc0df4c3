#include "router/id_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/invariant.h"

int id_map_init(struct id_map *m, uint32_t n_max)
{
    uint32_t size = 2;

    memset(m, 0, sizeof *m);
    if (n_max == 0 || n_max > 1u << 24)
        return -EINVAL;
    while (size < 2 * n_max)
        size *= 2;
    if (getrandom(m->key, sizeof m->key, 0) != (ssize_t)sizeof m->key)
        return -EIO;
    m->entries = calloc(size, sizeof *m->entries);
    if (!m->entries)
        return -ENOMEM;
    for (uint32_t i = 0; i < size; i++)
        m->entries[i].value = ID_MAP_NONE;
    m->n_max = n_max;
    m->mask = size - 1;
    return 0;
}

void id_map_fini(struct id_map *m)
{
    free(m->entries);
    memset(m, 0, sizeof *m);
}

/* The low and the high half of a 128-bit product, folded. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    const __uint128_t product = (__uint128_t)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t home(const struct id_map *m, const struct request_id *id)
{
    uint64_t half[2];

    memcpy(half, id->bytes, sizeof half);
    return (uint32_t)mix(mix(half[0] ^ m->key[0], m->key[1] | 1) ^ half[1],
                         UINT64_C(0x9e3779b97f4a7c15)) &
           m->mask;
}

/* Where id is, or the empty place where it would be put. */
static uint32_t probe(const struct id_map *m, const struct request_id *id)
{
    uint32_t at = home(m, id);

    while (m->entries[at].value != ID_MAP_NONE && !request_id_equal(&m->entries[at].id, id))
        at = (at + 1) & m->mask;
    return at;
}

uint32_t id_map_find(const struct id_map *m, const struct request_id *id)
{
    return m->entries[probe(m, id)].value;
}

void id_map_add(struct id_map *m, const struct request_id *id, uint32_t value)
{
    const uint32_t at = probe(m, id);

    invariant(value != ID_MAP_NONE && m->n < m->n_max);
    invariant(m->entries[at].value == ID_MAP_NONE);
    m->entries[at] = (struct id_map_entry){.id = *id, .value = value};
    m->n++;
}

bool id_map_remove(struct id_map *m, const struct request_id *id)
{
    uint32_t hole = probe(m, id);

    if (m->entries[hole].value == ID_MAP_NONE)
        return false;
    /* An entry behind the hole moves into it unless its home lies behind the hole too. */
    for (uint32_t at = (hole + 1) & m->mask; m->entries[at].value != ID_MAP_NONE;
         at = (at + 1) & m->mask) {
        const uint32_t from_home = (at - home(m, &m->entries[at].id)) & m->mask;

        if (from_home >= ((at - hole) & m->mask)) {
            m->entries[hole] = m->entries[at];
            hole = at;
        }
    }
    m->entries[hole].value = ID_MAP_NONE;
    m->n--;
    return true;
}
