#include "gpu-engine/ending.h"

#include "common/base/invariant.h"
#include "gpu-engine/kv.h"
#include "gpu-engine/ledger.h"
#include "gpu-engine/placement.h"
#include "gpu-engine/reservation.h"

static void end(struct engine *e, struct sequence *s, enum finish_reason reason)
{
    if (s->latency_sensitive)
        admission_take_outcome(e, s, reason);
    if (s->state == SEQUENCE_RESIDENT)
        e->workers[s->worker].n_resident--;
    s->reason = reason;
    sequence_set_state(&e->sequences, s, SEQUENCE_ENDED);
    if (s->in_slot)
        e->leaves[e->n_leaves++] = s->slot;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

void ending_finish(struct engine *e, struct sequence *s, enum finish_reason reason)
{
    uint32_t n_output = sequence_n_output(s);
    struct message m = {.type = MESSAGE_ENGINE_DONE};

    m.engine_done = (struct message_engine_done){
        .id = s->id,
        .reason = reason,
        .prompt_tokens = s->n_prompt,
        .output_tokens = n_output,
        .has_ttft_ms = s->first_token_ns > 0,
        .ttft_ms = s->first_token_ns > s->arrival_ns ? ms(s->first_token_ns - s->arrival_ns) : 0,
        .has_tpot_ms = n_output >= 2,
        .tpot_ms = n_output >= 2 ? ms(s->last_token_ns - s->first_token_ns) / (n_output - 1) : 0,
        .device_tokens = s->n_device_tokens,
        .worker_tokens = s->n_worker_tokens,
        .ridealong_jobs = s->n_ridden,
        .parked_jobs = s->n_parked,
    };
    engine_send(e, &m);
    engine_count(e, reason == FINISH_CANCELLED ? ENGINE_STAT_CANCELLED : ENGINE_STAT_FINISHED, 1);
    end(e, s, reason);
}

void ending_fail(struct engine *e, struct sequence *s, enum error_code code, const char *message,
                 bool retryable)
{
    struct message m = {.type = MESSAGE_ENGINE_ERROR};

    m.engine_error = (struct message_engine_error){.has_id = true,
                                                   .id = s->id,
                                                   .code = code,
                                                   .message = str_of(message),
                                                   .retryable = retryable};
    engine_send(e, &m);
    engine_count(e, ENGINE_STAT_FAILED, 1);
    end(e, s, FINISH_ERROR);
}

void ending_hand_over(struct engine *e, struct sequence *s)
{
    invariant(s->state == SEQUENCE_WAITING && engine_is_best_effort(s));
    e->elsewhere.take(e->elsewhere.arg, &s->id);
    end(e, s, FINISH_LENGTH);
}

void ending_obey(struct engine *e)
{
    for (uint32_t i = 0; i < e->sequences.n; i++) {
        struct sequence *s = &e->sequences.all[i];
        int ask = atomic_load(&s->ask);

        if (ask == SEQUENCE_GO_ON || s->state < SEQUENCE_WAITING || s->state == SEQUENCE_ENDED)
            continue;
        ending_finish(e, s, ask == SEQUENCE_ASK_STOP ? FINISH_STOP : FINISH_CANCELLED);
    }
}

/* The slot goes back once no worker can touch it or what its job names. */
static bool drain_slot(struct engine *e, struct sequence *s)
{
    if (s->slot == SEQUENCE_NONE)
        return true;
    if (s->in_slot && !e->exchange->ops->slot_release(e->exchange, s->slot))
        return false;
    reservation_give_slot(e, s);
    return true;
}

static bool drain(struct engine *e, struct sequence *s)
{
    if (s->copy != SEQUENCE_COPY_NONE && !placement_copy_ended(e, s))
        return false;
    kv_release(e, s);
    if (!drain_slot(e, s))
        return false;
    reservation_release_blocks(e, s);
    ledger_close(e, s);
    return true;
}

void ending_drain(struct engine *e)
{
    if (e->sequences.n_in_state[SEQUENCE_ENDED] == 0)
        return;
    for (uint32_t i = 0; i < e->sequences.n; i++) {
        struct sequence *s = &e->sequences.all[i];
        if (s->state == SEQUENCE_ENDED && drain(e, s))
            sequence_give_back(&e->sequences, s);
    }
}
