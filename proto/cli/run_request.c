#include "proto/cli/run_request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for n more elements of the given size; doubles. */
static int reserve(void **data, size_t used, size_t n, size_t *cap, size_t bytes_each)
{
    size_t wanted = *cap != 0 ? *cap : 256;

    if (used + n <= *cap)
        return 0;
    while (wanted < used + n)
        wanted *= 2;
    void *larger = realloc(*data, wanted * bytes_each);

    if (larger == NULL)
        return -ENOMEM;
    *data = larger;
    *cap = wanted;
    return 0;
}

/* Appends n words of four bytes, ids or floats, behind the first `used`. */
static int append_words(void **words, uint32_t used, uint32_t *cap, const void *from, uint32_t n)
{
    size_t wanted = *cap;
    int err = reserve(words, used, n, &wanted, sizeof(uint32_t));

    *cap = (uint32_t)wanted;
    if (err == 0 && n != 0)
        memcpy((unsigned char *)*words + (size_t)used * sizeof(uint32_t), from,
               n * sizeof(uint32_t));
    return err;
}

static int append_ids(struct run_request *r, const uint32_t *ids, uint32_t n)
{
    void *data = r->ids;
    int err = append_words(&data, r->n_ids, &r->ids_cap, ids, n);

    r->ids = data;
    r->n_ids += err == 0 ? n : 0;
    return err;
}

static int append_logprobs(struct run_request *r, const struct token_item *item)
{
    void *data = r->logprobs;
    int err =
        append_words(&data, r->n_logprobs, &r->logprobs_cap, item->logprobs.data, item->logprobs.n);

    r->logprobs = data;
    r->n_logprobs += err == 0 ? item->logprobs.n : 0;
    if (err != 0 || item->top_ids.n != item->top_logprobs.n)
        return err;
    data = r->top_ids;
    err = append_words(&data, r->n_top, &r->top_ids_cap, item->top_ids.data, item->top_ids.n);
    r->top_ids = data;
    if (err != 0)
        return err;
    data = r->top_logprobs;
    err = append_words(&data, r->n_top, &r->top_logprobs_cap, item->top_logprobs.data,
                       item->top_logprobs.n);
    r->top_logprobs = data;
    r->n_top += err == 0 ? item->top_ids.n : 0;
    return err;
}

static int append_text(struct run_request *r, struct str text)
{
    void *data = r->text;
    int err = reserve(&data, r->text_bytes, text.n, &r->text_cap, 1);

    if (err != 0)
        return err;
    r->text = data;
    if (text.n != 0)
        memcpy(r->text + r->text_bytes, text.data, text.n);
    r->text_bytes += text.n;
    return 0;
}

int run_request_append(struct run_request *r, const struct token_item *item)
{
    if (item->index < r->n_ids)
        return 0; /* seen before a resume: resumes ask for the next one, so whole items repeat */
    int err = append_ids(r, item->ids.data, item->ids.n);

    if (err == 0)
        err = append_logprobs(r, item);
    return err != 0 ? err : append_text(r, item->text);
}

void run_request_end(struct run_request *r, const struct message_done *done)
{
    r->state = RUN_ENDED;
    r->done = *done;
    if (done->reason == FINISH_ERROR && !r->failed)
        run_request_fail(r, ERROR_INTERNAL, false, str_of("ended with an error"));
}

void run_request_fail(struct run_request *r, enum error_code code, bool retryable, struct str why)
{
    r->state = RUN_ENDED;
    r->failed = true;
    r->code = code;
    r->retryable = retryable;
    r->done.reason = FINISH_ERROR;
    snprintf(r->reason, sizeof r->reason, "%.*s", (int)why.n, why.n != 0 ? why.data : "");
}

static json_t *ids_json(const struct run_request *r)
{
    json_t *array = json_array();

    for (uint32_t i = 0; array != NULL && i < r->n_ids; i++)
        json_array_append_new(array, json_integer(r->ids[i]));
    return array;
}

/* Per token: its log-probability, and those of the alternatives as [id, logprob]. */
static json_t *logprobs_json(const struct run_request *r)
{
    json_t *array = json_array();
    uint32_t n_each = r->n_logprobs != 0 ? r->n_top / r->n_logprobs : 0;

    for (uint32_t i = 0; array != NULL && i < r->n_logprobs; i++) {
        json_t *top = json_array();

        for (uint32_t t = i * n_each; t < (i + 1) * n_each; t++)
            json_array_append_new(
                top, json_pack("[I, f]", (json_int_t)r->top_ids[t], (double)r->top_logprobs[t]));
        json_array_append_new(
            array, json_pack("{s:f, s:o}", "logprob", (double)r->logprobs[i], "top", top));
    }
    return array;
}

static json_t *optional_number(bool has, double value)
{
    return has ? json_real(value) : json_null();
}

/* JSON integers have 63 bits here; a larger seed is given as text. */
static json_t *seed_json(uint64_t seed)
{
    return seed <= INT64_MAX ? json_integer((json_int_t)seed) : json_sprintf("%" PRIu64, seed);
}

static json_t *result_json(const struct run_request *r)
{
    const struct message_done *d = &r->done;
    char id[REQUEST_ID_TEXT_BYTES];

    request_id_format(&r->ask.id, id);
    return json_pack("{s:s, s:s%, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:s, s:o, s:s%}",
                     "id", id, "class", r->ask.class.data, (size_t)r->ask.class.n, "prompt_tokens",
                     (json_int_t)d->prompt_tokens, "output_tokens",
                     (json_int_t)(r->failed ? r->n_ids : d->output_tokens), "ttft_ms",
                     optional_number(d->has_ttft_ms, d->ttft_ms), "tpot_ms",
                     optional_number(d->has_tpot_ms, d->tpot_ms), "device_tokens",
                     (json_int_t)d->device_tokens, "worker_tokens", (json_int_t)d->worker_tokens,
                     "ridealong_jobs", (json_int_t)d->ridealong_jobs, "parked_jobs",
                     (json_int_t)d->parked_jobs, "seed", seed_json(d->seed), "finish_reason",
                     finish_reason_name(d->reason), "tokens", ids_json(r), "text",
                     r->text_bytes != 0 ? r->text : "", r->text_bytes);
}

int run_request_print_json(const struct run_request *r, FILE *out)
{
    json_t *object = result_json(r);

    if (object == NULL)
        return -ENOMEM;
    if (r->ask.has_logprobs)
        json_object_set_new(object, "logprobs", logprobs_json(r));
    if (r->failed)
        json_object_set_new(object, "error",
                            json_pack("{s:s, s:s, s:b}", "code", error_code_name(r->code),
                                      "message", r->reason, "retryable", r->retryable));
    int err = json_dumpf(object, out, JSON_COMPACT | JSON_REAL_PRECISION(9));

    json_decref(object);
    fputc('\n', out);
    return err == 0 ? 0 : -EIO;
}

void run_request_fini(struct run_request *r)
{
    json_decref(r->line);
    json_pool_free(&r->pool);
    free(r->ids);
    free(r->logprobs);
    free(r->top_ids);
    free(r->top_logprobs);
    free(r->text);
}
