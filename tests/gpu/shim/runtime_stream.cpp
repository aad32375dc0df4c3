/* runtime_stream.cpp - the stand-in's streams, events and graphs: see runtime.h. */
#include <condition_variable>
#include <deque>
#include <memory>
#include <set>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <thread>
#include <time.h>
#include <vector>

#include "tests/gpu/shim/runtime_private.h"
#include "tests/gpu/shim/shim.h"

std::recursive_mutex shim_runtime_lock;

struct CUevent_st {
    uint64_t n_recorded, n_reached; /* records put on a stream, and those that ran */
    uint64_t ns;
};

namespace
{

struct operation {
    std::function<cudaError_t()> run; /* or, with an event: */
    CUevent_st *event;
    uint64_t turn; /* record number it is, or waits for */
    bool is_wait;
};
using operations = std::vector<operation>;

} // namespace

struct CUgraph_st {
    operations list;
};
struct CUgraphExec_st {
    operations list;
};
struct CUstream_st {
    std::deque<operation> queue;
    std::unique_ptr<CUgraph_st> captured; /* NULL: nothing is captured */
};

namespace
{

std::set<CUstream_st *> streams;
std::set<CUevent_st *> events;
uint32_t n_graphs;
uint64_t random_state, n_run;
int n_devices = 1;
cudaError_t sticky = cudaSuccess, last = cudaSuccess;
std::string error;
std::string planted_call;
cudaError_t planted_error;
bool running; /* an operation: host functions may not call CUDA */
std::thread background;
bool background_on;
std::condition_variable_any queued;

uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

uint64_t now_ns()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool can_run(const CUstream_st *s)
{
    if (s->queue.empty())
        return false;
    const operation &o = s->queue.front();
    return !o.is_wait || o.event->n_reached >= o.turn;
}

void execute(const operation &o)
{
    if (o.is_wait)
        return;
    if (o.event != NULL) {
        o.event->n_reached = o.turn > o.event->n_reached ? o.turn : o.event->n_reached;
        o.event->ns = now_ns();
        return;
    }
    if (sticky != cudaSuccess)
        return;
    shim_memory_open();
    running = true;
    const cudaError_t rc = o.run();
    running = false;
    shim_memory_close();
    n_run++;
    if (rc != cudaSuccess)
        sticky = shim_runtime_refuse(rc, "a kernel failed: %s", shim_error());
}

/* Runs one operation of a stream that can; false: there is none. */
bool step()
{
    CUstream_st *ready[64];
    uint32_t n = 0;
    for (CUstream_st *s : streams) {
        if (n < 64 && can_run(s))
            ready[n++] = s;
    }
    if (n == 0)
        return false;
    CUstream_st *s = ready[random_below(n)];
    const operation o = std::move(s->queue.front());
    s->queue.pop_front();
    execute(o);
    return true;
}

/* Runs what it takes until `done`. */
cudaError_t run_until(const std::function<bool()> &done)
{
    if (running)
        return shim_runtime_refuse(cudaErrorNotPermitted, "a host function waits for the GPU");
    shim_memory_open(); /* once for all: it takes longer than a small kernel */
    bool any = true;
    while (any && !done())
        any = step();
    shim_memory_close();
    if (!any)
        return shim_runtime_refuse(cudaErrorLaunchFailure,
                                   "streams wait for events that nobody will record");
    return sticky;
}

void some_steps()
{
    for (uint32_t n = running ? 0 : random_below(4); n > 0 && step(); n--)
        continue;
}

void run_in_background()
{
    std::unique_lock<std::recursive_mutex> guard(shim_runtime_lock);
    while (background_on) {
        if (!running && step()) {
            guard.unlock(); /* others come in between */
            std::this_thread::yield();
            guard.lock();
            continue;
        }
        queued.wait_for(guard, std::chrono::milliseconds(1));
    }
}

cudaError_t put(CUstream_st *s, operation &&o)
{
    if (s->captured != NULL && o.event != NULL)
        return shim_runtime_refuse(cudaErrorStreamCaptureUnsupported, "an event in a capture");
    if (s->captured != NULL)
        s->captured->list.push_back(std::move(o));
    else
        s->queue.push_back(std::move(o));
    queued.notify_all();
    return cudaSuccess;
}

} // namespace

/* ---- For tests ------------------------------------------------------------------------------------ */

cudaError_t shim_runtime_refuse(cudaError_t e, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (error.empty())
        error = text;
    last = e;
    return e;
}

