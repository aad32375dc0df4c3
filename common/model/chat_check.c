/* What a template forbids, and what it would leave out without a word. */
#include "common/model/chat_span.h"

#include <errno.h>

static int refuse(uint32_t i, const struct chat_message *m, const char *why, struct gguf_error *err)
{
    gguf_error_set(err, "message %u, role \"%.*s\": %s", i,
                   (int)(m->role_len < 32 ? m->role_len : 32), m->role, why);
    return -EINVAL;
}

/* User and assistant in turn, the user first, behind a system message if there is one. */
static int check_turns(const struct chat_template *c, const struct chat_message *messages,
                       uint32_t n, struct gguf_error *err)
{
    const uint32_t first = n && chat_role_is(&messages[0], "system");

    if (first && c->system_place == CHAT_SYSTEM_REFUSED)
        return refuse(0, &messages[0], "this model's template takes no system message", err);
    if (first && n == 1)
        return refuse(0, &messages[0], "this model's template wants a user message behind it", err);
    if (first && c->system_place == CHAT_SYSTEM_LAST && !chat_role_is(&messages[n - 1], "user"))
        return refuse(
            0, &messages[0],
            "this model's template takes a system message only where the user speaks last", err);
    for (uint32_t i = first; i < n; i++)
        if (!chat_role_is(&messages[i], (i - first) % 2 ? "assistant" : "user"))
            return refuse(i, &messages[i],
                          "this model's template wants user and assistant in turn, user first",
                          err);
    return 0;
}

static int check_role(const struct chat_template *c, const struct chat_message *m, uint32_t i,
                      struct gguf_error *err)
{
    const bool system = chat_role_is(m, "system");

    if (c->refuses_tools && chat_role_is(m, "tool"))
        return refuse(i, m, "messages of tools are not supported", err);
    if (system && c->system_place == CHAT_SYSTEM_REFUSED)
        return refuse(i, m, "this model's template takes no system message", err);
    if (system && i > 0 && c->two_modes)
        return refuse(i, m, "this model's template takes a system message in front alone", err);
    if (!c->names_roles || system || chat_role_is(m, "user") || chat_role_is(m, "assistant"))
        return 0;
    return refuse(i, m, "this model's template knows system, user and assistant", err);
}

int chat_template_check(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n_messages, struct gguf_error *err)
{
    int rc = 0;

    if (c->format == CHAT_INST || c->in_turn)
        return check_turns(c, messages, n_messages, err);
    for (uint32_t i = 0; !rc && i < n_messages; i++)
        rc = check_role(c, &messages[i], i, err);
    return rc;
}
