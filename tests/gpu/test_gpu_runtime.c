/* test_gpu_runtime.c - the stand-in for CUDA's runtime (shim/runtime.h): that it does what CUDA does, and
 * that the mistakes it is there to find are found. */
#include "tests/gpu/shim/runtime.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 1000, SEEDS = 20 };

static cudaStream_t stream_make(void)
{
    cudaStream_t s;

    assert_int_equal(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), 0);
    return s;
}

static cudaEvent_t event_make(void)
{
    cudaEvent_t e;

    assert_int_equal(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), 0);
    return e;
}

/* Adds to a word, as a kernel: argument and order are what is tested. */
struct add {
    uint32_t *word;
    uint32_t times, plus;
};

static cudaError_t add_run(void *arg)
{
    struct add *a = arg;

    *a->word = *a->word * a->times + a->plus;
    return cudaSuccess;
}

static void add(cudaStream_t s, uint32_t *word, uint32_t times, uint32_t plus)
{
    const struct add a = {.word = word, .times = times, .plus = plus};

    assert_int_equal(shim_stream_run(s, add_run, &a, sizeof a), 0);
}

static uint32_t word_read(const uint32_t *device)
{
    uint32_t v;

    assert_int_equal(cudaMemcpy(&v, device, sizeof v, cudaMemcpyDeviceToHost), 0);
    return v;
}

static uint32_t *word_make(uint32_t v)
{
    void *p;

    assert_int_equal(cudaMalloc(&p, sizeof v), 0);
    assert_int_equal(cudaMemcpy(p, &v, sizeof v, cudaMemcpyHostToDevice), 0);
    return p;
}

static void test_device_memory_is_not_the_hosts(void **state)
{
    uint32_t *word = word_make(7);
    int status;

    (void)state;
    assert_int_equal(word_read(word), 7);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit((int)*(volatile uint32_t *)word);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    /* A sanitizer ends it with a code of its own. */
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 7);
    cudaFree(word);
}

static void test_fresh_memory_is_no_number(void **state)
{
    void *p;
    float v;

    (void)state;
    assert_int_equal(cudaMalloc(&p, N * sizeof v), 0);
    assert_int_equal(cudaMemcpy(&v, (float *)p + N - 1, sizeof v, cudaMemcpyDeviceToHost), 0);
    assert_true(v != v);
    cudaFree(p);
}

/* What is not waited for has not happened, at least with some seed. */
static void test_a_missing_wait_shows(void **state)
{
    uint32_t n_late = 0;

    (void)state;
    for (uint32_t seed = 0; seed < SEEDS; seed++) {
        shim_runtime_reset(seed, 1);
        cudaStream_t s = stream_make();
        uint32_t *word = word_make(1);

        add(s, word, 1, 4);
        (void)cudaStreamQuery(s);
        n_late += word_read(word) == 1;
        assert_int_equal(cudaStreamSynchronize(s), 0);
        assert_int_equal(word_read(word), 5);
        cudaStreamDestroy(s);
        cudaFree(word);
    }
    assert_true(n_late > 0 && n_late < SEEDS);
}

/* Two streams that nothing orders run in either order; an event orders them. */
static void test_events_order_streams(void **state)
{
    uint32_t seen[2] = {0, 0};

    (void)state;
    for (uint32_t seed = 0; seed < 2 * SEEDS; seed++) {
        shim_runtime_reset(seed, 1);
        cudaStream_t a = stream_make(), b = stream_make();
        cudaEvent_t e = event_make();
        uint32_t *word = word_make(1);

        add(a, word, 2, 0);
        assert_int_equal(cudaEventRecord(e, a), 0);
        if (seed % 2 == 0)
            assert_int_equal(cudaStreamWaitEvent(b, e, 0), 0);
        add(b, word, 1, 3);
        assert_int_equal(cudaDeviceSynchronize(), 0);
        uint32_t v = word_read(word);
        if (seed % 2 == 0)
            assert_int_equal(v, 5);
        else
            seen[v == 5]++;
        cudaStreamDestroy(a);
        cudaStreamDestroy(b);
        cudaEventDestroy(e);
        cudaFree(word);
    }
    assert_true(seen[0] > 0 && seen[1] > 0);
}

