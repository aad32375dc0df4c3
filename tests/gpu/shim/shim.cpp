/* shim.cpp - see shim.h: the threads of a block take turns, and meet.
 *
 * A meeting: each thread leaves what it brings, marks itself waiting, and switches to the host; the
 * last to come marks all runnable.  Lanes of a warp have two exchanges in turn: a lane can be one
 * meeting ahead of another that has not yet read the last one's, and never two. */
#include "tests/gpu/shim/shim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/half.h"
#include "tests/gpu/shim/fiber.h"
#include "tests/gpu/shim/shim_thread.h"

struct shim_thread *shim_current;

namespace
{

enum { STACK_BYTES = 256 << 10, LIMIT_MS = 60000, SHARED_ALIGN = 128 };

enum thread_state { RUNNABLE, AT_BARRIER, AT_WARP, ENDED };

struct thread {
    struct fiber fiber;
    struct shim_thread view;
    enum thread_state state;
};

struct warp {
    enum shim_op op; /* of the meeting that is gathering */
    unsigned n_there, turn;
    struct shim_exchange exchange[2];
};

struct block {
    unsigned n_threads, n_at_barrier, n_ended;
    struct shim_body body;
    void *shared;
    unsigned barrier_turn;
    /* Addresses only, by which the thread sanitizer knows an order: the block's start and end, and
     * meetings, two in turn since a thread may be one ahead. */
    char order_token, end_token;
    char barrier_token[2];
    char warp_token[SHIM_THREADS_MAX / SHIM_WARP][2];
};

struct shim_schedule schedule;
struct thread *threads[SHIM_THREADS_MAX];
struct warp warps[SHIM_THREADS_MAX / SHIM_WARP];
struct block block;
struct fiber host;
char error[256];
bool failed;
uint64_t random_state, deadline_ns;

uint64_t now_ns()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

void set_error(const char *format, va_list args)
{
    if (!failed)
        vsnprintf(error, sizeof error, format, args);
    failed = true;
}

__attribute__((format(printf, 1, 2))) void note_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_error(format, args);
    va_end(args);
}

struct thread *current()
{
    return (struct thread *)((char *)shim_current - offsetof(struct thread, view));
}

struct warp *current_warp()
{
    return &warps[shim_current->thread_idx.x / SHIM_WARP];
}

/* ---- A thread's life ----------------------------------------------------------------------------- */

void to_host()
{
    fiber_release(&block.end_token);
    fiber_switch(&current()->fiber, &host);
}

void thread_end()
{
    struct thread *t = current();
    if (t->view.n_copies > 0)
        note_error("thread %u ended, and never waited for %d copies", t->view.thread_idx.x,
                   t->view.n_copies);
    fiber_release(&block.order_token);
    t->state = ENDED;
    block.n_ended++;
    for (;;)
        to_host();
}

void thread_main()
{
    fiber_entered(&current()->fiber, &host);
    fiber_acquire(&block.order_token);
    block.body.call(block.body.arg);
    thread_end();
}

void thread_begin(unsigned i, dim3 block_dim, dim3 grid_dim, uint3 block_idx)
{
    if (threads[i] == NULL) {
        threads[i] = (struct thread *)calloc(1, sizeof *threads[i]);
        if (threads[i] == NULL)
            abort();
        fiber_create(&threads[i]->fiber, STACK_BYTES);
    }
    struct thread *t = threads[i];
    t->view.thread_idx = {i, 0, 0};
    t->view.block_idx = block_idx;
    t->view.block_dim = block_dim;
    t->view.grid_dim = grid_dim;
    t->view.lane = (int)(i % SHIM_WARP);
    t->view.group = 0;
    t->view.n_copies = 0;
    t->state = RUNNABLE;
    fiber_start(&t->fiber, thread_main);
}

/* ---- Taking turns ---------------------------------------------------------------------------------- */

void turn_order(unsigned order[], unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        order[i] = schedule.order == SHIM_REVERSE ? n - 1 - i : i;
    for (unsigned i = n; schedule.order == SHIM_SHUFFLED && i > 1; i--) {
        const unsigned j = random_below(i), swapped = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swapped;
    }
}

