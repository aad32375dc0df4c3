/* omni-tiny-model OUT.gguf [options]: writes a tiny random model (common/model/model_random.h).
 *
 * Lists give one value per layer and repeat when they are shorter than the model:
 *     omni-tiny-model /tmp/tiny.gguf --layers 6 --kv-heads 2,1,4 --windows 0,64 --experts 0,0,1
 *
 * With --hollow matrices are holes of the file, so that a big model's shape takes no room; a device that
 * makes random weights (engine.weights = dummy) reads nothing else of it.  Yi-34B's:
 *     omni-tiny-model yi-34b.gguf --family yi --layers 60 --embd 7168 --heads 56 --kv-heads 8 --k-width 128
 *         --v-width 128 --ff 20480 --vocab 64000 --ctx 8192 --type bf16 --embd-type bf16 --hollow */
#include "common/model/model_random.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum option_id {
    OPTION_FAMILY = 256,
    OPTION_LAYERS,
    OPTION_EMBD,
    OPTION_HEADS,
    OPTION_FF,
    OPTION_WIDTH,
    OPTION_V_WIDTH,
    OPTION_KV_HEADS,
    OPTION_WINDOWS,
    OPTION_SINKS,
    OPTION_EXPERTS,
    OPTION_N_EXPERTS,
    OPTION_N_USED,
    OPTION_TYPE,
    OPTION_EMBD_TYPE,
    OPTION_CTX,
    OPTION_VOCAB,
    OPTION_SEED,
    OPTION_TIED,
    OPTION_HOLLOW,
    OPTION_HELP
};

static const struct option options[] = {{"family", required_argument, NULL, OPTION_FAMILY},
                                        {"layers", required_argument, NULL, OPTION_LAYERS},
                                        {"embd", required_argument, NULL, OPTION_EMBD},
                                        {"heads", required_argument, NULL, OPTION_HEADS},
                                        {"ff", required_argument, NULL, OPTION_FF},
                                        {"k-width", required_argument, NULL, OPTION_WIDTH},
                                        {"v-width", required_argument, NULL, OPTION_V_WIDTH},
                                        {"kv-heads", required_argument, NULL, OPTION_KV_HEADS},
                                        {"windows", required_argument, NULL, OPTION_WINDOWS},
                                        {"sinks", required_argument, NULL, OPTION_SINKS},
                                        {"experts", required_argument, NULL, OPTION_EXPERTS},
                                        {"n-experts", required_argument, NULL, OPTION_N_EXPERTS},
                                        {"n-used", required_argument, NULL, OPTION_N_USED},
                                        {"type", required_argument, NULL, OPTION_TYPE},
                                        {"embd-type", required_argument, NULL, OPTION_EMBD_TYPE},
                                        {"ctx", required_argument, NULL, OPTION_CTX},
                                        {"vocab", required_argument, NULL, OPTION_VOCAB},
                                        {"seed", required_argument, NULL, OPTION_SEED},
                                        {"tied", no_argument, NULL, OPTION_TIED},
                                        {"hollow", no_argument, NULL, OPTION_HOLLOW},
                                        {"help", no_argument, NULL, OPTION_HELP},
                                        {NULL, 0, NULL, 0}};

static int usage(FILE *f)
{
    fprintf(f, "usage: omni-tiny-model OUT.gguf [--family NAME] [--layers N] [--embd N] [--heads "
               "N] [--ff N] "
               "[--k-width N] [--v-width N]\n"
               "  [--kv-heads N,..] [--windows N,..] [--sinks N] [--experts 0|1,..] [--n-experts "
               "N] [--n-used N]\n"
               "  [--type f32|f16|bf16|q8_0|q4_0|..|q6_k|mixed] [--embd-type ..] [--ctx N] "
               "[--vocab N] [--seed "
               "N] [--tied] [--hollow]\n");
    fprintf(f, "families (give first; later options change them):");
    for (uint32_t i = 0; model_random_family_name(i); i++)
        fprintf(f, " %s", model_random_family_name(i));
    fprintf(f, "\n");
    return f == stderr ? 2 : 0;
}

