/* config_table.h - every option of the group, one row each; included by config.h only.
 *
 *   X(section, key, type, default, min, max, unit, documentation)
 *
 * Types: U32 (a k, m or g after the number multiplies by 1024, 1024^2, 1024^3), MS, BOOL (yes/no),
 * STRING (min and max are lengths), ENUM (unit holds the names, separated by '|', in the order of
 * the C enum).  Defaults are text, parsed like a file's. */
#ifndef OMNI_COMMON_BASE_CONFIG_TABLE_H
#define OMNI_COMMON_BASE_CONFIG_TABLE_H

#define CONFIG_TABLE(X)                                                                            \
    CONFIG_TABLE_GROUP(X)                                                                          \
    CONFIG_TABLE_SLO(X)                                                                            \
    CONFIG_TABLE_TENANTS(X)                                                                        \
    CONFIG_TABLE_ENGINE(X) CONFIG_TABLE_WORKER(X) CONFIG_TABLE_ROUTER(X)

/* clang-format off */
#define CONFIG_TABLE_GROUP(X)                                                                      \
    X(group, name, STRING, "omni", 1, 32, "",                                                      \
      "name of the group; two groups of different names share nothing")                            \
    X(group, n_engines, U32, "1", 1, 8, "", "engines: one per model replica")                      \
    X(group, n_workers, U32, "1", 0, 16, "", "attention workers: one per NUMA node as a rule")     \
    X(group, classes, STRING, "ls,be", 2, 120, "",                                                 \
      "request classes, highest first; the first is served within its SLO, the last may wait")     \
    X(run, dir, STRING, "", 0, 80, "",                                                             \
      "directory of sockets; empty: $XDG_RUNTIME_DIR/omni, else /tmp/omni-<uid>")                  \
    X(shm, dir, STRING, "", 0, 160, "",                                                            \
      "directory of shared memory; empty: /dev/shm/omni-<uid>; a hugetlbfs mount gives huge pages")\
    X(log, level, ENUM, "info", 0, 3, "debug|info|warn|error", "lowest level that is logged")      \
    X(model, path, STRING, "", 0, 255, "", "model file (GGUF)")

#define CONFIG_TABLE_SLO(X)                                                                        \
    X(slo, ttft_ms, MS, "2000", 1, 3600000, "ms",                                                  \
      "objective of the first class: arrival to first token, for requests without their own")      \
    X(slo, tpot_ms, MS, "200", 1, 3600000, "ms",                                                   \
      "objective of the first class: mean gap after the first token")                              \
    X(slo, use_pct, U32, "90", 10, 100, "%",                                                       \
      "share of the token objective that a sweep may be predicted to take")                        \
    X(slo, admission, BOOL, "yes", 0, 1, "",                                                       \
      "refuse first-class requests that would be late; no: only those that can never fit")         \
    X(slo, ls_target_pct, U32, "100", 1, 100, "%",                                                 \
      "share of the first class's requests to be within both objectives; 100: each")               \
    X(slo, deadlines, ENUM, "gap", 0, 1, "gap|token",                                              \
      "tokens are due tpot_ms after the one before, or token k at ttft_ms + k x tpot_ms")          \
    X(slo, output_pct, U32, "90", 0, 100, "%",                                                     \
      "KV is kept for the output that so many requests stayed below; 0: for max_tokens")           \
    X(slo, be_starved_ms, MS, "10000", 0, 86400000, "ms",                                          \
      "best effort that got nothing for so long goes first among best effort; 0: never")           \
    X(slo, be_settle_ms, MS, "2000", 0, 3600000, "ms",                                             \
      "shortest time between two moves of a best-effort request")

#define CONFIG_TABLE_TENANTS(X)                                                                    \
    X(tenants, weights, STRING, "", 0, 255, "",                                                    \
      "name:weight,... of tenants, who share each class by weight; empty: all are one")            \
    X(tenants, others, U32, "1", 1, 9999, "", "weight of those that are not named, together")

