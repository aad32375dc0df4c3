#include "gpu-engine/device/sim/sim_alarm.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/base/clock.h"

struct sim_alarm {
    pthread_mutex_t lock; /* of at_ns and stopping */
    pthread_cond_t changed;
    pthread_t thread;
    void (*ring)(void *);
    void *arg;
    uint64_t at_ns;
    bool stopping;
};

/* Holds the lock, but not while it rings. */
static void sleep_or_ring(struct sim_alarm *a)
{
    struct timespec until = clock_timespec(a->at_ns);

    if (a->at_ns == UINT64_MAX) {
        pthread_cond_wait(&a->changed, &a->lock);
    } else if (clock_now_ns() < a->at_ns) {
        pthread_cond_timedwait(&a->changed, &a->lock, &until);
    } else {
        a->at_ns = UINT64_MAX;
        pthread_mutex_unlock(&a->lock);
        a->ring(a->arg);
        pthread_mutex_lock(&a->lock);
    }
}

static void *alarm_main(void *arg)
{
    struct sim_alarm *a = arg;

    pthread_mutex_lock(&a->lock);
    while (!a->stopping)
        sleep_or_ring(a);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

int sim_alarm_create(struct sim_alarm **out, void (*ring)(void *), void *arg)
{
    struct sim_alarm *a = calloc(1, sizeof *a);

    if (a == NULL)
        return -ENOMEM;
    a->ring = ring;
    a->arg = arg;
    a->at_ns = UINT64_MAX;
    pthread_mutex_init(&a->lock, NULL);
    init_cond(&a->changed);
    int rc = pthread_create(&a->thread, NULL, alarm_main, a);
    if (rc != 0) {
        free(a);
        return -rc;
    }
    *out = a;
    return 0;
}

void sim_alarm_destroy(struct sim_alarm *a)
{
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->lock);
    a->stopping = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->changed);
    free(a);
}

void sim_alarm_set(struct sim_alarm *a, uint64_t at_ns)
{
    pthread_mutex_lock(&a->lock);
    if (a->at_ns != at_ns) {
        a->at_ns = at_ns;
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
}
