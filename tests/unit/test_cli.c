/* omni as a process of its own, against the fake router in a thread of this one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/base/clock.h"
#include "common/model/model_random.h"
#include "common/model/tokenizer.h"
#include "tests/unit/fake_router.h"

static struct fake_router router;
static char output[1 << 16];

/* Runs omni through the shell; its output (and, with "2>&1", its errors) is in `output`. */
__attribute__((format(printf, 1, 2))) static int omni(const char *format, ...)
{
    char arguments[2048], command[4096];
    va_list list;

    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    snprintf(command, sizeof command, OMNI_PROGRAM " %s", arguments);
    FILE *pipe = popen(command, "r");

    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);

    output[n] = '\0';
    int status = pclose(pipe);

    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static const char *write_file(const char *name, const char *text)
{
    static char path[160];

    snprintf(path, sizeof path, "%s/%s", router.dir, name);
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    return path;
}

static json_int_t integer_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value))
        fail_msg("no integer %s", key);
    return json_integer_value(value);
}

static void check_result(const char *line, const char *class_name, uint32_t n_tokens)
{
    json_t *o = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *tokens = json_object_get(o, "tokens");
    struct request_id id;

    assert_non_null(o);
    assert_int_equal(request_id_parse(json_string_value(json_object_get(o, "id")), &id), 0);
    assert_string_equal(json_string_value(json_object_get(o, "class")), class_name);
    assert_string_equal(json_string_value(json_object_get(o, "finish_reason")), "length");
    assert_true(json_is_null(json_object_get(o, "tpot_ms")));
    assert_true(json_is_null(json_object_get(o, "ttft_ms")));
    assert_int_equal(integer_of(o, "prompt_tokens"), 3);
    assert_int_equal(integer_of(o, "output_tokens"), n_tokens);
    assert_int_equal(integer_of(o, "device_tokens"), n_tokens);
    assert_int_equal(integer_of(o, "worker_tokens"), 0);
    assert_int_equal(integer_of(o, "ridealong_jobs"), 0);
    assert_int_equal(integer_of(o, "parked_jobs"), 0);
    assert_int_equal(json_array_size(tokens), n_tokens);
    for (uint32_t i = 0; i < n_tokens; i++)
        assert_int_equal(json_integer_value(json_array_get(tokens, i)), 100 + i);
    assert_int_equal(json_string_length(json_object_get(o, "text")), n_tokens);
    json_decref(o);
}

static void test_run_streams_a_raw_prompt(void **state)
{
    const char *path = write_file("prompt.txt", "Once upon a time");

    (void)state;
    assert_int_equal(omni("run --url %s --prompt-file %s --max-tokens 5 2>&1", router.url, path),
                     0);
    assert_string_equal(output, "aaaaa\n");
    unlink(path);
}

static void test_run_reports_in_the_order_of_the_file(void **state)
{
    const char *path =
        write_file("r.jsonl", "{\"prompt\": \"x\", \"max_tokens\": 3}\n\n"
                              "{\"messages\": [{\"role\": \"user\", \"content\": "
                              "\"gr\xc3\xbc\xc3\x9f\"}], \"class\": \"ls\", \"max_tokens\": 4}\n"
                              "{\"tokens\": [1, 2], \"max_tokens\": 0}");

    (void)state;
    assert_int_equal(
        omni("run --url %s --prompt-file %s --json --concurrency 2 2>&1", router.url, path), 0);
    const char *line = output;

    check_result(line, "be", 3);
    line = strchr(line, '\n') + 1;
    check_result(line, "ls", 4);
    line = strchr(line, '\n') + 1;
    check_result(line, "be", 0);
    assert_string_equal(strchr(line, '\n'), "\n");
    /* The command line goes before the file. */
    assert_int_equal(omni("run --url %s --prompt-file %s --json --class ls --max-tokens 6 2>&1",
                          router.url, path),
                     0);
    check_result(output, "ls", 6);
    unlink(path);
}

