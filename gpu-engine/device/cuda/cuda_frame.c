#include "gpu-engine/device/cuda/cuda_frame.h"

enum { ALIGN = 16 };

struct cursor {
    uint8_t *base;
    size_t at;
};

static void *take(struct cursor *c, size_t n, size_t size)
{
    void *p = c->base + c->at;

    c->at += (n * size + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

static void place_batch(struct cuda_batch_frame *b, struct cursor *c,
                        const struct cuda_batch_shape *shape)
{
    b->token = take(c, shape->rows, sizeof *b->token);
    b->row_slot = take(c, shape->rows, sizeof *b->row_slot);
    b->row = take(c, shape->rows, sizeof *b->row);
    b->ctx_len = take(c, shape->decodes, sizeof *b->ctx_len);
    b->chunk = take(c, shape->chunks, sizeof *b->chunk);
    b->out_row = take(c, shape->outputs, sizeof *b->out_row);
    b->out_how = take(c, shape->outputs, sizeof *b->out_how);
}

void cuda_frame_place(struct cuda_frame *f, void *base, const struct cuda_frame_sizes *sizes,
                      const struct cuda_shape *shape)
{
    struct cursor c = {.base = base};

    f->head = take(&c, 1, sizeof *f->head);
    f->ask = take(&c, sizes->n_layers, sizeof *f->ask);
    f->arrival_ns = take(&c, sizes->n_layers + 1, sizeof *f->arrival_ns);
    f->enter = take(&c, shape->enters, sizeof *f->enter);
    f->leave = take(&c, shape->leaves, sizeof *f->leave);
    for (int b = 0; b < SWEEP_BATCHES; b++)
        place_batch(&f->batch[b], &c, &shape->batch[b]);
    f->fixed_bytes = c.at;
    for (int b = 0; b < SWEEP_BATCHES; b++) {
        const struct cuda_batch_shape *s = &shape->batch[b];
        f->batch[b].tables =
            take(&c, (size_t)(s->decodes + s->chunks) * sizes->seq_tables, sizeof(uint32_t));
    }
}

size_t cuda_frame_bytes(const struct cuda_frame_sizes *sizes, const struct cuda_shape *shape)
{
    struct cuda_frame f;
    size_t n_seqs = 0;

    cuda_frame_place(&f, (void *)(uintptr_t)ALIGN, sizes, shape); /* for its size alone */
    for (int b = 0; b < SWEEP_BATCHES; b++)
        n_seqs += shape->batch[b].decodes + shape->batch[b].chunks;
    return f.fixed_bytes + (n_seqs * sizes->seq_tables + SWEEP_BATCHES * 4) * sizeof(uint32_t);
}