void describe_deadlock()
{
    for (unsigned i = 0; i < block.n_threads; i++) {
        if (threads[i]->state == AT_BARRIER || threads[i]->state == AT_WARP) {
            note_error(
                "deadlock in block %u,%u,%u: %u of %u threads at a barrier, %u ended; thread "
                "%u waits at %s",
                threads[i]->view.block_idx.x, threads[i]->view.block_idx.y,
                threads[i]->view.block_idx.z, block.n_at_barrier, block.n_threads, block.n_ended, i,
                threads[i]->state == AT_BARRIER ? "the barrier" : "its warp");
            return;
        }
    }
}

/* Runs each thread that can until it waits; whether there was one. */
bool take_turns()
{
    unsigned order[SHIM_THREADS_MAX];
    bool any = false;
    turn_order(order, block.n_threads);
    for (unsigned i = 0; i < block.n_threads && !failed; i++) {
        struct thread *t = threads[order[i]];
        if (t->state != RUNNABLE)
            continue;
        any = true;
        shim_current = &t->view;
        fiber_switch(&host, &t->fiber);
    }
    if (now_ns() > deadline_ns)
        note_error("a launch has not ended within its limit");
    return any;
}

void block_run(dim3 block_dim, dim3 grid_dim, uint3 block_idx, size_t shared_bytes)
{
    block.n_at_barrier = block.n_ended = 0;
    memset(block.shared, 0xff, shared_bytes);
    memset(warps, 0, sizeof warps);
    fiber_release(&block.order_token);
    for (unsigned i = 0; i < block.n_threads; i++)
        thread_begin(i, block_dim, grid_dim, block_idx);
    while (!failed && block.n_ended < block.n_threads) {
        if (!take_turns())
            describe_deadlock();
    }
    fiber_acquire(&block.order_token);
}

/* Ascending or descending, so that a block that relies on an earlier one is found. */
void grid_run(dim3 grid, dim3 block_dim, size_t shared_bytes)
{
    const uint64_t n = (uint64_t)grid.x * grid.y * grid.z;
    for (uint64_t i = 0; i < n && !failed; i++) {
        const uint64_t b = schedule.order == SHIM_REVERSE ? n - 1 - i : i;
        const uint3 at = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                          (unsigned)(b / grid.x / grid.y)};
        block_run(block_dim, grid, at, shared_bytes);
    }
}

/* ---- What a warp makes of what its lanes brought ------------------------------------------------------ */

float element(uint32_t word, int high, bool is_bf16)
{
    const uint16_t bits = (uint16_t)(high ? word >> 16 : word);
    return is_bf16 ? half_float_from_bits((uint32_t)bits << 16) : half_to_float(bits);
}

/* d[16][8] = a[16][16] b[16][8] + c, registers as drawn in the PTX manual. */
void multiply(struct shim_exchange *x)
{
    float a[16][16], b[16][8], d[16][8];
    const bool is_bf16 = x->lane[0][10] != 0;
    for (int l = 0; l < SHIM_WARP; l++) {
        const int row = l / 4, pair = 2 * (l % 4);
        for (int e = 0; e < 8; e++)
            a[row + 8 * (e / 2 % 2)][pair + e % 2 + 8 * (e / 4)] =
                element(x->lane[l][e / 2], e % 2, is_bf16);
        for (int e = 0; e < 4; e++)
            b[pair + e % 2 + 8 * (e / 2)][row] = element(x->lane[l][4 + e / 2], e % 2, is_bf16);
        for (int e = 0; e < 4; e++)
            memcpy(&d[row + 8 * (e / 2)][pair + e % 2], &x->lane[l][6 + e], 4);
    }
    for (int k = 0; k < 16; k++)
        for (int m = 0; m < 16; m++)
            for (int n = 0; n < 8; n++)
                d[m][n] += a[m][k] * b[k][n];
    for (int l = 0; l < SHIM_WARP; l++)
        for (int e = 0; e < 4; e++)
            memcpy(&x->lane[l][e], &d[l / 4 + 8 * (e / 2)][2 * (l % 4) + e % 2], 4);
}

/* Not memcpy, which the thread sanitizer watches: lanes exchange without an order of their own. */
void words_copy(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4)
        ((volatile uint32_t *)to)[i / 4] = ((const volatile uint32_t *)from)[i / 4];
}

