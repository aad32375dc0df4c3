/* sim_alarm.h - a thread that sleeps until a time and then calls back.
 *
 * One time is pending at most.  Any thread may set it. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SIM_SIM_ALARM_H
#define OMNI_GPU_ENGINE_DEVICE_SIM_SIM_ALARM_H

#include <stdint.h>

struct sim_alarm;

/* 0, -ENOMEM, or the error of thread creation. */
int sim_alarm_create(struct sim_alarm **out, void (*ring)(void *), void *arg);
void sim_alarm_destroy(struct sim_alarm *a); /* NULL is allowed */

/* Rings at that time of CLOCK_MONOTONIC, at once if it has passed; UINT64_MAX: not at all.  Takes
 * the place of what was set before. */
void sim_alarm_set(struct sim_alarm *a, uint64_t at_ns);

#endif
