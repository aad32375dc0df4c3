/* chat_render.h - a conversation as a sequence of texts and marks; private to chat_*.c. */
#ifndef OMNI_COMMON_MODEL_CHAT_RENDER_H
#define OMNI_COMMON_MODEL_CHAT_RENDER_H

#include "common/model/chat_template.h"

/* Where it goes.  text: what is never a control token, whatever it says.  mark: a part of the form;
 * one that must be a control token is `needed`, another may be text (Llama 2's [INST]). */
struct chat_sink {
    void (*text)(struct chat_sink *s, const char *data, size_t len);
    void (*mark)(struct chat_sink *s, const char *name, bool needed);
};

void chat_render(const struct chat_template *c, const struct chat_message *messages,
                 uint32_t n_messages, bool add_prompt, struct chat_sink *s);

/* The same for CHAT_CHATML (chat_chatml.c). */
void chat_render_chatml(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n_messages, bool add_prompt, struct chat_sink *s);

#endif
