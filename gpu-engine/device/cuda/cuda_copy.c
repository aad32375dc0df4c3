#include "gpu-engine/device/cuda/cuda_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "gpu-engine/device/cuda/cuda_device.h"
#include "gpu-engine/device/cuda/cuda_place.h"

/* A copy engine is at its rate from about a megabyte on. */
enum { COPY_PIECE_BYTES = 2 << 20 };

/* Some blocks of a copy, in a half of a thread's ring. */
struct piece {
    struct cuda_copy *copy; /* NULL: none */
    uint32_t first, n;
    uint32_t half;
};

/* ---- Taking pieces, under lock ------------------------------------------------------------------- */

/* The oldest copy that has blocks left. */
static struct cuda_copy *oldest(struct device *d)
{
    struct cuda_copy *found = NULL;

    for (uint32_t i = 0; i < d->config.copies_max; i++) {
        struct cuda_copy *c = &d->copies.all[i];

        if (c->ticket != 0 && c->n_taken < c->n_blocks &&
            (found == NULL || c->ticket < found->ticket))
            found = c;
    }
    return found;
}

/* Waits for one unless the thread has another to end. */
static struct piece take_piece(struct device *d, bool waits)
{
    struct cuda_copies *k = &d->copies;
    struct piece p = {.copy = NULL};

    pthread_mutex_lock(&k->lock);
    while ((p.copy = oldest(d)) == NULL && waits && !k->stopping)
        pthread_cond_wait(&k->work, &k->lock);
    if (p.copy != NULL) {
        uint32_t left = p.copy->n_blocks - p.copy->n_taken;
        p.first = p.copy->n_taken;
        p.n = left < k->piece_blocks ? left : k->piece_blocks;
        p.copy->n_taken += p.n;
    }
    pthread_mutex_unlock(&k->lock);
    return p;
}

static void give_piece(struct device *d, const struct piece *p, int rc)
{
    struct cuda_copies *k = &d->copies;
    bool ended = false;

    pthread_mutex_lock(&k->lock);
    if (rc != 0)
        k->error = rc; /* the copy never ends, and no sweep is submitted any more */
    p->copy->n_done += rc == 0 ? p->n : 0;
    if (p->copy->n_done == p->copy->n_blocks) {
        p->copy->ticket = 0;
        k->n_under_way--;
        ended = true;
    }
    if (ended || rc != 0)
        pthread_cond_broadcast(&k->idle);
    pthread_mutex_unlock(&k->lock);
    if (ended || rc != 0)
        d->config.notify(d->config.notify_arg);
}

/* ---- Moving them --------------------------------------------------------------------------------- */

static uint8_t *ring_block(const struct cuda_copy_thread *t, const struct piece *p, uint32_t i)
{
    const struct device *d = t->device;

    return t->ring + ((size_t)p->half * d->copies.piece_blocks + i) * d->geometry->block_bytes;
}

static int piece_begin(struct cuda_copy_thread *t, const struct piece *p)
{
    struct device *d = t->device;
    size_t bytes = d->geometry->block_bytes;

    for (uint32_t i = 0; i < p->n; i++) {
        uint8_t *here = ring_block(t, p, i);
        uint8_t *there = d->pool + p->copy->blocks[p->first + i] * bytes;

        if (p->copy->is_out) {
            CUDA_TRY(cudaMemcpyAsync(here, there, bytes, cudaMemcpyDeviceToHost, t->stream));
            continue;
        }
        cuda_place_in(d->geometry, d->kv, here, p->copy->staging[p->first + i]);
        CUDA_TRY(cudaMemcpyAsync(there, here, bytes, cudaMemcpyHostToDevice, t->stream));
    }
    CUDA_TRY(cudaEventRecord(t->event[p->half], t->stream));
    return 0;
}

static int piece_end(struct cuda_copy_thread *t, const struct piece *p)
{
    struct device *d = t->device;

    CUDA_TRY(cudaEventSynchronize(t->event[p->half]));
    for (uint32_t i = 0; i < p->n && p->copy->is_out; i++)
        cuda_place_out(d->geometry, d->kv, p->copy->staging[p->first + i], ring_block(t, p, i));
    return 0;
}

/* One piece is under way while the one before it is put in place. */
static void *copy_main(void *arg)
{
    struct cuda_copy_thread *t = arg;
    struct device *d = t->device;
    struct piece before = {.copy = NULL}, p;
    int rc = cudaSetDevice(0) == cudaSuccess ? 0 : -EIO;

    for (;;) {
        p = take_piece(d, before.copy == NULL);
        p.half = before.half ^ 1;
        if (p.copy != NULL && rc == 0)
            rc = piece_begin(t, &p);
        if (before.copy != NULL)
            give_piece(d, &before, rc == 0 ? piece_end(t, &before) : rc);
        else if (p.copy == NULL)
            return NULL;
        before = p;
    }
}

/* ---- Life ---------------------------------------------------------------------------------------- */