cudaError_t shim_runtime_planted(const char *call)
{
    if (planted_call != call)
        return cudaSuccess;
    planted_call.clear();
    last = planted_error;
    return planted_error;
}

extern "C" void shim_runtime_reset(uint32_t seed, int n)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    random_state = seed + 1;
    n_devices = n < 0 ? 0 : n;
    sticky = last = cudaSuccess;
    n_run = 0;
    error.clear();
    planted_call.clear();
    shim_memory_reset();
}

extern "C" void shim_runtime_background(bool on)
{
    std::unique_lock<std::recursive_mutex> guard(shim_runtime_lock);
    if (on == background_on)
        return;
    background_on = on;
    if (on) {
        background = std::thread(run_in_background);
        return;
    }
    queued.notify_all();
    guard.unlock();
    background.join();
}

extern "C" const char *shim_runtime_error(void)
{
    return error.c_str();
}

extern "C" void shim_runtime_fail(const char *call, cudaError_t e)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    planted_call = call;
    planted_error = e;
}

extern "C" uint32_t shim_runtime_n_live(void)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    return shim_memory_n_live() + (uint32_t)(streams.size() + events.size()) + n_graphs;
}

extern "C" uint64_t shim_runtime_n_run(void)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    return n_run;
}

cudaError_t shim_enqueue(cudaStream_t s, const std::function<cudaError_t()> &run)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    if (s == NULL) {
        shim_memory_open();
        const cudaError_t rc = run();
        shim_memory_close();
        return rc;
    }
    if (streams.count(s) == 0)
        return shim_runtime_refuse(cudaErrorInvalidResourceHandle, "a launch in no stream");
    return put(s, {run, NULL, 0, false});
}

extern "C" cudaError_t shim_stream_run(cudaStream_t s, cudaError_t (*fn)(void *), const void *arg,
                                       size_t bytes)
{
    const auto copy =
        std::make_shared<std::vector<uint8_t>>((const uint8_t *)arg, (const uint8_t *)arg + bytes);
    return shim_enqueue(s, [=] { return fn(copy->data()); });
}

bool shim_stream_any_capture(void)
{
    for (const CUstream_st *s : streams) {
        if (s->captured != NULL)
            return true;
    }
    return false;
}

/* ---- Devices and errors --------------------------------------------------------------------------- */

extern "C" const char *cudaGetErrorName(cudaError_t e)
{
    static thread_local char name[32];
    snprintf(name, sizeof name, "cudaError%d", (int)e);
    return name;
}

extern "C" const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorNoDevice ? "no CUDA-capable device is detected"
                                  : (error.empty() ? "stand-in" : error.c_str());
}

extern "C" cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last;
    last = cudaSuccess;
    return e;
}

extern "C" cudaError_t cudaPeekAtLastError(void)
{
    return last;
}

extern "C" cudaError_t cudaGetDeviceCount(int *n)
{
    SHIM_CALL("cudaGetDeviceCount");
    *n = n_devices;
    return n_devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

extern "C" cudaError_t cudaSetDevice(int device)
{
    SHIM_CALL("cudaSetDevice");
    return device >= 0 && device < n_devices ? cudaSuccess : cudaErrorInvalidDevice;
}

extern "C" cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    SHIM_CALL("cudaGetDeviceProperties");
    if (device < 0 || device >= n_devices)
        return cudaErrorInvalidDevice;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "stand-in");
    cudaMemGetInfo(&out->totalGlobalMem, &out->totalGlobalMem);
    out->major = 8;
    out->multiProcessorCount = 4;
    out->sharedMemPerBlockOptin = 99 << 10;
    out->canMapHostMemory = 1;
    return cudaSuccess;
}

extern "C" cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp p;
    const cudaError_t rc = cudaGetDeviceProperties(&p, device);
    *out = attribute == cudaDevAttrMultiProcessorCount      ? p.multiProcessorCount
           : attribute == cudaDevAttrComputeCapabilityMajor ? p.major
           : attribute == cudaDevAttrComputeCapabilityMinor ? p.minor
                                                            : (int)p.sharedMemPerBlockOptin;
    return rc;
}

extern "C" cudaError_t cudaDriverGetVersion(int *out)
{
    *out = 13000;
    return cudaSuccess;
}

extern "C" cudaError_t cudaRuntimeGetVersion(int *out)
{
    *out = 13000;
    return cudaSuccess;
}

/* ---- Streams -------------------------------------------------------------------------------------- */

