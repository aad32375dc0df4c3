/* load_door.h - how a load reaches the server it loads: one interface, two doors.
 *
 * omni: a group's router, through the C client library.  http: a server that streams completions
 * as llama.cpp's does (POST /completion, server-sent events); a connection per request, never
 * blocking.  The load that stands behind them is the same code, so that two servers are asked and
 * timed in the same way.
 *
 * One thread.  Requests are known by the caller's number, which it does not give twice. */
#ifndef OMNI_TESTS_BENCH_LOAD_DOOR_H
#define OMNI_TESTS_BENCH_LOAD_DOOR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"

struct load_send {
    uint32_t number; /* the caller's name for it */
    const char *class_name;
    const uint32_t *prompt;
    uint32_t n_prompt, n_output;
    double ttft_slo_ms, tpot_slo_ms; /* own objectives; 0: none */
};

enum load_event_kind {
    LOAD_TOKENS,    /* n_tokens more; 0 where only text came */
    LOAD_DONE,      /* ended as asked */
    LOAD_CANCELLED, /* ended because of door_cancel */
    LOAD_REFUSED,   /* not taken, or given up by the server: it says that it is full */
    LOAD_FAILED,    /* ended by an error */
    LOAD_GONE,      /* the server is gone; nothing more comes, of any request */
};

/* Where the tokens of a request attended; all 0 where the server does not say. */
struct load_places {
    uint32_t device_tokens, worker_tokens;
    uint64_t ridealong_jobs, parked_jobs;
};

struct load_event {
    enum load_event_kind kind;
    uint32_t number; /* not of LOAD_GONE */
    uint32_t n_tokens;
    uint32_t retry_after_ms; /* LOAD_REFUSED; 0: not said */
    struct load_places places;
    char text[160]; /* of errors: for people */
};

struct load_door;

struct load_door_ops {
    /* 0; -EAGAIN: not now, take events first; another -errno: it never will. */
    int (*send)(struct load_door *door, const struct load_send *ask, struct error *error);
    /* Ends the request early; its end is still told. */
    void (*cancel)(struct load_door *door, uint32_t number);
    /* The next event, waiting at most so long.  False: none. */
    bool (*next)(struct load_door *door, uint32_t wait_ms, struct load_event *event);
    void (*close)(struct load_door *door);
};

struct load_door { /* first member of a door */
    const struct load_door_ops *ops;
};

/* The group of a configuration file.  0 or -errno. */
int door_omni_open(struct load_door **out, const char *config_path, struct error *error);

/* A server at 127.0.0.1:port.  0 or -errno. */
int door_http_open(struct load_door **out, uint16_t port, struct error *error);

#endif
