/* Every offset that the layout headers write down, as an assertion: whoever moves a field finds out
 * here, before two processes disagree.  A moved field is a new layout version of its kind. */
#include "common/shm/layout.h"
#include "common/shm/layout_arena.h"
#include "common/shm/layout_directory.h"
#include "common/shm/layout_jobs.h"
#include "common/shm/layout_stats.h"

#define AT(type, field, off)                                                                       \
    static_assert(offsetof(struct type, field) == (off), #type "." #field " moved")

AT(segment_header, magic, 0);
AT(segment_header, kind, 8);
AT(segment_header, layout_version, 12);
AT(segment_header, total_bytes, 16);
AT(segment_header, geometry_hash, 24);
AT(segment_header, creator_uid, 32);
AT(segment_header, creator_pid, 36);
AT(segment_header, created_ns, 40);
AT(segment_header, reserved0, 48);
AT(segment_header, state, 64);
AT(segment_header, reserved1, 68);
AT(segment_header, epoch, 72);
AT(segment_header, reserved2, 80);

AT(bell_shared, sleeping, 0);
AT(bell_shared, word, 64);

AT(ring_shared, capacity, 0);
AT(ring_shared, head, 64);
AT(ring_shared, tail, 128);

AT(engine_shared, header, 0);
AT(engine_shared, pid, 128);
AT(engine_shared, epoch, 132);
AT(engine_shared, start_ticks, 136);
AT(engine_shared, alive_ns, 144);
AT(engine_shared, progress, 152);
AT(engine_shared, done_bell, 192);

AT(job_table_layout, n_slots, 0);
AT(job_table_layout, n_q_max, 4);
AT(job_table_layout, element, 8);
AT(job_table_layout, n_layers, 12);
AT(job_table_layout, q_width, 16);
AT(job_table_layout, k_width, 20);
AT(job_table_layout, v_width, 24);
AT(job_table_layout, out_width, 28);
AT(job_table_layout, posted_ring_off, 32);
AT(job_table_layout, done_ring_off, 36);
AT(job_table_layout, done_off, 40);
AT(job_table_layout, slots_off, 44);
AT(job_table_layout, in_off, 48);
AT(job_table_layout, out_off, 56);
AT(job_table_layout, in_stride, 64);
AT(job_table_layout, out_stride, 68);
AT(job_table_layout, k_off, 72);
AT(job_table_layout, v_off, 76);
AT(job_table_layout, total_bytes, 80);
AT(job_table_layout, reserved, 88);

AT(job_table_shared, header, 0);
AT(job_table_shared, layout, 128);
AT(job_table_shared, requested_epoch, 256);
AT(job_table_shared, post_overflows, 260);
AT(job_table_shared, posted, 264);
AT(job_table_shared, roused, 272);
AT(job_table_shared, worker_pid, 320);
AT(job_table_shared, acked_epoch, 324);
AT(job_table_shared, start_ticks, 328);
AT(job_table_shared, alive_ns, 336);
AT(job_table_shared, progress, 344);
AT(job_table_shared, done_overflow, 352);
AT(job_table_shared, jobs_done, 384);
AT(job_table_shared, jobs_rerun, 392);
AT(job_table_shared, hints_stale, 400);
AT(job_table_shared, jobs_refused, 408);
AT(job_table_shared, busy_ns, 416);
AT(job_table_shared, kv_bytes_read, 424);
AT(job_table_shared, bytes_per_s, 432);
AT(job_table_shared, attaches, 440);
AT(job_table_shared, posted_bell, 448);

AT(job_slot, word, 0);
AT(job_slot, seq_idx, 8);
AT(job_slot, seq_gen, 12);
AT(job_slot, layer, 16);
AT(job_slot, n_q, 20);
AT(job_slot, pos, 24);
AT(job_slot, ctx_len, 28);
AT(job_slot, deadline_ns, 32);
AT(job_slot, posted_ns, 40);
AT(job_slot, sweep, 48);
AT(job_slot, start_ns, 64);
AT(job_slot, end_ns, 72);
AT(job_slot, status, 80);

AT(arena_shared, header, 0);
AT(arena_shared, n_blocks, 128);
AT(arena_shared, owners_off, 136);
AT(arena_shared, blocks_off, 144);
AT(arena_shared, geometry, 192);

AT(directory_shared, header, 0);
AT(directory_shared, n_entries, 128);
AT(directory_shared, n_groups, 132);
AT(directory_shared, blocks_max, 136);
AT(directory_shared, ctx_max, 140);
AT(directory_shared, block_tokens, 144);
AT(directory_shared, entry_stride, 148);
AT(directory_shared, blocks_off, 152);
AT(directory_shared, log_off, 156);
AT(directory_shared, entries_off, 160);
AT(directory_shared, model_hash, 168);

AT(sequence_params, seed, 0);
AT(sequence_params, ttft_slo_ns, 8);
AT(sequence_params, tpot_slo_ns, 16);
AT(sequence_params, adapter, 24);
AT(sequence_params, temperature, 32);
AT(sequence_params, top_p, 36);
AT(sequence_params, min_p, 40);
AT(sequence_params, top_k, 44);
AT(sequence_params, max_tokens, 48);
AT(sequence_params, class_idx, 52);
AT(sequence_params, repetition, 60);
AT(sequence_params, min_tokens, 72);
AT(sequence_params, flags, 56);

AT(directory_entry, generation, 0);
AT(directory_entry, committed, 4);
AT(directory_entry, prompt_len, 8);
AT(directory_entry, slot, 12);
AT(directory_entry, state, 16);
AT(directory_entry, n_blocks, 64);
AT(directory_entry, worker, 96);
AT(directory_entry, request_id, 128);
AT(directory_entry, model_hash, 144);
AT(directory_entry, geometry_hash, 152);
AT(directory_entry, admitted_ns, 160);
AT(directory_entry, params, 192);

AT(stats_shared, header, 0);
AT(stats_shared, n, 128);
AT(stats_shared, values_off, 132);
AT(stats_shared, names_off, 136);
AT(stats_shared, pid, 140);
AT(stats_shared, start_ticks, 144);
AT(stats_shared, program, 152);

AT(stats_name, name, 0);
AT(stats_name, kind, 48);
AT(stats_name, pad, 52);
AT(stats_name, doc, 56);
