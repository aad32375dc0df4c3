/* claim.h - have others taken these cpus for themselves?
 *
 * A program that pins its threads to cpus which nobody else of its group uses claims them: a record
 * lock on byte n of /dev/shm/omni-<uid>/.cpus says that cpu n is taken, for as long as the process
 * lives.  Groups of one user see each other so, whatever their run.dir, shm.dir and /tmp.  It is
 * advice: who finds cpus claimed says so once and goes on without spinning there, instead of
 * fighting for them.
 * Main thread, at start. */
#ifndef OMNI_COMMON_TOPOLOGY_CLAIM_H
#define OMNI_COMMON_TOPOLOGY_CLAIM_H

#include <sys/types.h>

#include "common/topology/topology.h"

/* Claims what is free of them.  0: all; 1: *taken were claimed before, one of them by *holder;
 * -errno: claims cannot be told here, nothing was claimed. */
int claim_cpus(const struct cpu_set *cpus, struct cpu_set *taken, pid_t *holder);

/* Of an exclusive place; where others have claimed some of it the log says so and names the
 * options (`keys`), and the place is exclusive no longer.  How many of its cpus others have. */
uint32_t claim_place(struct topology_place *place, const char *keys);

#endif
