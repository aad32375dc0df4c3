#include "gpu-engine/sequence.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"

static const char *const state_names[SEQUENCE_STATES] = {
    "free", "arrived", "waiting", "computing", "copy_out", "resident", "copy_in", "ended"};

/* Which states may follow each: bit masks, as drawn in sequence.h. */
#define BIT(state) (1U << (state))
static const unsigned may_follow[SEQUENCE_STATES] = {
    [SEQUENCE_FREE] = BIT(SEQUENCE_ARRIVED),
    [SEQUENCE_ARRIVED] = BIT(SEQUENCE_WAITING),
    [SEQUENCE_WAITING] = BIT(SEQUENCE_COMPUTING) | BIT(SEQUENCE_ENDED),
    [SEQUENCE_COMPUTING] = BIT(SEQUENCE_COPY_OUT) | BIT(SEQUENCE_WAITING) | BIT(SEQUENCE_ENDED),
    [SEQUENCE_COPY_OUT] = BIT(SEQUENCE_RESIDENT) | BIT(SEQUENCE_ENDED),
    [SEQUENCE_RESIDENT] = BIT(SEQUENCE_COPY_IN) | BIT(SEQUENCE_ENDED),
    [SEQUENCE_COPY_IN] = BIT(SEQUENCE_COMPUTING) | BIT(SEQUENCE_ENDED),
    [SEQUENCE_ENDED] = BIT(SEQUENCE_FREE),
};

const char *sequence_state_name(enum sequence_state state)
{
    return state_names[state];
}

static int alloc_storage(struct sequence_table *t)
{
    size_t tokens = (size_t)t->context_max + 1;
    size_t blocks = (size_t)t->n_groups * t->table_max;

    t->all = calloc(t->n, sizeof *t->all);
    t->token_storage = calloc(t->n * tokens, sizeof *t->token_storage);
    t->block_storage = calloc(t->n * blocks * 2, sizeof *t->block_storage);
    if (t->all == NULL || t->token_storage == NULL || t->block_storage == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->n; i++) {
        t->all[i].tokens = t->token_storage + i * tokens;
        t->all[i].blocks = t->block_storage + 2 * i * blocks;
        t->all[i].arena_blocks = t->all[i].blocks + blocks;
        t->all[i].next = i + 1 < t->n ? i + 1 : SEQUENCE_NONE;
    }
    return 0;
}

int sequence_table_init(struct sequence_table *t, uint32_t n, uint32_t n_groups, uint32_t table_max,
                        uint32_t context_max)
{
    memset(t, 0, sizeof *t);
    t->n = t->n_free = n;
    t->n_groups = n_groups;
    t->table_max = table_max;
    t->context_max = context_max;
    t->arrivals_head = t->arrivals_tail = SEQUENCE_NONE;
    pthread_mutex_init(&t->lock, NULL);
    return alloc_storage(t);
}

void sequence_table_fini(struct sequence_table *t)
{
    free(t->all);
    free(t->token_storage);
    free(t->block_storage);
    pthread_mutex_destroy(&t->lock);
    memset(t, 0, sizeof *t);
}

/* Back to a fresh sequence; its storage stays.  State stays FREE: the engine thread looks at it. */
static void sequence_clear(struct sequence *s)
{
    uint32_t *tokens = s->tokens, *blocks = s->blocks, *arena_blocks = s->arena_blocks;
    size_t first = offsetof(struct sequence, id);

    atomic_store(&s->ask, SEQUENCE_GO_ON);
    atomic_store(&s->n_told, 0);
    memset((char *)s + first, 0, sizeof *s - first);
    s->tokens = tokens;
    s->blocks = blocks;
    s->arena_blocks = arena_blocks;
    s->slot = s->preferred_worker = s->next = SEQUENCE_NONE;
}

struct sequence *sequence_take(struct sequence_table *t)
{
    struct sequence *s = NULL;

