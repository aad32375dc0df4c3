#include "gpu-engine/admission.h"

#include <stdio.h>
#include <string.h>

enum { RETRY_AFTER_MS = 500 }; /* a chat's tail; the latency model will know better */

void admission_init(struct admission *a, const struct admission_limits *limits)
{
    memset(a, 0, sizeof *a);
    a->limits = *limits;
    pthread_mutex_init(&a->lock, NULL);
}

void admission_fini(struct admission *a)
{
    pthread_mutex_destroy(&a->lock);
}

static uint64_t blocks_for(const struct admission *a, uint64_t n_tokens)
{
    uint64_t bt = a->limits.block_tokens;

    return (n_tokens + bt - 1) / bt * a->limits.n_groups;
}

static void refuse(struct admission_answer *answer, enum error_code code, uint32_t retry_after_ms,
                   const char *what, uint64_t needed, uint64_t limit)
{
    answer->accepted = false;
    answer->code = code;
    answer->retry_after_ms = retry_after_ms;
    snprintf(answer->message, sizeof answer->message, "%s: %llu needed, %llu there", what,
             (unsigned long long)needed, (unsigned long long)limit);
}

static void decide_ls(struct admission *a, uint64_t whole, struct admission_answer *answer)
{
    pthread_mutex_lock(&a->lock);
    if (a->ls_blocks + whole > a->limits.device_blocks)
        refuse(answer, ERROR_OVERLOADED, RETRY_AFTER_MS,
               "KV blocks for this request beside the admitted ones", a->ls_blocks + whole,
               a->limits.device_blocks);
    else
        a->ls_blocks += whole;
    pthread_mutex_unlock(&a->lock);
}

/* The most blocks that a best-effort request may come to need. */
static uint64_t be_limit(const struct admission_limits *l)
{
    if (l->must_offload)
        return l->arena_blocks;
    return l->arena_blocks > l->device_blocks ? l->arena_blocks : l->device_blocks;
}

void admission_decide(struct admission *a, bool latency_sensitive, uint32_t n_prompt,
                      uint32_t max_output, struct admission_answer *answer)
{
    uint64_t n_tokens = (uint64_t)n_prompt + max_output;
    uint64_t prompt = blocks_for(a, (uint64_t)n_prompt + 1), whole = blocks_for(a, n_tokens);

    *answer = (struct admission_answer){.accepted = true};
    if (n_prompt == 0)
        refuse(answer, ERROR_BAD_REQUEST, 0, "prompt tokens", 1, 0);
    else if (n_tokens > a->limits.context_max)
        refuse(answer, ERROR_TOO_LONG, 0, "tokens of prompt and output", n_tokens,
               a->limits.context_max);
    else if (prompt > a->limits.device_blocks ||
             (latency_sensitive && whole > a->limits.device_blocks))
        refuse(answer, ERROR_NO_CAPACITY, 0, "device KV blocks", latency_sensitive ? whole : prompt,
               a->limits.device_blocks);
    else if (!latency_sensitive && whole > be_limit(&a->limits))
        refuse(answer, ERROR_NO_CAPACITY, 0, "KV blocks", whole, be_limit(&a->limits));
    else if (latency_sensitive)
        decide_ls(a, whole, answer);
}

void admission_release(struct admission *a, uint32_t n_prompt, uint32_t max_output)
{
    pthread_mutex_lock(&a->lock);
    a->ls_blocks -= blocks_for(a, (uint64_t)n_prompt + max_output);
    pthread_mutex_unlock(&a->lock);
}
