/* Writes small model files into a folder, as the first inputs of fuzz_gguf: a layer of every family,
 * one of every weight type with small blocks, forms of chat, and a vocabulary of SentencePiece's kind. */
#include <stdio.h>
#include <string.h>

#include "common/model/model_random.h"
#include "tests/unit/chars_vocab.h"

static int report(const char *path, int rc)
{
    if (rc)
        fprintf(stderr, "fuzz_gguf_seeds: %s: %s\n", path, strerror(-rc));
    return rc != 0;
}

static int write_family(const char *folder, const char *name)
{
    struct model_random_options o;
    char path[4096];

    if (!model_random_family(name, &o))
        return 1;
    o.n_layers = 1;
    o.n_embd = 16;
    o.n_heads = 4;
    o.n_ff = 16;
    o.k_width = o.v_width = 0;
    o.rope_dims = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return report(path, model_random_write(path, &o));
}

static int write_type(const char *folder, enum weight_type type)
{
    struct model_random_options o = model_random_defaults();
    char path[4096];

    o.n_layers = 1;
    o.mixed = false;
    o.type = o.embd_type = type;
    o.n_embd = o.n_ff = 32;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, weight_type_name(type));
    return report(path, model_random_write(path, &o));
}

/* Templates whose details are read from quoted text. */
static int write_chat(const char *folder, const char *name, const char *chat_template)
{
    struct model_random_options o = model_random_defaults();
    char path[4096];

    o.n_layers = 1;
    o.mixed = false;
    o.type = o.embd_type = WEIGHT_F32;
    o.n_embd = o.n_ff = 32;
    o.chat_template = chat_template;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return report(path, model_random_write(path, &o));
}

static int write_chars(const char *folder)
{
    struct gguf_writer *w = gguf_writer_create();
    char path[4096];
    int rc;

    (void)snprintf(path, sizeof(path), "%s/chars", folder);
    if (!w)
        return 1;
    chars_vocab_add(w, NULL);
    gguf_writer_string(w, "tokenizer.chat_template",
                       "{{ bos_token + '[INST] <<SYS>>' + content + ' [/INST]' }}"
                       "{{ ' ' + content + ' ' + eos_token }}");
    rc = gguf_writer_save(w, path);
    gguf_writer_destroy(w);
    return report(path, rc);
}

int main(int argc, char **argv)
{
    const char *name;
    int status = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_gguf_seeds FOLDER\n");
        return 2;
    }
    for (uint32_t i = 0; (name = model_random_family_name(i)) != NULL; i++)
        status |= write_family(argv[1], name);
    for (int type = 0; type < WEIGHT_Q4_K; type++)
        status |= write_type(argv[1], (enum weight_type)type);
    status |=
        write_chat(argv[1], "chat-in-turn",
                   "{% set system_message = 'Be kind.' %}{{ '<|im_start|>user\\n' + content + "
                   "'<|im_end|>\\n<|im_start|>assistant\\n' }}{{ system_message }}'system'");
    status |= write_chat(
        argv[1], "chat-two-modes",
        "<|im_start|>system<|im_end|>\"Knowledge Cutoff Date: June 2025\\n\""
        "## Custom Instructions{%- elif reasoning_mode == \"/think\" -%}{{- \"Think.\" -}}"
        "{%- else -%}{{- \"Say.\" -}}/system_override == \"user\"");
    return status | write_chars(argv[1]);
}
