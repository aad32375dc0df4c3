#include "common/model/pretokenizer.h"

#include "common/model/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERNS_MAX 2

/* White space as Unicode has it (property White_Space).  PCRE2's \s also takes U+180E. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

/* The pattern of GPT-2: contractions, words, numbers, other signs, each with one space in front; of
 * a run of spaces before a word, the last belongs to the word. */
#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|[" SPACES            \
    "]+(?![^" SPACES "])|[" SPACES "]+"

/* The pattern of Llama 3 and, with one digit per number, of Qwen 2: contractions in either case, a
 * word with one sign in front, signs with the line ends behind them, line ends with the spaces in
 * front. */
#define LLAMA3_PATTERN(number)                                                                     \
    "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number  \
    "| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACES "]*[\\r\\n]+|[" SPACES "]+(?![^" SPACES      \
    "])|[" SPACES "]+"

/* The pattern of o200k and, without contractions and with one digit per number, of Tekken: as Llama
 * 3's, but a word also ends where a capital follows a small letter. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_PATTERN(contraction, number)                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" contraction "|[^\\r\\n\\p{L}\\p{N}]?" UPPER       \
    "+" LOWER "*" contraction "|" number "| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n/]*|[" SPACES        \
    "]*[\\r\\n]+|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]+"

struct scheme {
    const char *name;
    bool whole_words;
    const char *patterns[PATTERNS_MAX];
};

static const struct scheme schemes[] = {
    {"gpt-2", false, {GPT2_PATTERN}},
    {"smollm", false, {"\\p{N}", GPT2_PATTERN}}, /* digits one by one, then as GPT-2 */
    {"llama-bpe", true, {LLAMA3_PATTERN("\\p{N}{1,3}")}},
    {"llama3", true, {LLAMA3_PATTERN("\\p{N}{1,3}")}},
    {"smaug-bpe", false, {LLAMA3_PATTERN("\\p{N}{1,3}")}}, /* SmolLM3 */
    {"dbrx", false, {LLAMA3_PATTERN("\\p{N}{1,3}")}},      /* Phi-4 */
    {"qwen2", false, {LLAMA3_PATTERN("\\p{N}")}},
    {"deepseek-r1-qwen", false, {LLAMA3_PATTERN("\\p{N}")}},
    {"tekken", true, {CASED_PATTERN("", "\\p{N}")}}, /* Mistral Nemo */
    {"gpt-4o",
     false,
     {CASED_PATTERN("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "\\p{N}{1,3}")}}, /* Phi-4-mini */
    {"default", false, {GPT2_PATTERN}},
};
#define N_SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

struct pretokenizer {
    uint32_t n_patterns;
    pcre2_code *patterns[PATTERNS_MAX];
    bool whole_words;
};

/* One call of cut. */
struct cutter {
    const struct pretokenizer *p;
    pcre2_match_data *match;
    pretokenizer_fn fn;
    void *context;
};

static const struct scheme *find_scheme(struct gguf_string name)
{
    for (size_t i = 0; i < N_SCHEMES; i++)
        if (name.len == strlen(schemes[i].name) &&
            memcmp(name.data, schemes[i].name, name.len) == 0)
            return &schemes[i];
    return NULL;
}

static void unknown_scheme(struct gguf_string name, struct gguf_error *err)
{
    char known[256] = "";
    size_t used = 0;

    for (size_t i = 0; i < N_SCHEMES && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
                                 schemes[i].name);
    gguf_error_set(err, "%.*s is not known (known: %s)", (int)(name.len < 48 ? name.len : 48),
                   name.data, known);
}

static int compile(struct pretokenizer *p, const char *pattern, struct gguf_error *err)
{
    int code;
    PCRE2_SIZE off;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_UCP, &code, &off, NULL);

    if (!re) {
        gguf_error_set(err, "split pattern: PCRE2 error %d at %zu", code, (size_t)off);
        return -ENOMEM;
    }
    /* Where memory may not be made executable this fails, and the interpreter is used. */
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    p->patterns[p->n_patterns++] = re;
    return 0;
}

int pretokenizer_open(struct gguf_string name, struct pretokenizer **out, struct gguf_error *err)
{
    const struct scheme *s = find_scheme(name);
    struct pretokenizer *p;
    int rc = 0;

    *out = NULL;
    if (!s) {
        unknown_scheme(name, err);
        return -ENOTSUP;
    }
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->whole_words = s->whole_words;
    for (int i = 0; !rc && i < PATTERNS_MAX && s->patterns[i]; i++)
        rc = compile(p, s->patterns[i], err);
    if (rc) {
        pretokenizer_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pretokenizer_close(struct pretokenizer *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->n_patterns; i++)
        pcre2_code_free(p->patterns[i]);
    free(p);
}

bool pretokenizer_whole_words(const struct pretokenizer *p)
{
    return p->whole_words;
}

static int cut_level(const struct cutter *c, uint32_t level, const char *text, size_t len);

static int give(const struct cutter *c, uint32_t level, const char *text, size_t len)
{
    if (len == 0)
        return 0;
    return cut_level(c, level + 1, text, len);
}

/* Cuts well-formed text by pattern `level`.  The piece is a subject of its own: patterns do not
 * look past its ends.  A match is passed on like the gaps: later patterns may cut it further. */
static int cut_level(const struct cutter *c, uint32_t level, const char *text, size_t len)
{
    size_t off = 0, done = 0;

    if (level == c->p->n_patterns)
        return c->fn(c->context, text, len);
    while (off < len) {
        const int n = pcre2_match(c->p->patterns[level], (PCRE2_SPTR)text, len, off,
                                  PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, c->match, NULL);
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(c->match);
        size_t start, end;
        int rc;

        if (n == PCRE2_ERROR_NOMATCH)
            break;
        if (n < 0)
            return -EIO;
        start = found[0]; /* the next level uses the same match data */
        end = found[1];
        rc = give(c, level, text + done, start - done);
        if (!rc)
            rc = give(c, level, text + start, end - start);
        if (rc)
            return rc;
        done = off = end;
    }
    return give(c, level, text + done, len - done);
}

/* Length of the run of ill-formed bytes at the beginning. */
static size_t broken_prefix(const char *s, size_t n)
{
    size_t off = 0, len;

    while (off < n && utf8_next(s + off, n - off, &len) != UTF8_COMPLETE)
        off += len;
    return off;
}

int pretokenizer_cut(const struct pretokenizer *p, const char *text, size_t len, pretokenizer_fn fn,
                     void *context)
{
    struct cutter c = {.p = p, .fn = fn, .context = context};
    size_t off = 0;
    int rc = 0;

    c.match = pcre2_match_data_create(1, NULL);
    if (!c.match)
        return -ENOMEM;
    while (!rc && off < len) {
        const size_t good = utf8_valid_prefix(text + off, len - off);
        const size_t bad = broken_prefix(text + off + good, len - off - good);

        if (good)
            rc = cut_level(&c, 0, text + off, good);
        if (!rc && bad)
            rc = fn(context, text + off + good, bad);
        off += good + bad;
    }
    pcre2_match_data_free(c.match);
    return rc;
}
