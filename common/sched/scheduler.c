#include "common/sched/scheduler.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/sched/plan.h"

/* ---- Memory ---------------------------------------------------------------------------------- */

static struct sched_scratch *create_scratch(uint32_t n_seqs)
{
    struct sched_scratch *s = calloc(1, sizeof *s);
    bool ok = s != NULL;

    if (!ok)
        return NULL;
    s->n_seqs_max = n_seqs;
    s->mark = calloc((size_t)n_seqs + 1, sizeof *s->mark);
    s->reserves = calloc((size_t)n_seqs + 1, sizeof *s->reserves);
    s->next = calloc((size_t)n_seqs + 1, sizeof *s->next);
    ok = s->mark != NULL && s->reserves != NULL && s->next != NULL;
    for (uint32_t g = 0; g < PLAN_GROUPS; g++) {
        s->picked[g] = calloc((size_t)n_seqs + 1, sizeof *s->picked[g]);
        ok = ok && s->picked[g] != NULL;
    }
    s->n_seqs_max = ok ? n_seqs : 0;
    return s;
}

static void destroy_scratch(struct sched_scratch *s)
{
    if (s == NULL)
        return;
    free(s->mark);
    free(s->reserves);
    free(s->next);
    for (uint32_t g = 0; g < PLAN_GROUPS; g++)
        free(s->picked[g]);
    free(s);
}

int sched_decision_init(struct sched_decision *d, uint32_t n_seqs,
                        const struct sched_limits *limits)
{
    memset(d, 0, sizeof *d);
    d->rows = calloc((size_t)n_seqs + 1, sizeof *d->rows);
    d->yield = calloc((size_t)n_seqs + 1, sizeof *d->yield);
    d->place = calloc((size_t)n_seqs + 1, sizeof *d->place);
    d->out = calloc((size_t)limits->copies_max + 1, sizeof *d->out);
    d->in = calloc((size_t)limits->copies_max + 1, sizeof *d->in);
    d->enter = calloc((size_t)limits->returned_max + 1, sizeof *d->enter);
    d->elsewhere = calloc((size_t)limits->elsewhere_max + 1, sizeof *d->elsewhere);
    d->scratch = create_scratch(n_seqs);
    if (d->rows == NULL || d->yield == NULL || d->place == NULL || d->out == NULL ||
        d->in == NULL || d->enter == NULL || d->elsewhere == NULL || d->scratch == NULL ||
        d->scratch->n_seqs_max != n_seqs)
        return -ENOMEM;
    return 0;
}

void sched_decision_fini(struct sched_decision *d)
{
    free(d->rows);
    free(d->yield);
    free(d->place);
    free(d->out);
    free(d->in);
    free(d->enter);
    free(d->elsewhere);
    destroy_scratch(d->scratch);
    memset(d, 0, sizeof *d);
}

/* ---- Policies -------------------------------------------------------------------------------- */

static const struct sched_policy *const policies[] = {
    &policy_omni,     &policy_paper,    &policy_sync,
    &policy_headroom, &policy_ls_first, &policy_harvest,
    &policy_stream,   &policy_group,    NULL};

const struct sched_policy *const *sched_policies(void)
{
    return policies;
}

const struct sched_policy *sched_policy_find(const char *name, const char **known)
{
    if (known != NULL) /* in the order of the table */
        *known = "omni, paper, sync, headroom, ls-first, harvest, stream, group";
    for (uint32_t i = 0; policies[i] != NULL; i++) {
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    }
    return NULL;
}

uint32_t sched_without_find(const char *word, size_t n)
{
    /* In the order of enum sched_without. */
    static const char *const ideas[] = {"riding",    "two-batch", "waiting", "stairs", "placement",
                                        "copy-back", "spread",    "staging", "share"};
    enum { N_IDEAS = sizeof ideas / sizeof *ideas };
    static_assert(1 << (N_IDEAS - 1) == SCHED_WITHOUT_SHARE, "a name per idea");

    for (uint32_t i = 0; i < N_IDEAS; i++) {
        if (strlen(ideas[i]) == n && strncmp(ideas[i], word, n) == 0)
            return UINT32_C(1) << i;
    }
    return 0;
}

int sched_without_parse(const char *names, uint32_t *without, const char **known)
{
    *without = 0;
    if (known != NULL)
        *known = "riding, two-batch, waiting, stairs, placement, copy-back, spread, staging, share";
    for (const char *at = names; *at != '\0'; at += at[0] == ',') {
        size_t n = strcspn(at, ",");
        uint32_t idea = sched_without_find(at, n);

        if (idea == 0)
            return -EINVAL;
        *without |= idea;
        at += n;
    }
    return 0;
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

uint32_t sched_growth(const struct sched_limits *limits, const struct sched_seq *seq,
                      uint32_t n_tokens)
{
    uint32_t has = seq->n_blocks;

    if (seq->place == SCHED_WAITING)
        has += seq->n_shared / limits->block_tokens;
    uint32_t need = sched_blocks(limits, n_tokens), there = has * limits->n_groups;
    return need > there ? need - there : 0;
}

uint32_t sched_promise(const struct sched_limits *limits, const struct sched_seq *seq)
{
    return sched_blocks(limits, (uint64_t)seq->n_kv + seq->n_todo + seq->n_rest);
}
