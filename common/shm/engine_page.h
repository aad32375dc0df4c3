/* engine_page.h - segment engine-e<E>: is the engine alive, and the one word it sleeps on.
 *
 * All workers ring the same bell, so the engine sleeps on one futex however many they are.  The
 * page outlives the engine: a restarted engine opens the same one, under a higher epoch, and
 * workers that wait on it notice.  The engine writes, workers and tools read (and ring). */
#ifndef OMNI_COMMON_SHM_ENGINE_PAGE_H
#define OMNI_COMMON_SHM_ENGINE_PAGE_H

#include "common/shm/bell.h"
#include "common/shm/segment.h"

struct engine_page {
    struct segment segment;
    struct engine_shared *shared;
    struct error replaced; /* engine: why an older page did not fit; "" if none was there */
};

/* Engine: attaches to the page if there is a fitting one, else creates it; takes the engine role
 * (-EBUSY: another engine of this index runs, perhaps of another version).  Whoever removes a page
 * that does not fit holds its role while it does, and a new page replaces none, so however many
 * start at once, one gets the role of the page that the name leads to.  The pid is written by
 * engine_page_enter. */
int engine_page_open(struct engine_page *p, const char *dir, uint32_t engine_idx,
                     struct error *err);

/* Engine: announces itself under this epoch (higher than engine_page_epoch). */
void engine_page_enter(struct engine_page *p, uint32_t epoch, uint64_t now_ns);

/* Worker or tool; errors as segment_attach.  Writable: a worker rings the bell. */
int engine_page_attach(struct engine_page *p, const char *dir, uint32_t engine_idx,
                       struct error *err);

void engine_page_detach(struct engine_page *p);

uint32_t engine_page_epoch(const struct engine_page *p);

/* Engine: heartbeat; progress counts sweeps. */
void engine_page_beat(struct engine_page *p, uint64_t now_ns, uint64_t progress);

#endif
