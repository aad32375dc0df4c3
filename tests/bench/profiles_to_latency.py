#!/usr/bin/env python3
"""Converts published GPU timings to profiles that `omni-sim run --profiles OUT` reads.

usage: profiles_to_latency.py PROFILES OUT      (PROFILES: a folder with vidur/ and llmservingsim/)

Dense products and collectives: vidur (A100, H100) and LLMServingSim (RTX 4090), the median of each
operation, summed over a layer.  Attention: vidur's Llama-2-70B on A100, of two ranks, and
LLMServingSim's, fitted in relative error.  What is not measured is scaled, and the name of the
variant says so:
  - Yi-34B from CodeLlama-34B, by weights of a layer
  - other numbers of ranks: attention by heads per rank
  - H200 from H100 (weights read faster by its bandwidth) and from A100 (attention, by bandwidth
    and peak)
  - PCIe all-reduce: 25 us + 1.5 bytes over 20 GB/s (no published measurement here)
  - LM head of vidur's models: its weights over the bandwidth that is reached, 80 % of the peak
"""
import csv
import gzip
import os
import sys

STEPS_MAX = 79
VALUE = 2
SWEEP_NS = 150e3  # the host's part, as omni-sim's own
ROW_NS = 10
OPS = ["input_layernorm", "attn_pre_proj", "attn_rope", "attn_post_proj",
       "post_attention_layernorm", "mlp_up_proj", "mlp_act", "mlp_down_proj", "add", "add"]
PRE = ["input_layernorm", "attn_pre_proj", "attn_rope"]


def rows_of(path):
    with gzip.open(path, "rt", newline="") as f:
        return list(csv.DictReader(f))


def fit(samples):
    """[(features, ns)] -> coefficients >= 0 of least relative error; drops what would be negative."""
    use = list(range(len(samples[0][0])))
    while use:
        n = len(use)
        a = [[0.0] * (n + 1) for _ in range(n)]
        for x, y in samples:
            f = [x[i] / y for i in use]
            for i in range(n):
                for j in range(n):
                    a[i][j] += f[i] * f[j]
                a[i][n] += f[i]
        for i in range(n):  # Gauss with pivots
            p = max(range(i, n), key=lambda r: abs(a[r][i]))
            a[i], a[p] = a[p], a[i]
            for r in range(n):
                if r != i and a[i][i] != 0:
                    k = a[r][i] / a[i][i]
                    a[r] = [u - k * v for u, v in zip(a[r], a[i])]
        c = [a[i][n] / a[i][i] if a[i][i] else 0 for i in range(n)]
        if min(c) >= 0:
            out = [0.0] * len(samples[0][0])
            for i, v in zip(use, c):
                out[i] = v
            return out
        use.pop(c.index(min(c)))
    raise SystemExit("profiles_to_latency.py: nothing to fit")


def stairs(points):
    """{rows: ns} -> at most STEPS_MAX steps, ascending, where the line between them errs most."""
    xs, ys, top = sorted(points), [], 0
    for x in xs:
        top = max(top, points[x])
        ys.append(top)
    keep = {0, len(xs) - 1}
    while len(keep) < min(STEPS_MAX, len(xs)):
        worst, at = 0, None
        k = sorted(keep)
        for lo, hi in zip(k, k[1:]):
            for i in range(lo + 1, hi):
                line = ys[lo] + (ys[hi] - ys[lo]) * (xs[i] - xs[lo]) / (xs[hi] - xs[lo])
                if abs(line - ys[i]) / ys[i] > worst:
                    worst, at = abs(line - ys[i]) / ys[i], i
        if at is None:
            break
        keep.add(at)
    return [(xs[i], ys[i]) for i in sorted(keep)]


