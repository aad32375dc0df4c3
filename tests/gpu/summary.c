/* summary.c - see summary.h. */
#include "tests/gpu/summary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct figure {
    const char *key;
    const char *unit;
    const char *what;
};

/* In the order of the table and of the last line: what the design and the CUDA device are decided
 * by. */
static const struct figure FIGURES[] = {
    {"copy_gbps", "GB/s", "device copy, read + written"},
    {"read_gbps", "GB/s", "device read"},
    {"gemm_bf16_tflops", "TFLOP/s", "bf16 GEMM 8192^3"},
    {"gemm_rows1_gbps", "GB/s", "bf16 GEMM, 1 row, weights streamed"},
    {"gemm_rows64_gbps", "GB/s", "bf16 GEMM, 64 rows, weights streamed"},
    {"kernel_checks", "", "kernels that agree with their references"},
    {"decode_attn_pct", "%", "decode attention, 64 x 4k, GQA 8, of bandwidth"},
    {"decode_attn_gqa4_pct", "%", "decode attention, 64 x 4k, GQA 4"},
    {"decode_attn_32k_pct", "%", "decode attention, 8 x 32k, GQA 8"},
    {"decode_attn_i8_pct", "%", "decode attention, 64 x 4k, GQA 8, 8 bits"},
    {"prefill_attn_pct", "%", "prefill attention, 4k causal, of the GEMM rate"},
    {"torch_flash_pct", "%", "torch's FLASH beside it, of the GEMM rate"},
    {"torch_cudnn_pct", "%", "torch's CUDNN beside it, of the GEMM rate"},
    {"gemv_rows1_pct", "%", "GEMV, 1 row, of bandwidth"},
    {"gemv_rows8_pct", "%", "GEMV, 8 rows, of bandwidth"},
    {"dense_rows1_pct", "%", "a layer's products, 1 row, of bandwidth"},
    {"dense_rows8_pct", "%", "a layer's products, 8 rows, of bandwidth"},
    {"dense_rows16_pct", "%", "a layer's products, 16 rows, of bandwidth"},
    {"dense_rows64_pct", "%", "a layer's products, 64 rows, of bandwidth"},
    {"tpot_b1_ratio", "x", "decode step, 8B, batch 1, 512: to the bytes read"},
    {"tpot_b64_ratio", "x", "decode step, 8B, batch 64, 2k: to the bytes read"},
    {"step_b1_us", "us", "decode step, batch 1"},
    {"step_b16_us", "us", "decode step, batch 16, 1k"},
    {"step_b64_us", "us", "decode step, batch 64"},
    {"vs_torch_b1", "x", "PyTorch's step by ours, batch 1"},
    {"vs_torch_b16", "x", "PyTorch's step by ours, batch 16"},
    {"vs_torch_b64", "x", "PyTorch's step by ours, batch 64"},
    {"out8_us", "us", "8 jobs out, added to a layer"},
    {"in8_us", "us", "8 results picked and in, added to a layer"},
    {"out400_ratio", "x", "400 jobs out, to 10 us and their bytes"},
    {"in400_ratio", "x", "400 results in, to 10 us and their bytes"},
    {"out400_staged_us", "us", "400 jobs out, staged in device memory"},
    {"in400_staged_us", "us", "400 results in, staged in device memory"},
    {"copyout_pct", "%", "KV copy out beside steps, of it alone"},
    {"copyout_step_pct", "%", "what a copy out adds to a step"},
    {"sampling_greedy_rows1_us", "us", "sampling, 128k tokens, greedy, 1 row"},
    {"sampling_top_p_rows64_us", "us", "sampling, 128k tokens, top-p, 64 rows"},
    {"pick_us", "us", "pick step: 400 slots, 8 rows back"},
    {"h2d_gbps", "GB/s", "copy engine, host to device"},
    {"d2h_gbps", "GB/s", "copy engine, device to host"},
    {"duplex_gbps", "GB/s", "copy engines, both ways together"},
    {"zc_read_gbps", "GB/s", "kernel reads pinned memory"},
    {"zc_write_gbps", "GB/s", "kernel writes pinned memory"},
    {"zc_duplex_gbps", "GB/s", "kernels, both ways together"},
    {"zc_rows_out_8k_x8_us", "us", "kernel writes 8 rows of 8 KiB"},
    {"zc_rows_in_8k_x8_us", "us", "kernel reads 8 rows of 8 KiB"},
    {"zc_rows_out_8k_x400_us", "us", "kernel writes 400 rows of 8 KiB"},
    {"zc_rows_in_8k_x400_us", "us", "kernel reads 400 rows of 8 KiB"},
    {"pinned_load_us", "us", "one load of pinned memory"},
    {"poll_words1024_us", "us", "one block reads 1024 done words"},
    {"flag_rtt_us", "us", "flag round trip, median"},
    {"flag_rtt_p99_us", "us", "flag round trip, p99"},
    {"flag_payload8k_rtt_us", "us", "8 KiB there and back, median"},
    {"kernel_end_host_writes", "", "kernel's end and its host writes"},
    {"graph320_launch_us", "us", "graph of 320 nodes, host per launch"},
    {"graph320_node_us", "us", "graph of 320 nodes, device per node"},
    {"plain_launch_us", "us", "plain launch, host"},
    {"register_1g_s_per_gb", "s/GB", "cudaHostRegister, shared memory"},
    {"unregister_1g_s_per_gb", "s/GB", "cudaHostUnregister"},
    {"ipc_open_us", "us", "CUDA IPC open"},
    {"ipc_read_gbps", "GB/s", "device read through CUDA IPC"},
};
enum { N_FIGURES = sizeof FIGURES / sizeof FIGURES[0] };

static const char *figure_value(const struct report_table *table, const struct figure *figure)
{
    const char *value = report_find(table, figure->key);
    if (!value)
        return "none";
    return strncmp(value, "error:", 6) ? value : "error";
}

static void table_write(struct report *report, const struct report_table *table)
{
    const char *device = report_find(table, "device");
    report_line(report, "\n%s", device ? device : "unknown device");
    for (size_t i = 0; i < N_FIGURES; i++)
        report_line(report, "  %-48s %12s %s", FIGURES[i].what, figure_value(table, &FIGURES[i]),
                    FIGURES[i].unit);
    for (size_t i = 0; i < table->n; i++)
        if (!strncmp(table->entry[i].value, "error:", 6))
            report_line(report, "  failed: %s (%s)", table->entry[i].key,
                        table->entry[i].value + 6);
    report_line(report, "%s", "");
}

static void last_line_write(struct report *report, const struct report_table *table)
{
    char line[4000];
    size_t n = 0;
    for (size_t i = 0; i < N_FIGURES && n < sizeof line; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, "%s%s=%s", i ? " " : "", FIGURES[i].key,
                              figure_value(table, &FIGURES[i]));
    report_line(report, "%s", line);
}

int summary_write(struct report *report, const char *path)
{
    struct report_table *table = malloc(sizeof *table);
    int n_errors = 1;
    const int rc = table ? report_load(path, table) : -1;
    if (rc) {
        report_error(report, "summary", "%s", "the results file cannot be read back");
    } else {
        n_errors = (int)report_count_errors(table);
        table_write(report, table);
        last_line_write(report, table);
    }
    free(table);
    return n_errors;
}
