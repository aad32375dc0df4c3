/* counters.h - what the router counts, from two lists: of the whole router, and of each class.
 *
 * Kept as plain numbers of the router's one thread (status replies read them) and copied into the
 * statistics page at every tick, so that a tool can look without asking.  The page is optional: a
 * router whose shared-memory directory cannot be used still serves. */
#ifndef OMNI_ROUTER_COUNTERS_H
#define OMNI_ROUTER_COUNTERS_H

#include "common/base/config.h"
#include "common/shm/stats.h"

/* X(NAME, "name", kind, "documentation") */
#define COUNTERS(X)                                                                                \
    X(SESSIONS, "sessions", STATS_GAUGE, "client sessions, dialled or not")                        \
    X(SESSIONS_OPENED, "sessions_opened", STATS_COUNTER, "hellos answered with a session")         \
    X(SESSIONS_MAX, "sessions_max", STATS_GAUGE,                                                   \
      "sessions at a time: configured, or what files allow")                                       \
    X(SESSIONS_REFUSED, "sessions_refused", STATS_COUNTER, "hellos refused")                       \
    X(SESSIONS_NOT_DIALLED, "sessions_not_dialled", STATS_COUNTER, "nobody came for them")         \
    X(CLIENTS_GONE, "clients_gone", STATS_COUNTER, "sessions ended by the client or its death")    \
    X(CLIENTS_SILENT, "clients_silent", STATS_COUNTER, "sessions ended by silence")                \
    X(CLIENTS_SLOW, "clients_slow", STATS_COUNTER, "clients disconnected: they did not read")      \
    X(BAD_MESSAGES, "bad_messages", STATS_COUNTER, "messages that were malformed or out of place") \
    X(MESSAGES_IN, "messages_in", STATS_COUNTER, "messages received, from clients and engines")    \
    X(TOKENS_IN, "tokens_in", STATS_COUNTER, "prompt tokens of accepted requests")                 \
    X(TOKENS_OUT, "tokens_out", STATS_COUNTER, "output tokens taken from engines")                 \
    X(ATTACHED, "attached", STATS_COUNTER, "requests taken up again by a generate")                \
    X(ENGINES_LOST, "engines_lost", STATS_COUNTER, "times an engine was lost")                     \
    X(REQUESTS_HELD, "requests_held", STATS_GAUGE, "requests and results in the table")            \
    X(CLOCK_JUMPS, "clock_jumps", STATS_COUNTER,                                                   \
      "times the log's wall clock jumped by a second or more")

/* Per class. */
#define CLASS_COUNTERS(X)                                                                          \
    X(QUEUED, "queued", STATS_GAUGE, "requests in the queue")                                      \
    X(ACCEPTED, "accepted", STATS_COUNTER, "requests taken into the queue")                        \
    X(REFUSED, "refused", STATS_COUNTER, "requests refused at the door or by an engine")           \
    X(REQUEUED, "requeued", STATS_COUNTER, "times an engine sent one back for later")              \
    X(STOP, "stop", STATS_COUNTER, "ended by end of text or a stop string")                        \
    X(LENGTH, "length", STATS_COUNTER, "ended by max_tokens")                                      \
    X(CANCELLED, "cancelled", STATS_COUNTER, "cancelled, or the client was gone")                  \
    X(FAILED, "failed", STATS_COUNTER, "ended with an error after being accepted")                 \
    X(SLO_MET, "slo_met", STATS_COUNTER, "first class: ended, within both objectives")             \
    X(SLO_MISSED, "slo_missed", STATS_COUNTER, "first class: ended late, or failed while running") \
    X(TTFT_MISSED, "ttft_missed", STATS_COUNTER, "of them: the first token was late")              \
    X(TPOT_MISSED, "tpot_missed", STATS_COUNTER, "of them: the tokens after it were")

#define COUNTER_ENUM(NAME, name, kind, doc)       COUNTER_##NAME,
#define CLASS_COUNTER_ENUM(NAME, name, kind, doc) CLASS_##NAME,
enum counter { COUNTERS(COUNTER_ENUM) N_COUNTERS };
enum class_counter { CLASS_COUNTERS(CLASS_COUNTER_ENUM) N_CLASS_COUNTERS };

struct counters {
    uint32_t n_classes;
    uint64_t values[N_COUNTERS];
    uint64_t of_class[CONFIG_CLASSES_MAX][N_CLASS_COUNTERS];
    struct stats_page page; /* values NULL: none */
};

void counters_init(struct counters *c, uint32_t n_classes);

/* Creates the page in dir.  0 or -errno with err. */
int counters_open_page(struct counters *c, const char *dir,
                       char (*class_names)[CONFIG_CLASS_NAME_MAX], struct error *err);
void counters_fini(struct counters *c);

/* Copies all into the page. */
void counters_publish(struct counters *c);

const char *counter_name(enum counter i);
const char *class_counter_name(enum class_counter i);

#endif