def write(out, name, p):
    lines = ["omniserve_profile=1", "model_hash=%016x" % 0, "device=" + p["device"],
             "variant=" + p["variant"], "threads=1", "kv_type=bf16", "block_tokens=32",
             "rows_max=%d" % max(p["dense"]), "n_layers=%d" % p["layers"], "n_kinds=1",
             "kind_of=" + ",".join("0" for _ in range(p["layers"])), "fixed_ns=%g" % SWEEP_NS,
             "row_ns=%d" % ROW_NS]
    text = lambda s: " ".join("%d:%.9g" % step for step in s)
    lines += ["head=" + text(stairs(p["head"])), "kind.0.window=0", "kind.0.n_sinks=0",
              "kind.0.pre_share=%.9g" % p["pre_share"]]
    for field, v in zip(["pa_a", "pa_h", "pa_b", "da_a", "da_h", "da_b"], p["pa"] + p["da"]):
        lines.append("kind.0.%s=%.9g" % (field, v))
    lines.append("kind.0.dense=" + text(stairs(p["dense"])))
    path = os.path.join(out, name + ".profile")
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")
    print(path)


# ---- vidur ------------------------------------------------------------------------------------

def vidur_dense(root, gpu, model, ranks):
    """{rows: ns} of a layer, and the share before its attention; collectives apart."""
    path = "%s/vidur/data/profiling/compute/%s/%s/mlp.csv.gz" % (root, gpu, model)
    ns, pre = {}, {}
    for r in rows_of(path):
        if int(r["num_tensor_parallel_workers"]) != ranks:
            continue
        n = int(r["num_tokens"])
        v = lambda op: float(r["time_stats.%s.median" % op] or 0) * 1e6
        ns.setdefault(n, []).append(sum(v(op) for op in OPS))
        pre.setdefault(n, []).append(sum(v(op) for op in PRE))
    mean = lambda a: sum(a) / len(a)
    n = max(ns)
    return {k: mean(v) for k, v in ns.items()}, mean(pre[n]) / mean(ns[n])


def vidur_all_reduce(root, ranks):
    """[(bytes, ns)] over NVLink."""
    path = root + "/vidur/data/profiling/network/a100_dgx/all_reduce.csv.gz"
    best = {}
    for r in rows_of(path):
        if int(r["num_workers"]) == ranks:
            best.setdefault(int(r["size"]), []).append(float(r["time_stats.all_reduce.min"]) * 1e6)
    return sorted((k, min(v)) for k, v in best.items())


def at(points, x):
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x <= x1:
            return y0 + (y1 - y0) * max(x - x0, 0) / (x1 - x0)
    (x0, y0), (x1, y1) = points[-2:]
    return y1 + (y1 - y0) * (x - x1) / (x1 - x0)


def vidur_attention(root):
    """Coefficients for 32 query heads and 4 KV heads of 128 on an A100 (two ranks of 70B)."""
    decode, prefill = [], []
    for r in rows_of(root + "/vidur/old/a100/attention.csv.gz"):
        kv, batch, chunk = int(r["kv_cache_size"]), int(r["batch_size"]), int(r["prefill_chunk_size"])
        if r["is_prefill"] == "True":
            ns = float(r["time_stats.attn_prefill.median"]) * 1e6
            prefill.append(((chunk * kv + chunk * (chunk + 1) / 2, chunk, 1), ns))
        else:
            ns = float(r["time_stats.attn_decode.median"]) * 1e6
            decode.append(((batch * (kv + 1), batch, 1), ns))
    return fit(prefill), fit(decode)


def head(vocab, embd, ranks, bytes_per_ns):
    ns = VALUE * vocab * embd / ranks / (0.8 * bytes_per_ns) + 30e3
    return {1: ns, 256: ns, 512: 1.3 * ns}