static void test_run_names_the_line_at_fault(void **state)
{
    const char *path = write_file("bad.jsonl", "{\"prompt\": \"x\"}\n{\"prompt\": 1}\n");

    (void)state;
    assert_int_equal(omni("run --url %s --prompt-file %s 2>&1", router.url, path), 1);
    assert_non_null(strstr(output, "bad.jsonl:2: bad value of \"prompt\""));
    path = write_file("bad.jsonl", "{\"prompt\": \"x\", \"surprise\": 1}\n");
    assert_int_equal(omni("run --url %s --prompt-file %s 2>&1", router.url, path), 1);
    assert_non_null(strstr(output, "bad.jsonl:1: unknown key \"surprise\""));
    path = write_file("bad.jsonl", "{\"max_tokens\": 1}\n");
    assert_int_equal(omni("run --url %s --prompt-file %s 2>&1", router.url, path), 1);
    assert_non_null(strstr(output, "exactly one of prompt"));
    unlink(path);
}

/* One of two requests is refused: the other one is done, and the exit status tells. */
static void test_run_tells_which_request_failed(void **state)
{
    const char *path = write_file("half.jsonl", "{\"prompt\": \"x\", \"max_tokens\": 2}\n"
                                                "{\"prompt\": \"x\", \"top_p\": 1.5}\n");

    (void)state;
    assert_int_equal(omni("run --url %s --prompt-file %s --json 2>&1 >/dev/null", router.url, path),
                     1);
    assert_non_null(strstr(output, "request 2 of 2"));
    assert_non_null(strstr(output, "bad_request: top_p"));
    assert_int_equal(omni("run --url %s --prompt-file %s --json 2>/dev/null", router.url, path), 1);
    check_result(output, "be", 2);
    assert_non_null(strstr(output, "\"finish_reason\":\"error\""));
    assert_non_null(strstr(output, "\"code\":\"bad_request\""));
    unlink(path);
}

static void test_run_resumes_a_lost_session(void **state)
{
    const char *path = write_file("prompt.txt", "x");

    (void)state;
    router.cut_after = 7;
    assert_int_equal(
        omni("run --url %s --prompt-file %s --max-tokens 20 --json 2>/dev/null", router.url, path),
        0);
    check_result(output, "be", 20);
    assert_int_equal(router.n_hellos, 3); /* the first, the look whether it lives, the second */
    unlink(path);
}

/* The session was lost before the router had read the generate: it comes again, with the same id.
 */
static void test_run_sends_again_what_never_arrived(void **state)
{
    char path[160], id[REQUEST_ID_TEXT_BYTES];

    (void)state;
    snprintf(path, sizeof path, "%s", write_file("prompt.txt", "x"));
    atomic_store(&router.lose_generate, true);
    assert_int_equal(
        omni("run --url %s --prompt-file %s --max-tokens 20 --json 2>/dev/null", router.url, path),
        0);
    check_result(output, "be", 20);
    assert_int_equal(router.n_lost, 1);
    assert_int_equal(router.n_generates, 1);
    request_id_format(&router.lost, id);
    assert_non_null(strstr(output, id));
    unlink(path);
}

static void test_chat(void **state)
{
    (void)state;
    assert_int_equal(
        omni("chat --url %s --max-tokens 4 --system 'Be brief.' hello you 2>&1", router.url), 0);
    assert_string_equal(output, "aaaa\n");
    assert_int_equal(omni("chat --url %s --max-tokens 2 2>&1 </dev/null", router.url), 0);
    assert_string_equal(output, "aa\n");
}

static void check_asked(const char *command, const char *asked)
{
    assert_int_equal(omni("%s", command), 0);
    assert_string_equal(router.asked, asked);
}

/* What echo and editors put at the end is not part of a question; of a raw prompt every byte is. */
static void test_newline_at_the_end(void **state)
{
    char path[160], command[512];

    (void)state;
    snprintf(path, sizeof path, "%s", write_file("question.txt", "Why?\n\n"));
    snprintf(command, sizeof command, "chat --url %s --max-tokens 1 < %s", router.url, path);
    check_asked(command, "Why?\n");
    snprintf(command, sizeof command, "run --url %s --max-tokens 1 --chat --prompt-file %s",
             router.url, path);
    check_asked(command, "Why?\n");
    snprintf(command, sizeof command, "run --url %s --max-tokens 1 --prompt-file %s", router.url,
             path);
    check_asked(command, "Why?\n\n");
    snprintf(command, sizeof command, "chat --url %s --max-tokens 1 </dev/null", router.url);
    check_asked(command, "");
    unlink(path);
}

