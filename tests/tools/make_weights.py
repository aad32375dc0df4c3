#!/usr/bin/env python3
"""Golden vectors of the quantised types: blocks of random bytes, and what the `gguf` package makes of them.

    make_weights.py OUT.json        (gguf 0.19.0, numpy)

Every type gets rows of 512 values.  The bytes are random, so that every bit of a block counts; the f16 scales
are finite and of either sign, with the extremes (largest, smallest subnormal, zeros) in the first blocks.
Both sides are written as hexadecimal of the little-endian bytes: nothing is rounded on the way.
"""
import json
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

N_ROWS, N_COLS = 2, 512
# Where the f16 numbers of a block lie.
HALVES = {T.F16: [0], T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208]}
EXTREMES = [0x7BFF, 0xFBFF, 0x0001, 0x8001, 0x0000, 0x8000, 0x0400, 0x3C01]


def finite_halves(rng, n):
    bits = rng.integers(0, 1 << 16, n, dtype=np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] ^= 0x4000  # no infinity, no NaN
    bits[: len(EXTREMES)] = EXTREMES[:n]
    return bits


def blocks_of(rng, kind):
    values, size = GGML_QUANT_SIZES[kind]
    n = N_ROWS * N_COLS // values
    if kind in (T.F32, T.BF16):
        floats = (rng.standard_normal(n) * 10.0 ** rng.integers(-30, 30, n)).astype("<f4")
        return floats.view(np.uint8).reshape(n, 4)[:, 4 - size:].copy()
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in HALVES[kind]:
        blocks[:, at: at + 2] = rng.permutation(finite_halves(rng, n)).astype("<u2").view(np.uint8).reshape(n, 2)
    return blocks


def main():
    rng = np.random.default_rng(7)
    out = []
    for name in ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]:
        kind = T[name]
        blocks = blocks_of(rng, kind)
        values = dequantize(blocks.reshape(N_ROWS, -1), kind).astype("<f4")
        assert values.size == N_ROWS * N_COLS and np.isfinite(values).all()
        out.append({"type": name, "number": int(kind), "rows": N_ROWS, "columns": N_COLS,
                    "blocks": blocks.tobytes().hex(), "values": values.tobytes().hex()})
    with open(sys.argv[1], "w") as f:
        json.dump({"made_with": "gguf 0.19.0", "types": out}, f, indent=1)
        f.write("\n")


main()
