/* admission.h - may this request come in?  Answered at once by the control thread.
 *
 * Until the latency model decides by objectives, the answer is about memory and queue length:
 *   latency-sensitive  KV for prompt and all output tokens of every admitted one fits on the
 *                      device, whatever best effort does (it yields)
 *   best effort        the prompt fits on the device, the whole request there or in one arena
 *
 * A refusal says whether it can ever succeed, and when to try again.
 *
 * Shared by the control thread (decide) and the engine thread (release) under a lock of its own. */
#ifndef OMNI_GPU_ENGINE_ADMISSION_H
#define OMNI_GPU_ENGINE_ADMISSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/messages.h"

struct admission_limits {
    uint32_t context_max;
    uint32_t block_tokens, n_groups;
    uint32_t device_blocks;
    uint32_t arena_blocks; /* of the largest arena; 0 = no offloading */
    bool must_offload;     /* best effort decodes in arenas only */
};

struct admission {
    struct admission_limits limits;
    pthread_mutex_t lock;
    uint64_t ls_blocks; /* promised to latency-sensitive requests */
};

struct admission_answer {
    bool accepted;
    enum error_code code; /* if not accepted, as the rest */
    char message[160];
    uint32_t retry_after_ms; /* 0 = it can never succeed */
};

void admission_init(struct admission *a, const struct admission_limits *limits);
void admission_fini(struct admission *a);

/* n_prompt tokens and at most max_output tokens.  Accepting a latency-sensitive request promises
 * its blocks until admission_release. */
void admission_decide(struct admission *a, bool latency_sensitive, uint32_t n_prompt,
                      uint32_t max_output, struct admission_answer *answer);

/* A latency-sensitive request has ended. */
void admission_release(struct admission *a, uint32_t n_prompt, uint32_t max_output);

#endif