    pthread_mutex_lock(&t->lock);
    if (t->free_head != SEQUENCE_NONE) {
        s = &t->all[t->free_head];
        t->free_head = s->next;
        t->n_free--;
        sequence_clear(s);
    }
    pthread_mutex_unlock(&t->lock);
    return s;
}

void sequence_arrive(struct sequence_table *t, struct sequence *s)
{
    uint32_t idx = sequence_idx(t, s);

    pthread_mutex_lock(&t->lock);
    s->state = SEQUENCE_ARRIVED;
    s->order = ++t->n_arrived;
    s->next = SEQUENCE_NONE;
    if (t->arrivals_tail == SEQUENCE_NONE)
        t->arrivals_head = idx;
    else
        t->all[t->arrivals_tail].next = idx;
    t->arrivals_tail = idx;
    pthread_mutex_unlock(&t->lock);
}

static void push_free(struct sequence_table *t, struct sequence *s)
{
    s->state = SEQUENCE_FREE;
    s->next = t->free_head;
    t->free_head = sequence_idx(t, s);
    t->n_free++;
}

void sequence_forget(struct sequence_table *t, struct sequence *s)
{
    pthread_mutex_lock(&t->lock);
    push_free(t, s);
    pthread_mutex_unlock(&t->lock);
}

static void raise_ask(struct sequence *s, enum sequence_ask ask)
{
    int now = atomic_load(&s->ask);

    while (now < (int)ask && !atomic_compare_exchange_weak(&s->ask, &now, (int)ask))
        continue;
}

int sequence_ask(struct sequence_table *t, const struct request_id *id, enum sequence_ask ask)
{
    int rc = -ENOENT;

    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->n && rc != 0; i++) {
        enum sequence_state state = t->all[i].state;
        /* An ended one may drain for long; its id may be in use again. */
        if (state == SEQUENCE_FREE || state == SEQUENCE_ENDED ||
            !request_id_equal(&t->all[i].id, id))
            continue;
        raise_ask(&t->all[i], ask);
        rc = 0;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

uint32_t sequence_list(struct sequence_table *t, struct held_request *out, uint32_t n_max)
{
    uint32_t n = 0;

    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->n && n < n_max; i++) {
        struct sequence *s = &t->all[i];
        int state = atomic_load_explicit(&s->state, memory_order_relaxed);

        if (state == SEQUENCE_FREE || state == SEQUENCE_ENDED)
            continue;
        out[n++] = (struct held_request){
            .id = s->id, .n_tokens = atomic_load_explicit(&s->n_told, memory_order_relaxed)};
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

void sequence_ask_all(struct sequence_table *t, enum sequence_ask ask)
{
    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->all[i].state != SEQUENCE_FREE)
            raise_ask(&t->all[i], ask);
    }
    pthread_mutex_unlock(&t->lock);
}

struct sequence *sequence_next_arrival(struct sequence_table *t)
{
    struct sequence *s = NULL;

    pthread_mutex_lock(&t->lock);
    if (t->arrivals_head != SEQUENCE_NONE) {
        s = &t->all[t->arrivals_head];
        t->arrivals_head = s->next;
        if (t->arrivals_head == SEQUENCE_NONE)
            t->arrivals_tail = SEQUENCE_NONE;
        s->state = SEQUENCE_WAITING;
        t->n_in_state[SEQUENCE_WAITING]++;
    }
    pthread_mutex_unlock(&t->lock);
    return s;
}

void sequence_set_state(struct sequence_table *t, struct sequence *s, enum sequence_state to)
{
    invariant((may_follow[s->state] & BIT(to)) != 0);
    t->n_in_state[s->state]--;
    s->state = to;
    t->n_in_state[to]++;
}

void sequence_give_back(struct sequence_table *t, struct sequence *s)
{
    invariant(s->state == SEQUENCE_ENDED);
    t->n_in_state[SEQUENCE_ENDED]--;
    pthread_mutex_lock(&t->lock);
    push_free(t, s);
    pthread_mutex_unlock(&t->lock);
}
