/* segment_memory.h - the memory of a segment: size, mapping, NUMA node, huge pages.
 *
 * Private to segment.c; apart from it because it is about the machine and not about names, locks
 * and versions. */
#ifndef OMNI_COMMON_SHM_SEGMENT_MEMORY_H
#define OMNI_COMMON_SHM_SEGMENT_MEMORY_H

#include "common/shm/segment.h"

/* s->fd is a new, empty file: sizes, maps, binds, allocates every page; sets base, bytes,
 * bound_node.  On failure the caller detaches. */
int segment_memory_create(struct segment *s, const struct segment_spec *spec, struct error *err);

/* Maps all of s->fd (s->bytes of it). */
int segment_memory_map(struct segment *s, struct error *err);

#endif