extern "C" cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    SHIM_CALL("cudaStreamCreateWithFlags");
    if (flags != cudaStreamNonBlocking)
        return shim_runtime_refuse(cudaErrorNotSupported, "only streams that do not block");
    streams.insert(*out = new CUstream_st);
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(out, flags);
}

extern "C" cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    SHIM_CALL("cudaStreamDestroy");
    if (streams.count(s) == 0)
        return shim_runtime_refuse(cudaErrorInvalidResourceHandle, "cudaStreamDestroy");
    run_until([=] { return s->queue.empty(); });
    streams.erase(s);
    delete s;
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    SHIM_CALL("cudaStreamSynchronize");
    if (streams.count(s) == 0 || s->captured != NULL)
        return shim_runtime_refuse(cudaErrorInvalidResourceHandle, "cudaStreamSynchronize");
    return run_until([=] { return s->queue.empty(); });
}

extern "C" cudaError_t cudaDeviceSynchronize(void)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaDeviceSynchronize");
    return run_until([] {
        for (const CUstream_st *s : streams) {
            if (!s->queue.empty())
                return false;
        }
        return true;
    });
}

extern "C" cudaError_t cudaStreamQuery(cudaStream_t s)
{
    SHIM_CALL("cudaStreamQuery");
    some_steps();
    return sticky != cudaSuccess ? sticky : s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

extern "C" cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *arg)
{
    SHIM_CALL("cudaLaunchHostFunc");
    return shim_enqueue(s, [=] {
        fn(arg);
        return cudaSuccess;
    });
}

/* ---- Events --------------------------------------------------------------------------------------- */

extern "C" cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    SHIM_CALL("cudaEventCreateWithFlags");
    events.insert(*out = new CUevent_st());
    return cudaSuccess;
}

extern "C" cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    SHIM_CALL("cudaEventDestroy");
    if (events.count(e) == 0)
        return shim_runtime_refuse(cudaErrorInvalidResourceHandle, "cudaEventDestroy");
    run_until([=] { return e->n_reached == e->n_recorded; });
    events.erase(e);
    delete e;
    return cudaSuccess;
}

extern "C" cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    SHIM_CALL("cudaEventRecord");
    return put(s, {nullptr, e, ++e->n_recorded, false});
}

extern "C" cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    SHIM_CALL("cudaStreamWaitEvent");
    return put(s, {nullptr, e, e->n_recorded, true});
}

extern "C" cudaError_t cudaEventQuery(cudaEvent_t e)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaEventQuery");
    some_steps();
    if (sticky != cudaSuccess)
        return sticky;
    return e->n_reached == e->n_recorded ? cudaSuccess : cudaErrorNotReady;
}

extern "C" cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaEventSynchronize");
    return run_until([=] { return e->n_reached == e->n_recorded; });
}

extern "C" cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    SHIM_CALL("cudaEventElapsedTime");
    if (from->n_reached == 0 || to->n_reached == 0)
        return cudaErrorInvalidResourceHandle;
    if (from->n_reached != from->n_recorded || to->n_reached != to->n_recorded)
        return cudaErrorNotReady;
    *ms = (float)((double)to->ns - (double)from->ns) * 1e-6f;
    return cudaSuccess;
}

/* ---- Graphs --------------------------------------------------------------------------------------- */

extern "C" cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaStreamBeginCapture");
    s->captured = std::make_unique<CUgraph_st>();
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    SHIM_CALL("cudaStreamEndCapture");
    *out = s->captured.release();
    if (*out == NULL)
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaStreamEndCapture: none began");
    n_graphs++;
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *out)
{
    SHIM_CALL("cudaStreamIsCapturing");
    *out = s->captured != NULL ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *, size_t *n)
{
    *n = g->list.size();
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    SHIM_CALL("cudaGraphDestroy");
    n_graphs--;
    delete g;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long)
{
    SHIM_CALL("cudaGraphInstantiate");
    *out = new CUgraphExec_st{g->list};
    n_graphs++;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t g,
                                           cudaGraphExecUpdateResultInfo *result)
{
    SHIM_CALL("cudaGraphExecUpdate");
    result->result = exec->list.size() == g->list.size() ? 0 : 1;
    if (result->result != 0)
        return cudaErrorInvalidValue;
    exec->list = g->list;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    SHIM_CALL("cudaGraphUpload");
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    SHIM_CALL("cudaGraphLaunch");
    for (const operation &o : exec->list)
        put(s, operation(o));
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    SHIM_CALL("cudaGraphExecDestroy");
    n_graphs--;
    delete exec;
    return cudaSuccess;
}
