/* The copy thread: KV blocks between the device's pool and staging, beside the sweeps. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/device/cpu/cpu_device.h"

int cpu_copy_start(struct device *d)
{
    size_t blocks = (size_t)d->table_max * d->geometry->n_groups;

    d->copies = calloc(d->config.copies_max, sizeof *d->copies);
    if (d->copies == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < d->config.copies_max; i++) {
        d->copies[i].blocks = calloc(blocks, sizeof *d->copies[i].blocks);
        d->copies[i].staging = calloc(blocks, sizeof *d->copies[i].staging);
        if (d->copies[i].blocks == NULL || d->copies[i].staging == NULL)
            return -ENOMEM;
    }
    int rc = pthread_create(&d->copy_thread, NULL, cpu_copy_main, d);
    d->copy_thread_up = rc == 0;
    return -rc;
}

void cpu_copy_free(struct device *d)
{
    for (uint32_t i = 0; d->copies != NULL && i < d->config.copies_max; i++) {
        free(d->copies[i].blocks);
        free(d->copies[i].staging);
    }
    free(d->copies);
    d->copies = NULL;
}

static void copy_run(struct device *d, const struct cpu_copy *c)
{
    size_t n = d->geometry->block_bytes;

    for (uint32_t i = 0; i < c->n_blocks; i++) {
        uint8_t *block = d->kv + c->blocks[i] * n;
        if (c->direction == DEVICE_COPY_OUT)
            memcpy(c->staging[i], block, n);
        else
            memcpy(block, c->staging[i], n);
    }
}

void *cpu_copy_main(void *device)
{
    struct device *d = device;

    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (d->copies_completed == d->copies_submitted && !d->stopping)
            pthread_cond_wait(&d->work, &d->lock);
        if (d->copies_completed == d->copies_submitted)
            break;
        struct cpu_copy *c = &d->copies[d->copies_completed % d->config.copies_max];
        pthread_mutex_unlock(&d->lock);
        copy_run(d, c);
        pthread_mutex_lock(&d->lock);
        d->copies_completed++;
        pthread_cond_broadcast(&d->idle);
        pthread_mutex_unlock(&d->lock);
        d->config.notify(d->config.notify_arg);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

int cpu_copy_submit(struct device *d, const struct device_copy *copy, uint64_t *ticket)
{
    if (copy->n_blocks > d->table_max * d->geometry->n_groups)
        return -EINVAL;
    pthread_mutex_lock(&d->lock);
    if (d->copies_submitted - d->copies_completed == d->config.copies_max) {
        pthread_mutex_unlock(&d->lock);
        return -EAGAIN;
    }
    struct cpu_copy *c = &d->copies[d->copies_submitted % d->config.copies_max];
    c->direction = copy->direction;
    c->n_blocks = copy->n_blocks;
    memcpy(c->blocks, copy->blocks, copy->n_blocks * sizeof *c->blocks);
    memcpy(c->staging, copy->staging, copy->n_blocks * sizeof *c->staging);
    *ticket = ++d->copies_submitted;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

int cpu_copy_done(struct device *d, uint64_t ticket)
{
    pthread_mutex_lock(&d->lock);
    int done = d->copies_completed >= ticket;
    pthread_mutex_unlock(&d->lock);
    return done;
}