/* One number, or a list of them that is repeated over all layers. */
static bool parse_list(const char *text, uint32_t *out, uint32_t n)
{
    uint32_t given = 0;

    while (given < n) {
        char *end;
        const unsigned long value = strtoul(text, &end, 10);

        if (end == text || value > UINT32_MAX || (*end && *end != ','))
            return false;
        out[given++] = (uint32_t)value;
        if (!*end)
            break;
        text = end + 1;
    }
    for (uint32_t i = given; i < n; i++)
        out[i] = out[i % given];
    return true;
}

static bool parse_experts(const char *text, bool *out)
{
    uint32_t flags[MODEL_RANDOM_LAYERS_MAX];

    if (!parse_list(text, flags, MODEL_RANDOM_LAYERS_MAX))
        return false;
    for (uint32_t i = 0; i < MODEL_RANDOM_LAYERS_MAX; i++)
        out[i] = flags[i] != 0;
    return true;
}

static bool parse_type(const char *text, enum weight_type *out)
{
    for (int i = 0; i < WEIGHT_TYPES; i++)
        if (strcasecmp(text, weight_type_name((enum weight_type)i)) == 0) {
            *out = (enum weight_type)i;
            return true;
        }
    return false;
}

static bool parse_layer_type(const char *text, struct model_random_options *o)
{
    o->mixed = strcmp(text, "mixed") == 0;
    return o->mixed || parse_type(text, &o->type);
}

static bool parse_seed(const char *text, uint64_t *out)
{
    char *end;

    *out = strtoull(text, &end, 0);
    return end != text && !*end;
}

static bool parse_option(int id, const char *text, struct model_random_options *o)
{
    switch (id) {
    case OPTION_FAMILY:
        return model_random_family(text, o);
    case OPTION_LAYERS:
        return parse_list(text, &o->n_layers, 1);
    case OPTION_EMBD:
        return parse_list(text, &o->n_embd, 1);
    case OPTION_HEADS:
        return parse_list(text, &o->n_heads, 1);
    case OPTION_FF:
        return parse_list(text, &o->n_ff, 1);
    case OPTION_WIDTH:
        return parse_list(text, &o->k_width, 1);
    case OPTION_V_WIDTH:
        return parse_list(text, &o->v_width, 1);
    case OPTION_KV_HEADS:
        return parse_list(text, o->kv_heads, MODEL_RANDOM_LAYERS_MAX);
    case OPTION_WINDOWS:
        return parse_list(text, o->windows, MODEL_RANDOM_LAYERS_MAX);
    case OPTION_SINKS:
        return parse_list(text, &o->n_sinks, 1);
    case OPTION_EXPERTS:
        return parse_experts(text, o->experts);
    case OPTION_N_EXPERTS:
        return parse_list(text, &o->n_experts, 1);
    case OPTION_N_USED:
        return parse_list(text, &o->n_used, 1);
    case OPTION_TYPE:
        return parse_layer_type(text, o);
    case OPTION_EMBD_TYPE:
        return parse_type(text, &o->embd_type);
    case OPTION_CTX:
        return parse_list(text, &o->n_ctx, 1);
    case OPTION_VOCAB:
        return parse_list(text, &o->n_vocab, 1);
    case OPTION_SEED:
        return parse_seed(text, &o->seed);
    case OPTION_TIED:
        return o->tied = true;
    case OPTION_HOLLOW:
        return o->hollow = true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    struct model_random_options o = model_random_defaults();
    int id, rc;

    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == OPTION_HELP)
            return usage(stdout);
        if (!parse_option(id, optarg, &o))
            return usage(stderr);
    }
    if (optind + 1 != argc)
        return usage(stderr);
    rc = model_random_write(argv[optind], &o);
    if (rc) {
        fprintf(stderr, "omni-tiny-model: %s: %s%s\n", argv[optind], strerror(-rc),
                rc == -EINVAL ? " (options that do not fit together: heads and KV heads, widths of "
                                "32 for quantised types)"
                              : "");
        return 1;
    }
    return 0;
}
