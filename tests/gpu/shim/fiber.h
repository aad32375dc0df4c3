/* fiber.h - a stack of its own for each CUDA thread, and the switch between them.
 *
 * One host thread runs everything; a fiber runs until it switches back.  The address sanitizer is
 * told of each switch, or it would take the stacks for one; the thread sanitizer is given a thread
 * per fiber and no order between them, so that it finds races of the CUDA threads (shim.h).
 *
 * x86-64 switches in a dozen instructions; elsewhere ucontext does, some ten times slower. */
#ifndef OMNI_TESTS_GPU_SHIM_FIBER_H
#define OMNI_TESTS_GPU_SHIM_FIBER_H
#include <stddef.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

struct fiber {
#ifdef __x86_64__
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    void *stack; /* NULL: the host thread's own */
    size_t stack_bytes;
    void *fake_stack;  /* address sanitizer */
    void *tsan_thread; /* thread sanitizer */
};

/* The fiber that stands for the host thread itself. */
void fiber_adopt(struct fiber *host);

/* Takes a stack; aborts without memory.  A fiber may be started again after its entry has ended or
 * was given up. */
void fiber_create(struct fiber *f, size_t stack_bytes);
void fiber_destroy(struct fiber *f);
void fiber_start(struct fiber *f, void (*entry)(void));

/* Goes on with `to` where it was; returns when somebody switches to `from`. */
void fiber_switch(struct fiber *from, struct fiber *to);

/* At the head of an entry: ends the switch that led there from `from`. */
void fiber_entered(struct fiber *self, struct fiber *from);

/* For the thread sanitizer: what was written before `release` is seen after `acquire`. */
void fiber_release(void *at);
void fiber_acquire(void *at);

#endif