static void test_async_copies_need_pinned_memory(void **state)
{
    static uint32_t here[N];
    void *pinned, *device;

    (void)state;
    shim_runtime_reset(1, 1);
    cudaStream_t s = stream_make();
    assert_int_equal(cudaMalloc(&device, sizeof here), 0);
    assert_int_equal(cudaHostAlloc(&pinned, sizeof here, cudaHostAllocDefault), 0);
    assert_int_equal(cudaMemcpyAsync(device, here, sizeof here, cudaMemcpyHostToDevice, s),
                     cudaErrorInvalidValue);
    assert_string_not_equal(shim_runtime_error(), "");
    assert_int_equal(cudaHostRegister(here, sizeof here, cudaHostRegisterDefault), 0);
    assert_int_equal(cudaMemcpyAsync(device, here, sizeof here, cudaMemcpyHostToDevice, s), 0);
    assert_int_equal(cudaMemcpyAsync(pinned, device, sizeof here + 1, cudaMemcpyDeviceToHost, s),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(pinned, device, sizeof here, cudaMemcpyHostToDevice, s),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(pinned, device, sizeof here, cudaMemcpyDeviceToHost, s), 0);
    here[N - 1] = 9; /* still to be read by the copy, or the copy has run: then it is too late */
    assert_int_equal(cudaStreamSynchronize(s), 0);
    assert_int_equal(((uint32_t *)pinned)[N - 1], 9);
    here[N - 1] = 0;
    assert_int_equal(cudaHostUnregister(here), 0);
    cudaStreamDestroy(s);
    cudaFree(device);
    cudaFreeHost(pinned);
}

static void test_graphs_replay_their_arguments(void **state)
{
    cudaGraphExecUpdateResultInfo info;
    cudaGraphExec_t exec;
    cudaGraph_t graph;
    void *p;

    (void)state;
    shim_runtime_reset(2, 1);
    cudaStream_t s = stream_make();
    uint32_t *word = word_make(1);
    assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), 0);
    add(s, word, 2, 1);
    add(s, word, 1, 3);
    assert_int_equal(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(s, &graph), 0);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), 0);
    cudaGraphDestroy(graph);
    assert_int_equal(word_read(word), 1);
    assert_int_equal(cudaGraphLaunch(exec, s), 0);
    assert_int_equal(cudaGraphLaunch(exec, s), 0);
    assert_int_equal(cudaStreamSynchronize(s), 0);
    assert_int_equal(word_read(word), 16); /* 1 -> 6 -> 16 */
    assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), 0);
    add(s, word, 0, 1);
    add(s, word, 1, 1);
    assert_int_equal(cudaStreamEndCapture(s, &graph), 0);
    assert_int_equal(cudaGraphExecUpdate(exec, graph, &info), 0);
    cudaGraphDestroy(graph);
    assert_int_equal(cudaGraphLaunch(exec, s), 0);
    assert_int_equal(cudaStreamSynchronize(s), 0);
    assert_int_equal(word_read(word), 2);
    cudaGraphExecDestroy(exec);
    cudaStreamDestroy(s);
    cudaFree(word);
}

static void ring(void *arg)
{
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
}

static void test_a_gpu_of_its_own_runs_by_itself(void **state)
{
    int rung = 0;

    (void)state;
    shim_runtime_reset(3, 1);
    cudaStream_t s = stream_make();
    uint32_t *word = word_make(1);
    shim_runtime_background(true);
    add(s, word, 1, 1);
    assert_int_equal(cudaLaunchHostFunc(s, ring, &rung), 0);
    for (int i = 0; i < 10000 && __atomic_load_n(&rung, __ATOMIC_ACQUIRE) == 0; i++)
        usleep(1000);
    assert_int_equal(__atomic_load_n(&rung, __ATOMIC_ACQUIRE), 1);
    shim_runtime_background(false);
    assert_int_equal(word_read(word), 2);
    cudaStreamDestroy(s);
    cudaFree(word);
}

static cudaError_t launch_fails(void *arg)
{
    (void)arg;
    return cudaErrorLaunchFailure;
}

static void test_errors(void **state)
{
    void *p;
    int n;

    (void)state;
    shim_runtime_reset(4, -1);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    shim_runtime_reset(4, 1);
    shim_runtime_set_memory(1 << 20);
    assert_int_equal(cudaMalloc(&p, (1 << 20) + 1), cudaErrorMemoryAllocation);
    shim_runtime_fail("cudaMalloc", cudaErrorMemoryAllocation);
    assert_int_equal(cudaMalloc(&p, 1), cudaErrorMemoryAllocation);
    assert_int_equal(cudaMalloc(&p, 1), 0);
    cudaStream_t s = stream_make();
    assert_int_equal(shim_stream_run(s, launch_fails, "", 1), 0);
    assert_int_equal(cudaStreamSynchronize(s), cudaErrorLaunchFailure);
    assert_int_equal(cudaStreamSynchronize(s), cudaErrorLaunchFailure); /* until the reset */
    shim_runtime_reset(4, 1);
    assert_int_equal(shim_runtime_n_live(), 2);
    cudaStreamDestroy(s);
    cudaFree(p);
    assert_int_equal(shim_runtime_n_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_memory_is_not_the_hosts),
        cmocka_unit_test(test_fresh_memory_is_no_number),
        cmocka_unit_test(test_a_missing_wait_shows),
        cmocka_unit_test(test_events_order_streams),
        cmocka_unit_test(test_async_copies_need_pinned_memory),
        cmocka_unit_test(test_graphs_replay_their_arguments),
        cmocka_unit_test(test_a_gpu_of_its_own_runs_by_itself),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
