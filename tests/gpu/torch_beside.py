#!/usr/bin/env python3
"""torch_beside.py - PyTorch beside our kernels, in the same run: attention of a prompt, and decode steps.

    torch_beside.py RESULTS [--check]

Appends key=value lines to RESULTS, each as it is measured, and reads ours from there.  The model is
Llama-3-8B's shape as transformers computes it (separate q, k, v, gate, up; static cache; SDPA), random
weights, bf16; its step is captured into a CUDA graph, and run eagerly beside.  Exit: 0 measured, 77 no
torch or no GPU.  --check runs a tiny model on the CPU: that the code runs at all.
"""
import os
import sys
import time


class Results:
    """The results file: one write a line, as report.c does."""

    def __init__(self, path):
        self.path = path

    def put(self, key, value):
        line = f"{key}={value:.5g}\n" if isinstance(value, float) else f"{key}={value}\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, line.encode())
        os.close(fd)
        sys.stdout.write(line)
        sys.stdout.flush()

    def get(self, key):
        value = None
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(key + "="):
                    value = line.split("=", 1)[1].strip()
        try:
            return float(value)
        except (TypeError, ValueError):
            return None


def median_us(torch, run, n_inner, n_samples=9):
    """Device time of one run, between events; one more sample warms up."""
    samples = []
    for _ in range(n_samples + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(n_inner):
            run()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e3 / n_inner)
    return sorted(samples[1:])[n_samples // 2]


def prefill(torch, results, name, backend):
    """4k causal, 32 heads of 128 over 8 KV heads, which are repeated before: their reading is not timed."""
    from torch.nn.attention import sdpa_kernel

    n, heads, width = 4096, 32, 128
    q, k, v = (torch.randn(1, heads, n, width, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    attention = torch.nn.functional.scaled_dot_product_attention
    with sdpa_kernel(backend):
        us = median_us(torch, lambda: attention(q, k, v, is_causal=True), 5)
    tflops = 4.0 * width * heads * n * (n + 1) / 2 / us / 1e6
    results.put(f"torch_{name}_tflops", tflops)
    gemm = results.get("gemm_bf16_tflops")
    if gemm:
        results.put(f"torch_{name}_pct", 100.0 * tflops / gemm)


class Shape:
    def __init__(self, layers=32, embd=4096, heads=32, kv_heads=8, ff=14336, vocab=128256, width=128):
        self.layers, self.embd, self.heads, self.kv_heads = layers, embd, heads, kv_heads
        self.ff, self.vocab, self.width = ff, vocab, width


class Decoder:
    """One step of a decoder with a static cache; weights of all layers are their own."""

    def __init__(self, torch, shape, batch, ctx, device, dtype):
        self.torch, self.shape, self.ctx = torch, shape, ctx
        make = lambda *size: torch.randn(*size, device=device, dtype=dtype) * size[-1] ** -0.5
        s = shape
        self.layers = [
            {
                "q": make(s.heads * s.width, s.embd),
                "k": make(s.kv_heads * s.width, s.embd),
                "v": make(s.kv_heads * s.width, s.embd),
                "o": make(s.embd, s.heads * s.width),
                "gate": make(s.ff, s.embd),
                "up": make(s.ff, s.embd),
                "down": make(s.embd, s.ff),
                "norm": torch.ones(2, s.embd, device=device, dtype=dtype),
                "keys": make(batch, s.kv_heads, ctx, s.width),
                "values": make(batch, s.kv_heads, ctx, s.width),
            }
            for _ in range(s.layers)
        ]
        self.table, self.head = make(s.vocab, s.embd), make(s.vocab, s.embd)
        self.norm = torch.ones(s.embd, device=device, dtype=dtype)
        self.token = torch.zeros(batch, device=device, dtype=torch.long)
        self.position = torch.tensor([ctx - 1], device=device)
        angle = torch.rand(s.width, device=device)
        self.cos, self.sin = angle.cos().to(dtype), angle.sin().to(dtype)

    def rms(self, x, weight):
        f = x.float()
        return weight * (f * self.torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)

    def rotate(self, x):
        half = x.shape[-1] // 2
        turned = self.torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return x * self.cos + turned * self.sin

    def attend(self, layer, x):
        s, linear = self.shape, self.torch.nn.functional.linear
        split = lambda y, heads: y.view(-1, heads, 1, s.width)
        q = self.rotate(split(linear(x, layer["q"]), s.heads))
        k = self.rotate(split(linear(x, layer["k"]), s.kv_heads))
        layer["keys"].index_copy_(2, self.position, k)
        layer["values"].index_copy_(2, self.position, split(linear(x, layer["v"]), s.kv_heads))
        out = self.torch.nn.functional.scaled_dot_product_attention(
            q, layer["keys"], layer["values"], enable_gqa=True
        )
        return linear(out.reshape(-1, s.heads * s.width), layer["o"])

    def step(self):
        linear, silu = self.torch.nn.functional.linear, self.torch.nn.functional.silu
        x = self.table[self.token]
        for layer in self.layers:
            x = x + self.attend(layer, self.rms(x, layer["norm"][0]))
            n = self.rms(x, layer["norm"][1])
            x = x + linear(silu(linear(n, layer["gate"])) * linear(n, layer["up"]), layer["down"])
        self.token.copy_(linear(self.rms(x, self.norm), self.head).argmax(-1))
        return self.token


def captured(torch, step):
    """The step as a graph, warmed up on a side stream as PyTorch asks."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def decode(torch, results, batch, ctx):
    with torch.inference_mode():
        model = Decoder(torch, Shape(), batch, ctx, "cuda", torch.bfloat16)
        eager_us = median_us(torch, model.step, 2, 5)
        results.put(f"torch_eager_b{batch}_us", eager_us)
        graph = captured(torch, model.step)
        us = median_us(torch, graph.replay, 4)
    results.put(f"torch_b{batch}_us", us)
    ours = results.get(f"step_b{batch}_us")
    if ours:
        results.put(f"vs_torch_b{batch}", us / ours)  # above 1: ours is ahead


def attempt(results, key, run):
    try:
        run()
    except Exception as error:  # pylint: disable=broad-except
        results.put(key, "error:" + " ".join(str(error).split())[:200])


def measure(torch, results):
    from torch.nn.attention import SDPBackend

    results.put("torch", f"{torch.__version__} cuda {torch.version.cuda}")
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        attempt(results, f"torch_{name}_tflops", lambda: prefill(torch, results, name, backend))
    for batch, ctx in ((1, 512), (16, 1024), (64, 2048)):
        attempt(results, f"torch_b{batch}_us", lambda: decode(torch, results, batch, ctx))
        torch.cuda.empty_cache()


def check(torch):
    """The step on the CPU: shapes fit, tokens come."""
    with torch.inference_mode():
        tiny = Shape(layers=2, embd=64, heads=4, kv_heads=2, ff=96, vocab=50, width=16)
        tokens = Decoder(torch, tiny, 3, 8, "cpu", torch.float32).step()
    assert tokens.shape == (3,) and int(tokens.max()) < 50
    print("torch_beside: the step runs")


def main(argv):
    if len(argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        import torch
    except ImportError:
        print("torch_beside: no torch", file=sys.stderr)
        return 77
    if argv[2:] == ["--check"]:
        check(torch)
        return 0
    if not torch.cuda.is_available():
        print("torch_beside: torch sees no GPU", file=sys.stderr)
        return 77
    start = time.monotonic()
    measure(torch, Results(argv[1]))
    print(f"torch_beside: {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