#define CONFIG_TABLE_ENGINE(X)                                                                     \
    X(engine, device, ENUM, "cpu", 0, 3, "cpu|cuda|sim|auto", "what computes the dense layers")    \
    X(engine, weights, ENUM, "file", 0, 1, "file|dummy",                                           \
      "cuda: the model's weights, or random ones in its shapes")                                   \
    X(engine, kv_type, ENUM, "f16", 0, 3, "f16|bf16|f32|int8", "type of keys and values")          \
    X(engine, kv_blocks, U32, "0", 0, 16777216, "blocks",                                          \
      "KV pool of the device; 0: as many as fit into kv_mb")                                       \
    X(engine, kv_mb, U32, "256", 0, 16777216, "MiB",                                               \
      "KV pool of the device, unless kv_blocks; 0: cuda takes what is free")                       \
    X(engine, block_tokens, U32, "64", 32, 1024, "tokens", "tokens per KV block, a multiple of 32")\
    X(engine, layer_groups, U32, "1", 1, 8, "", "layer groups whose KV is placed apart")           \
    X(engine, max_seqs, U32, "256", 1, 4096, "", "sequences admitted at a time")                   \
    X(engine, ctx_max, U32, "0", 0, 1048576, "tokens",                                             \
      "longest sequence, prompt and output; 0: the model's own limit, at most 8192")               \
    X(engine, chunk_tokens, U32, "256", 1, 65536, "tokens", "prefill chunk of a sweep")            \
    X(engine, batch_tokens_max, U32, "512", 1, 65536, "rows", "rows of a sweep's dense batch")     \
    X(engine, p_max, U32, "16", 0, 4096, "rows", "returned rows merged at most per layer")         \
    X(engine, offload, ENUM, "auto", 0, 2, "auto|always|never",                                    \
      "where best-effort decodes attend: auto = on the device while its KV lasts")                 \
    X(engine, policy, ENUM, "omni", 0, 7,                                                          \
      "group|omni|paper|ls-first|harvest|sync|headroom|stream",                                    \
      "who computes, moves and waits: omni = by price, group = the rule of engine.offload")                   \
    X(engine, without, STRING, "", 0, 100, "",                                                     \
      "ideas that policy omni does without, for measurements, e.g. two-batch,waiting")             \
    X(engine, auto_free_pct, U32, "10", 0, 100, "%",                                               \
      "share of the device's KV blocks that is kept free for the first class to grow")             \
    X(engine, headroom_pct, U32, "10", 0, 100, "%",                                                \
      "policy headroom: share of the device's KV blocks that best effort may not begin in")        \
    X(engine, token_budget, U32, "0", 0, 65536, "rows",                                            \
      "policies ls-first and headroom: rows of a sweep; 0: what the objective has time for")       \
    X(engine, threads, U32, "0", 0, 256, "", "compute threads; 0: what the topology gives")        \
    X(engine, cpus, STRING, "", 0, 200, "",                                                        \
      "cpus of each engine, separated by '|', e.g. 0-7|16-23; empty: what the topology gives")     \
    X(engine, numa_bind, BOOL, "yes", 0, 1, "",                                                    \
      "pin engines and workers, bind their memory to NUMA nodes; no: the kernel decides")          \
    X(engine, profile, ENUM, "auto", 0, 2, "auto|fresh|off",                                       \
      "latency model: from profile_dir or measured at start, always measured, or none")            \
    X(engine, profile_dir, STRING, "", 0, 200, "",                                                 \
      "profiles; empty: $XDG_CACHE_HOME/omniserve/profiles, else ~/.cache/omniserve/profiles")     \
    X(engine, sweep_log, STRING, "", 0, 250, "",                                                   \
      "file for a line per sweep: load, predicted and measured times; empty: none")                \
    X(engine, ready_timeout_ms, MS, "60000", 100, 3600000, "ms",                                   \
      "longest wait for workers' acknowledgements at start")

#define CONFIG_TABLE_WORKER(X)                                                                     \
    X(worker, slots, U32, "64", 1, 4096, "", "job slots, and residual slots, per engine")          \
    X(worker, n_q_max, U32, "4", 1, 64, "rows", "most queries of one job")                         \
    X(worker, arena_mb, U32, "512", 1, 16777216, "MiB", "KV arena per engine and worker")          \
    X(worker, threads, U32, "0", 0, 256, "", "threads; 0: what the topology gives")                \
    X(worker, cpus, STRING, "", 0, 200, "",                                                        \
      "cpus of each worker, separated by '|', e.g. 8-15|24-31; empty: what the topology gives")    \
    X(worker, engine_shares, STRING, "1", 1, 60, "",                                               \
      "weights of the engines' shares of a worker's time, by index; the last goes for the rest")   \
    X(worker, spin_us, U32, "5000", 0, 10000, "us",                                                \
      "longest spin without a job, where both ends own their cores")                          \
    X(worker, nice, U32, "10", 0, 19, "", "nice value, unless its cores are reserved")             \
    X(worker, late_ms, MS, "200", 10, 600000, "ms", "a worker whose heartbeat is older is late")   \
    X(worker, kill_ms, MS, "10000", 0, 3600000, "ms",                                              \
      "a worker that is late for so long is killed; 0: never")

#define CONFIG_TABLE_ROUTER(X)                                                                     \
    X(router, queue_max, STRING, "64,256", 1, 100, "requests",                                     \
      "longest queue per class, in the order of group.classes; the last value goes for the rest")  \
    X(router, sessions_max, U32, "448", 1, 448, "", "client sessions")                             \
    X(router, lease_ms, MS, "2000", 100, 600000, "ms", "a silent client is gone after so long")    \
    X(router, slow_client_ms, MS, "5000", 10, 600000, "ms",                                        \
      "a client whose outbox is full for so long is disconnected")                                 \
    X(router, outbox_kb, U32, "256", 16, 1048576, "KiB", "outbox per session")                     \
    X(router, result_keep_s, U32, "60", 0, 86400, "s", "finished results are kept for late askers")\
    X(router, tcp_listen, STRING, "", 0, 100, "",                                                  \
      "address for clients over tcp, e.g. 127.0.0.1; empty: no tcp")                               \
    X(router, tcp_port, U32, "7470", 1, 65535, "", "tcp port of hello")                            \
    X(router, tcp_ports, STRING, "7500-7999", 3, 20, "", "tcp ports of sessions, first-last")
/* clang-format on */

#endif