static void test_status_and_cancel(void **state)
{
    (void)state;
    assert_int_equal(omni("status --url %s --json 2>&1", router.url), 0);
    assert_string_equal(output, "{}\n");
    assert_int_equal(omni("cancel --url %s 00112233445566778899aabbccddeeff 2>&1", router.url), 1);
    assert_non_null(strstr(output, "not_found"));
}

static void test_nobody_answers(void **state)
{
    (void)state;
    assert_int_equal(omni("status --group omni-test-nobody --json 2>/dev/null"), 3);
    json_t *o = json_loads(output, 0, NULL);

    assert_true(json_is_null(json_object_get(o, "router")));
    assert_int_equal(json_array_size(json_object_get(o, "pages")), 0);
    json_decref(o);
    assert_int_equal(omni("chat --group omni-test-nobody hello 2>&1"), 1);
    assert_non_null(strstr(output, "is the group up?"));
}

/* The ids that the tokenizer itself gives for the same file. */
static void check_tokenize(const char *model, const char *text_file, const char *text,
                           const char *option, unsigned flags)
{
    struct gguf_error error;
    struct gguf *g;
    struct tokenizer *t;
    uint32_t ids[256];
    char expected[2048] = "";

    assert_int_equal(gguf_open(model, &g, &error), 0);
    assert_int_equal(tokenizer_open(g, &t, &error), 0);
    int64_t n = tokenizer_encode(t, text, strlen(text), flags, ids, 256);

    assert_true(n > 3);
    for (int64_t i = 0; i < n; i++)
        snprintf(expected + strlen(expected), 16, "%s%u", i != 0 ? " " : "", ids[i]);
    strcat(expected, "\n");
    tokenizer_close(t);
    gguf_close(g);
    assert_int_equal(omni("tokenize --model %s %s < %s 2>&1", model, option, text_file), 0);
    assert_string_equal(output, expected);
}

static void test_tokenize(void **state)
{
    static const char text[] = "Hello <|im_end|> w\xc3\xb6rld\n";
    struct model_random_options options = model_random_defaults();
    char model[160], text_file[160];

    (void)state;
    snprintf(model, sizeof model, "%s/m.gguf", router.dir);
    assert_int_equal(model_random_write(model, &options), 0);
    snprintf(text_file, sizeof text_file, "%s", write_file("t.txt", text));
    check_tokenize(model, text_file, text, "", 0);
    check_tokenize(model, text_file, text, "--special",
                   TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL);
    assert_int_equal(omni("tokenize --model %s < %s 2>&1", text_file, text_file), 1);
    unlink(model);
    unlink(text_file);
}

static void test_usage(void **state)
{
    (void)state;
    assert_int_equal(omni("surprise 2>&1"), 2);
    assert_non_null(strstr(output, "no such command: surprise"));
    assert_non_null(strstr(output, "tokenize"));
    assert_int_equal(omni("run --surprise 2>&1"), 2);
    assert_non_null(strstr(output, "no such option"));
    assert_int_equal(omni("run --max-tokens -1 2>&1"), 2);
    assert_int_equal(omni("run 2>&1"), 2);
    assert_int_equal(omni("run --help"), 0);
    assert_non_null(strstr(output, "--min-p"));
}

static int set_up(void **state)
{
    (void)state;
    fake_router_start(&router, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_router_end(&router);
    fake_router_remove_dir(&router);
    return 0;
}

#define CLI_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLI_TEST(test_run_streams_a_raw_prompt),
        CLI_TEST(test_run_reports_in_the_order_of_the_file),
        CLI_TEST(test_run_names_the_line_at_fault),
        CLI_TEST(test_run_tells_which_request_failed),
        CLI_TEST(test_run_resumes_a_lost_session),
        CLI_TEST(test_run_sends_again_what_never_arrived),
        CLI_TEST(test_chat),
        CLI_TEST(test_newline_at_the_end),
        CLI_TEST(test_status_and_cancel),
        CLI_TEST(test_tokenize),
        cmocka_unit_test(test_nobody_answers),
        cmocka_unit_test(test_usage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