void wake_warp(struct warp *w)
{
    const unsigned first = shim_current->thread_idx.x / SHIM_WARP * SHIM_WARP;
    for (unsigned i = first; i < first + SHIM_WARP; i++)
        threads[i]->state = RUNNABLE;
    w->n_there = 0;
    w->op = SHIM_NOTHING;
    w->turn ^= 1;
}

} // namespace

/* ---- Meeting: called by kernels ------------------------------------------------------------------------- */

void shim_yield(void)
{
    to_host();
}

void shim_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_error(format, args);
    va_end(args);
    for (;;)
        to_host();
}

void shim_block_barrier(void)
{
    char *token = &block.barrier_token[block.barrier_turn];
    fiber_release(token);
    current()->state = AT_BARRIER;
    if (++block.n_at_barrier == block.n_threads) {
        block.n_at_barrier = 0;
        block.barrier_turn ^= 1;
        for (unsigned i = 0; i < block.n_threads; i++)
            threads[i]->state = RUNNABLE;
    }
    to_host();
    fiber_acquire(token);
}

const struct shim_exchange *shim_warp(enum shim_op op, unsigned mask, const void *data,
                                      size_t bytes)
{
    struct warp *w = current_warp();
    struct shim_exchange *x = &w->exchange[w->turn];
    char *token = &block.warp_token[shim_current->thread_idx.x / SHIM_WARP][w->turn];
    if (mask != ~0u)
        shim_fail("a warp-wide instruction with a partial mask (%08x)", mask);
    if (w->op != SHIM_NOTHING && w->op != op)
        shim_fail("lanes of a warp met at different instructions (thread %u)",
                  shim_current->thread_idx.x);
    if (op == SHIM_SYNC)
        fiber_release(token);
    words_copy(x->lane[shim_current->lane], data, bytes);
    w->op = op;
    current()->state = AT_WARP;
    if (++w->n_there == SHIM_WARP) {
        if (op == SHIM_MMA)
            multiply(x);
        wake_warp(w);
    }
    to_host();
    if (op == SHIM_SYNC)
        fiber_acquire(token);
    return x;
}

void shim_lane(const struct shim_exchange *x, int lane, void *out, size_t bytes)
{
    words_copy(out, x->lane[lane & (SHIM_WARP - 1)], bytes);
}

void *shim_shared_memory(void)
{
    return block.shared;
}

int shim_lands_early(void)
{
    return schedule.landing == SHIM_EARLY;
}

/* ---- Launching ---------------------------------------------------------------------------------------------- */

int shim_launch(dim3 grid, dim3 block_dim, size_t shared_bytes, struct shim_body body)
{
    const unsigned n_threads = block_dim.x * block_dim.y * block_dim.z;
    const uint64_t limit_ms = schedule.limit_ms ? schedule.limit_ms : (uint64_t)LIMIT_MS;
    failed = false;
    error[0] = '\0';
    if (n_threads % SHIM_WARP != 0 || n_threads == 0 || n_threads > SHIM_THREADS_MAX ||
        n_threads != block_dim.x || grid.y > 65535 || grid.z > 65535) {
        note_error("a launch of %u x %u x %u blocks of %u threads", grid.x, grid.y, grid.z,
                   n_threads);
        return -1;
    }
    /* Its end is the end of the allocation: a multiple of the alignment would hide what is beyond. */
    if (posix_memalign(&block.shared, SHARED_ALIGN, shared_bytes ? shared_bytes : 1) != 0)
        abort();
    block.n_threads = n_threads;
    block.body = body;
    random_state = schedule.seed + 1;
    deadline_ns = now_ns() + limit_ms * 1000000u;
    fiber_adopt(&host);
    grid_run(grid, block_dim, shared_bytes);
    fiber_acquire(&block.end_token);
    free(block.shared);
    return failed ? -1 : 0;
}

void shim_set_schedule(struct shim_schedule s)
{
    schedule = s;
}

const char *shim_error(void)
{
    return error;
}

void shim_fini(void)
{
    for (struct thread *&t : threads) {
        if (t == NULL)
            continue;
        fiber_destroy(&t->fiber);
        free(t);
        t = NULL;
    }
}
