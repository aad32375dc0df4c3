/* Conversations at the router's door: what the model's template forbids is refused in a sentence that
 * names the message, what it allows becomes ids. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/model/model_random.h"
#include "router/text.h"

static struct text text;

/* Mistral's first: user and assistant in turn, no system message. */
static const char mistral[] =
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}"
    "{{ message['content'] + eos_token + ' ' }}{% endif %}{% endfor %}";

static void open_text(const char *chat_template)
{
    struct model_random_options o = model_random_defaults();
    char path[] = "/tmp/omni-router-text-XXXXXX";
    struct error err;
    const int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    o.chat_template = chat_template;
    assert_int_equal(model_random_write(path, &o), 0);
    assert_int_equal(text_open(&text, path, 0, &err), 0);
    (void)unlink(path);
}

static int encode(struct chat_turn *turns, uint32_t n, uint32_t *n_ids, struct text_error *err)
{
    const struct message_generate g = {.has_messages = true, .messages = {.data = turns, .n = n}};
    uint32_t *ids;
    const int rc = text_encode(&text, &g, &ids, n_ids, err);

    free(ids);
    return rc;
}

static struct chat_turn turn(const char *role, const char *content)
{
    return (struct chat_turn){.role = str_of(role), .content = str_of(content)};
}

static void expect_refusal(struct chat_turn *turns, uint32_t n, const char *words)
{
    struct text_error err;
    uint32_t n_ids;

    assert_int_equal(encode(turns, n, &n_ids, &err), -EINVAL);
    assert_int_equal(err.code, ERROR_BAD_REQUEST);
    assert_string_equal(err.field, "messages");
    if (!strstr(err.message, words))
        fail_msg("expected \"%s\" in: %s", words, err.message);
}

static void test_what_the_template_forbids(void **state)
{
    (void)state;
    open_text(mistral);
    expect_refusal((struct chat_turn[]){turn("system", "s"), turn("user", "u")}, 2,
                   "message 0, role \"system\": this model's template takes no system message");
    expect_refusal((struct chat_turn[]){turn("user", "u"), turn("user", "again")}, 2,
                   "message 1, role \"user\": this model's template wants user and assistant");
    expect_refusal((struct chat_turn[]){turn("assistant", "a")}, 1,
                   "message 0, role \"assistant\"");
    text_close(&text);
}

static void test_what_it_allows(void **state)
{
    struct chat_turn turns[] = {turn("user", "u"), turn("assistant", "a"), turn("user", "v")};
    struct text_error err;
    uint32_t one, three;

    (void)state;
    open_text(mistral);
    assert_int_equal(encode(turns, 1, &one, &err), 0);
    assert_int_equal(encode(turns, 3, &three, &err), 0);
    assert_true(one > 1 && three > one);
    text_close(&text);
    /* ChatML takes any order. */
    open_text(NULL);
    assert_int_equal(encode(turns + 1, 1, &one, &err), 0);
    text_close(&text);
}

static void test_no_known_template(void **state)
{
    (void)state;
    open_text("{{ messages }}");
    assert_false(text.has_chat);
    expect_refusal((struct chat_turn[]){turn("user", "u")}, 1, "no known chat template");
    text_close(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_template_forbids),
        cmocka_unit_test(test_what_it_allows),
        cmocka_unit_test(test_no_known_template),
    };

    return cmocka_run_group_tests_name("router_text", tests, NULL, NULL);
}
