#include "router/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/detokenizer.h"
#include "common/model/model.h"
#include "common/model/utf8.h"

enum { N_CTX_DEFAULT_MAX = 8192 };

static int __attribute__((format(printf, 4, 5)))
refuse(struct text_error *err, enum error_code code, const char *field, const char *format, ...)
{
    va_list args;

    err->code = code;
    snprintf(err->field, sizeof err->field, "%s", field);
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return -EINVAL;
}

struct str text_clean(const char *s)
{
    const struct str all = str_of(s);

    return (struct str){.data = s, .n = all.n ? (uint32_t)utf8_valid_prefix(s, all.n) : 0};
}

/* ---- Opening --------------------------------------------------------------------------------- */

static void collect_stop_tokens(struct text *t)
{
    const uint32_t n_vocab = tokenizer_n_vocab(t->tokenizer);

    for (uint32_t id = 0; id < n_vocab && t->n_stop_tokens < TEXT_STOP_TOKENS_MAX; id++) {
        if (tokenizer_is_eog(t->tokenizer, id))
            t->stop_tokens[t->n_stop_tokens++] = id;
    }
}

static int open_vocabulary(struct text *t, const struct gguf *g, struct gguf_error *why)
{
    int rc = tokenizer_open(g, &t->tokenizer, why);

    if (rc < 0)
        return rc;
    /* A model without a (known) template serves prompts and tokens, and refuses chats. */
    t->has_chat = chat_template_open(g, &t->chat, why) == 0;
    collect_stop_tokens(t);
    struct detokenizer probe;

    detokenizer_init(&probe, t->tokenizer);
    t->piece_bytes = detokenizer_push_max(&probe);
    t->piece = malloc(t->piece_bytes);
    return t->piece ? 0 : -ENOMEM;
}

/* For welcome and status, which carry text and not bytes. */
static void copy_clean(char *out, size_t size, const char *from)
{
    snprintf(out, size, "%s", from);
    out[text_clean(out).n] = '\0';
}

int text_open(struct text *t, const char *path, uint32_t n_ctx_max, struct error *err)
{
    struct gguf_error why = {""};
    struct model *model = NULL;

    memset(t, 0, sizeof *t);
    int rc = model_open(path, &model, &why);

    if (rc == 0) {
        const uint32_t limit = n_ctx_max > 0 ? n_ctx_max : N_CTX_DEFAULT_MAX;

        copy_clean(t->model_name, sizeof t->model_name, model->name);
        copy_clean(t->model_path, sizeof t->model_path, path);
        t->model_hash = model->hash;
        t->n_ctx = model->n_ctx < limit ? model->n_ctx : limit;
        rc = open_vocabulary(t, model->gguf, &why);
    }
    model_close(model); /* the vocabulary was copied */
    if (rc < 0) {
        text_close(t);
        return error_set(err, rc, "model \"%s\": %s", path,
                         why.text[0] != '\0' ? why.text : strerror(-rc));
    }
    return 0;
}

void text_close(struct text *t)
{
    tokenizer_close(t->tokenizer);
    free(t->piece);
    t->tokenizer = NULL;
    t->piece = NULL;
}

/* ---- Prompts --------------------------------------------------------------------------------- */

/* A text of so many bytes has more tokens than the context, whatever it says: refusing it by its
 * length keeps a large one from holding up everybody else's tokens while it is encoded. */
static int check_bytes(const struct text *t, const char *field, uint64_t bytes,
                       struct text_error *err)
{
    const uint64_t bytes_max = (uint64_t)t->n_ctx * tokenizer_piece_bytes_max(t->tokenizer);

    if (bytes <= bytes_max)
        return 0;
    return refuse(err, ERROR_TOO_LONG, field, "%llu bytes are more than %u tokens",
                  (unsigned long long)bytes, t->n_ctx);
}

static int encode_prompt(const struct text *t, const struct message_generate *g, uint32_t **ids,
                         int64_t *n, struct text_error *err)
{
    const bool special = !g->has_add_special || g->add_special;
    const unsigned flags = special ? TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL : 0;
    const size_t cap = tokenizer_encode_bound(g->prompt.n);
    int rc = check_bytes(t, "prompt", g->prompt.n, err);

    if (rc < 0)
        return rc;
    *ids = malloc(cap * sizeof **ids);
    if (!*ids)
        return -ENOMEM;
    *n = tokenizer_encode(t->tokenizer, g->prompt.data, g->prompt.n, flags, *ids, cap);
    return *n < 0 ? (int)*n : 0;
}

static uint64_t chat_bytes(const struct message_generate *g)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < g->messages.n; i++)
        bytes += g->messages.data[i].role.n + g->messages.data[i].content.n;
    return bytes;
}

static int encode_turns(const struct text *t, const struct message_generate *g,
                        struct chat_message *turns, uint32_t **ids, int64_t *n,
                        struct text_error *err)
{
    struct gguf_error why;

