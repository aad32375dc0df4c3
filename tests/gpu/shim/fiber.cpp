/* fiber.cpp - see fiber.h. */
#include "tests/gpu/shim/fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Set by the build where the rest of the program has these sanitizers; this file itself has not. */
#ifdef SHIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SHIM_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#ifdef __x86_64__
extern "C" void shim_fiber_swap(void **save, void *load);
/* Saves what a call must preserve on the old stack, and takes it from the new one. */
asm(".text\n"
    ".globl shim_fiber_swap\n"
    ".type shim_fiber_swap, @function\n"
    "shim_fiber_swap:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq "
    "%r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size shim_fiber_swap, .-shim_fiber_swap\n");
#endif

void fiber_adopt(struct fiber *host)
{
    *host = {};
#ifdef SHIM_TSAN
    host->tsan_thread = __tsan_get_current_fiber();
#endif
}

void fiber_create(struct fiber *f, size_t stack_bytes)
{
    *f = {};
    f->stack_bytes = stack_bytes;
    f->stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->stack == MAP_FAILED) {
        perror("shim: a fiber's stack");
        abort();
    }
#ifdef SHIM_TSAN
    f->tsan_thread = __tsan_create_fiber(0);
#endif
}

void fiber_destroy(struct fiber *f)
{
    munmap(f->stack, f->stack_bytes);
#ifdef SHIM_TSAN
    __tsan_destroy_fiber(f->tsan_thread);
#endif
}

void fiber_start(struct fiber *f, void (*entry)(void))
{
#ifdef __x86_64__
    /* Six registers, the entry as return address, and a hole that aligns the stack as a call does. */
    void **top = (void **)((char *)f->stack + f->stack_bytes) - 8;
    for (int i = 0; i < 8; i++)
        top[i] = NULL;
    top[6] = (void *)entry;
    f->stack_pointer = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    f->context.uc_link = NULL;
    makecontext(&f->context, entry, 0);
#endif
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
#ifdef SHIM_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef SHIM_TSAN
    __tsan_switch_to_fiber(to->tsan_thread, 1 /* no order between the two */);
#endif
#ifdef __x86_64__
    shim_fiber_swap(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
#ifdef SHIM_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

void fiber_entered(struct fiber *self, struct fiber *from)
{
    (void)self;
#ifdef SHIM_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &bytes);
    from->stack = (void *)(uintptr_t)bottom; /* the host thread's, learnt here */
    from->stack_bytes = bytes;
#else
    (void)from;
#endif
}

void fiber_release(void *at)
{
#ifdef SHIM_TSAN
    __tsan_release(at);
#else
    (void)at;
#endif
}

void fiber_acquire(void *at)
{
#ifdef SHIM_TSAN
    __tsan_acquire(at);
#else
    (void)at;
#endif
}