static int start_thread(struct device *d, struct cuda_copy_thread *t)
{
    cudaStream_t stream;

    t->device = d;
    CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    t->stream = stream;
    for (int i = 0; i < 2; i++) {
        cudaEvent_t event;
        CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
        t->event[i] = event;
    }
    int rc =
        cuda_take_pinned(d, &t->ring, 2 * (size_t)d->copies.piece_blocks, d->geometry->block_bytes);
    if (rc == 0)
        rc = -pthread_create(&t->thread, NULL, copy_main, t);
    t->up = rc == 0;
    return rc;
}

static int take_copies(struct device *d)
{
    size_t blocks = (size_t)d->table_max * d->geometry->n_groups;

    d->copies.all = calloc(d->config.copies_max, sizeof *d->copies.all);
    if (d->copies.all == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < d->config.copies_max; i++) {
        struct cuda_copy *c = &d->copies.all[i];

        c->blocks = calloc(blocks, sizeof *c->blocks);
        c->staging = calloc(blocks, sizeof *c->staging);
        if (c->blocks == NULL || c->staging == NULL)
            return -ENOMEM;
    }
    return 0;
}

int cuda_copies_open(struct device *d)
{
    struct cuda_copies *k = &d->copies;
    uint32_t n = d->config.n_threads;
    int rc = take_copies(d);

    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->work, NULL);
    pthread_cond_init(&k->idle, NULL);
    k->piece_blocks = COPY_PIECE_BYTES / d->geometry->block_bytes;
    k->piece_blocks += k->piece_blocks == 0;
    n = n < CUDA_COPY_THREADS_MAX ? n : (uint32_t)CUDA_COPY_THREADS_MAX;
    for (uint32_t i = 0; i < (n > 0 ? n : 1) && rc == 0; i++)
        rc = start_thread(d, &k->threads[k->n_threads++]);
    return rc;
}

static void end_thread(struct cuda_copy_thread *t)
{
    if (t->up)
        pthread_join(t->thread, NULL);
    for (int i = 0; i < 2; i++) {
        if (t->event[i] != NULL)
            CUDA_NOTE(cudaEventDestroy(t->event[i]));
    }
    if (t->stream != NULL)
        CUDA_NOTE(cudaStreamDestroy(t->stream));
}

void cuda_copies_close(struct device *d)
{
    struct cuda_copies *k = &d->copies;

    if (k->all == NULL)
        return;
    pthread_mutex_lock(&k->lock);
    k->stopping = true;
    pthread_cond_broadcast(&k->work);
    pthread_mutex_unlock(&k->lock);
    for (uint32_t i = 0; i < k->n_threads; i++)
        end_thread(&k->threads[i]);
    for (uint32_t i = 0; i < d->config.copies_max; i++) {
        free(k->all[i].blocks);
        free(k->all[i].staging);
    }
    free(k->all);
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->work);
    pthread_cond_destroy(&k->idle);
}

/* ---- Asking -------------------------------------------------------------------------------------- */

/* A free place; NULL: copies_max are under way. */
static struct cuda_copy *free_place(struct device *d)
{
    for (uint32_t i = 0; i < d->config.copies_max; i++) {
        if (d->copies.all[i].ticket == 0)
            return &d->copies.all[i];
    }
    return NULL;
}

int cuda_copy_submit(struct device *d, const struct device_copy *copy, uint64_t *ticket)
{
    struct cuda_copies *k = &d->copies;

    if (d->geometry->n_groups > 1)
        return -ENOTSUP; /* nothing says which group's layers a block holds */
    if (copy->n_blocks > d->table_max)
        return -EINVAL;
    pthread_mutex_lock(&k->lock);
    struct cuda_copy *c = free_place(d);
    if (c != NULL) {
        c->ticket = *ticket = ++k->n_tickets;
        c->is_out = copy->direction == DEVICE_COPY_OUT;
        c->n_blocks = copy->n_blocks;
        c->n_taken = c->n_done = 0;
        memcpy(c->blocks, copy->blocks, copy->n_blocks * sizeof *c->blocks);
        memcpy(c->staging, copy->staging, copy->n_blocks * sizeof *c->staging);
        k->n_under_way++;
        if (copy->n_blocks == 0) {
            c->ticket = 0; /* nothing to do is done */
            k->n_under_way--;
        }
        pthread_cond_broadcast(&k->work);
    }
    pthread_mutex_unlock(&k->lock);
    return c != NULL ? 0 : -EAGAIN;
}

int cuda_copy_done(struct device *d, uint64_t ticket)
{
    struct cuda_copies *k = &d->copies;
    int done = 1;

    pthread_mutex_lock(&k->lock);
    for (uint32_t i = 0; i < d->config.copies_max; i++)
        done &= k->all[i].ticket != ticket;
    pthread_mutex_unlock(&k->lock);
    return done;
}

void cuda_copies_sync(struct device *d)
{
    struct cuda_copies *k = &d->copies;

    pthread_mutex_lock(&k->lock);
    while (k->n_under_way > 0 && k->error == 0)
        pthread_cond_wait(&k->idle, &k->lock);
    pthread_mutex_unlock(&k->lock);
}