    for (uint32_t i = 0; i < g->messages.n; i++) {
        const struct chat_turn *turn = &g->messages.data[i];

        turns[i] = (struct chat_message){.role = turn->role.data,
                                         .role_len = turn->role.n,
                                         .content = turn->content.data,
                                         .content_len = turn->content.n};
    }
    if (chat_template_check(&t->chat, turns, g->messages.n, &why) < 0)
        return refuse(err, ERROR_BAD_REQUEST, "messages", "%s", why.text);
    const size_t cap = chat_template_encode_bound(&t->chat, turns, g->messages.n);

    *ids = malloc(cap * sizeof **ids);
    if (!*ids)
        return -ENOMEM;
    *n = chat_template_encode(&t->chat, t->tokenizer, turns, g->messages.n, true, *ids, cap);
    return *n < 0 ? (int)*n : 0;
}

static int encode_chat(const struct text *t, const struct message_generate *g, uint32_t **ids,
                       int64_t *n, struct text_error *err)
{
    if (!t->has_chat)
        return refuse(err, ERROR_BAD_REQUEST, "messages", "the model has no known chat template");
    if (g->messages.n == 0)
        return refuse(err, ERROR_BAD_REQUEST, "messages", "no message in the chat");
    int rc = check_bytes(t, "messages", chat_bytes(g), err);

    if (rc < 0)
        return rc;
    struct chat_message *turns = calloc(g->messages.n, sizeof *turns);

    if (!turns)
        return -ENOMEM;
    rc = encode_turns(t, g, turns, ids, n, err);
    free(turns);
    return rc;
}

static int copy_tokens(const struct text *t, const struct message_generate *g, uint32_t **ids,
                       int64_t *n, struct text_error *err)
{
    const uint32_t n_vocab = tokenizer_n_vocab(t->tokenizer);

    for (uint32_t i = 0; i < g->tokens.n; i++) {
        if (g->tokens.data[i] >= n_vocab)
            return refuse(err, ERROR_BAD_REQUEST, "tokens", "id %u at %u is beyond the vocabulary",
                          g->tokens.data[i], i);
    }
    *ids = malloc((g->tokens.n + 1) * sizeof **ids);
    if (!*ids)
        return -ENOMEM;
    if (g->tokens.n > 0)
        memcpy(*ids, g->tokens.data, g->tokens.n * sizeof **ids);
    *n = g->tokens.n;
    return 0;
}

static int encode_form(const struct text *t, const struct message_generate *g, const char **field,
                       uint32_t **ids, int64_t *n, struct text_error *err)
{
    if (g->has_prompt + g->has_messages + g->has_tokens != 1)
        return refuse(err, ERROR_BAD_REQUEST, "prompt",
                      "exactly one of prompt, messages and tokens is needed");
    if (g->has_prompt) {
        *field = "prompt";
        return encode_prompt(t, g, ids, n, err);
    }
    if (g->has_messages) {
        *field = "messages";
        return encode_chat(t, g, ids, n, err);
    }
    *field = "tokens";
    return copy_tokens(t, g, ids, n, err);
}

int text_encode(const struct text *t, const struct message_generate *g, uint32_t **ids,
                uint32_t *n_ids, struct text_error *err)
{
    const char *field = "prompt";
    int64_t n = 0;

    *ids = NULL;
    *err = (struct text_error){.code = ERROR_INTERNAL};
    int rc = encode_form(t, g, &field, ids, &n, err);

    if (rc == 0 && n == 0)
        rc = refuse(err, ERROR_BAD_REQUEST, field, "the prompt is empty");
    if (rc == 0 && n >= t->n_ctx)
        rc = refuse(err, ERROR_TOO_LONG, field,
                    "%lld prompt tokens leave no room for output in a context of %u", (long long)n,
                    t->n_ctx);
    if (rc < 0) {
        free(*ids);
        *ids = NULL;
        /* Without a sentence yet: the tokenizer's own refusals. */
        if (rc != -ENOMEM && err->message[0] == '\0')
            rc = refuse(err, ERROR_BAD_REQUEST, field, "cannot be encoded: %s", strerror(-rc));
        return rc;
    }
    *n_ids = (uint32_t)n;
    return 0;
}

static bool bias_is_repeated(const struct token_bias_list *biases, uint32_t at)
{
    for (uint32_t i = 0; i < at; i++) {
        if (biases->data[i].token == biases->data[at].token)
            return true;
    }
    return false;
}

const char *text_check_ids(const struct text *t, const struct message_generate *g, char *why,
                           size_t cap)
{
    const uint32_t n_vocab = tokenizer_n_vocab(t->tokenizer);

    for (uint32_t i = 0; g->has_stop_tokens && i < g->stop_tokens.n; i++) {
        if (g->stop_tokens.data[i] >= n_vocab) {
            snprintf(why, cap, "id %u at %u is beyond the vocabulary", g->stop_tokens.data[i], i);
            return "stop_tokens";
        }
    }
    for (uint32_t i = 0; g->has_logit_bias && i < g->logit_bias.n; i++) {
        const uint32_t token = g->logit_bias.data[i].token;

        if (token >= n_vocab)
            snprintf(why, cap, "id %u at %u is beyond the vocabulary", token, i);
        else if (bias_is_repeated(&g->logit_bias, i))
            snprintf(why, cap, "id %u comes twice", token);
        else
            continue;
        return "logit_bias";
    }
    return NULL;
}