def vidur(root, out):
    pa, da = vidur_attention(root)
    scaled = lambda c, k: [c[0] * k, c[1] * k, c[2]]
    nvlink = lambda p: (lambda b, r=vidur_all_reduce(root, p): at(r, b))
    pcie = lambda p: (lambda b: 25e3 + 2.0 * (p - 1) / p * b / 20)
    for link, reduce_of in (("nvlink", nvlink), ("pcie", pcie)):
        for gpus, model, source, layers, embd, vocab, heads, weights in (
                (4, "llama-2-70b", "meta-llama/Llama-2-70b-hf", 80, 8192, 32000, 64, 1),
                (2, "yi-34b", "codellama/CodeLlama-34b-Instruct-hf", 60, 7168, 64000, 56,
                 557.8 / 692.1)):
            dense, share = vidur_dense(root, "a100", source, gpus)
            reduce_ns = reduce_of(gpus)
            dense = {n: v * weights + 2 * reduce_ns(n * embd * VALUE) for n, v in dense.items()}
            q, kv = heads / gpus / 32, 8 / gpus / 4
            write(out, "a100x%d-%s-%s" % (gpus, link, model),
                  {"device": "A100", "variant": "vidur-" + link, "layers": layers, "dense": dense,
                   "pre_share": share, "head": head(vocab, embd, gpus, 2039),
                   "pa": [pa[0] * q, pa[1] * kv, pa[2]], "da": scaled(da, kv)})
    h200(root, out, pa, da)


def h200(root, out, pa, da):
    dense, share = vidur_dense(root, "h100", "codellama/CodeLlama-34b-Instruct-hf", 1)
    weights, faster, one = 557.8 / 692.1, 3.35 / 4.8, dense[min(dense)]
    # Read-bound as long as it takes hardly more than one row; then arithmetic, which is the same.
    dense = {n: weights * (v * faster if v < 1.2 * one else v) for n, v in dense.items()}
    flops, bytes_ = 312 / 989, 2.039 / 4.8
    write(out, "h200-yi-34b",
          {"device": "H200", "variant": "vidur-scaled", "layers": 60, "dense": dense,
           "pre_share": share, "head": head(64000, 7168, 1, 4800),
           "pa": [pa[0] * 56 / 32 * flops, pa[1] * 2 * bytes_, pa[2]],
           "da": [da[0] * 2 * bytes_, da[1] * 2 * bytes_, da[2]]})


# ---- LLMServingSim ----------------------------------------------------------------------------

def rtx4090(root, out):
    where = root + "/llmservingsim/profiler/perf/RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1/"
    dense, pre, head_ns, decode, prefill = {}, {}, {}, [], []
    twice = {"layernorm": 2}
    for r in rows_of(where + "dense.csv.gz"):
        n, op, ns = int(r["tokens"]), r["layer"], float(r["time_us"]) * 1e3
        if op in ("embedding", "final_layernorm"):
            continue
        dense[n] = dense.get(n, 0) + twice.get(op, 1) * ns
        if op in ("layernorm", "qkv_proj", "rotary_emb"):
            pre[n] = pre.get(n, 0) + ns
    for r in rows_of(where + "per_sequence.csv.gz"):
        n = int(r["sequences"])
        head_ns[n] = head_ns.get(n, 0) + float(r["time_us"]) * 1e3
    for r in rows_of(where + "attention.csv.gz"):
        c, kp, g, kv = (int(r[k]) for k in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode"))
        ns = float(r["time_us"]) * 1e3
        if c == 0 and g > 0:
            decode.append(((g * kv, g, 1), ns))
        elif c > 0 and g == 0:
            prefill.append(((c * kp + c * (c + 1) / 2, c, 1), ns))
    n = max(dense)
    write(out, "rtx4090-llama-3-8b",
          {"device": "RTX4090", "variant": "llmservingsim", "layers": 32, "dense": dense,
           "pre_share": pre[n] / dense[n], "head": head_ns, "pa": fit(prefill), "da": fit(decode)})


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.makedirs(sys.argv[2], exist_ok=True)
    vidur(sys.argv[1], sys.argv[2])
    rtx4090(sys.argv[1], sys.argv[2])


if __name__ == "__main__":
    main()
