/* id_map.h - from a request's 16-byte id to its slot in the request table.
 *
 * Ids are chosen by clients, so the hash is keyed with a random number of this process: nobody can
 * choose ids that collide.  Open addressing with linear probing, at most half full; removal shifts
 * entries back, so there are no tombstones.  Allocates at init only.  One thread. */
#ifndef OMNI_ROUTER_ID_MAP_H
#define OMNI_ROUTER_ID_MAP_H

#include "proto/messages.h"

#define ID_MAP_NONE UINT32_MAX

struct id_map_entry {
    struct request_id id;
    uint32_t value; /* ID_MAP_NONE: empty */
};

struct id_map {
    uint64_t key[2];
    uint32_t n, n_max, mask;
    struct id_map_entry *entries; /* [mask + 1], owned */
};

/* Room for n_max ids (1 .. 2^24).  0, -EINVAL, -ENOMEM or -errno; fini is safe after each. */
int id_map_init(struct id_map *m, uint32_t n_max);
void id_map_fini(struct id_map *m);

/* ID_MAP_NONE if the id is not there. */
uint32_t id_map_find(const struct id_map *m, const struct request_id *id);

/* The id must not be there, and there must be room. */
void id_map_add(struct id_map *m, const struct request_id *id, uint32_t value);

/* False if it was not there. */
bool id_map_remove(struct id_map *m, const struct request_id *id);

#endif
