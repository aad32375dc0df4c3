#!/usr/bin/env python3
"""Our families against `transformers` on the same weights, on the CPU, in F32.

    families.py goldens TINY_MODEL_PROGRAM OUT.json
        writes each family's tiny model with TINY_MODEL_PROGRAM (omni-tiny-model), loads it into the family's
        class of transformers, and keeps token ids, the most likely next token of every position, and greedy
        continuations
    families.py check TEST_PROGRAM
        makes random checkpoints with transformers, saves them as it does, converts the saved folders to GGUF, and
        runs TEST_PROGRAM (test_families) on them; exits 77 without transformers
    families.py convert FOLDER OUT.gguf
        the conversion alone: hyper-parameters and weights as F32 (no vocabulary)

Made with torch 2.15.0, transformers 5.23.0, gguf 0.19.0.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
    import torch
    import transformers
    from safetensors.numpy import load_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

N_SEQUENCES, N_TOKENS = 3, 160
N_PROMPT, N_OUTPUT = 100, 32  # greedy: longer than windows and original contexts
N_VOCAB, FIRST_WORD = 320, 3  # the tiny vocabulary; control tokens come first
ORIGINAL = 64

# What no key of a GGUF file tells; the same numbers stand in common/model/model_random_family.c.
ROPE = {
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": ORIGINAL},
    "llama-linear": {"rope_type": "linear", "factor": 4.0},
    "qwen2-yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "phi3-long": {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL,
                  "partial_rotary_factor": 0.75, "short_factor": [1 + 0.0625 * i for i in range(6)],
                  "long_factor": [1 + 1.5 * i for i in range(6)]},
}
# family: (class, architecture in GGUF, what its configuration needs beside sizes)
FAMILIES = {
    "llama2": ("Llama", "llama", {}),
    "llama3": ("Llama", "llama", {}),
    "llama-linear": ("Llama", "llama", {}),
    "yi": ("Llama", "llama", {}),
    "mistral": ("Mistral", "llama", {"sliding_window": 48}),
    "smollm2": ("Llama", "llama", {}),
    "smollm3": ("SmolLM3", "smollm3", {"no_rope_layer_interval": 4, "use_sliding_window": False}),
    "qwen2": ("Qwen2", "qwen2", {"use_sliding_window": False}),
    "qwen2-yarn": ("Qwen2", "qwen2", {"use_sliding_window": False}),
    "qwen3": ("Qwen3", "qwen3", {"use_sliding_window": False, "head_dim": 32}),
    "phi3": ("Phi3", "phi3", {"sliding_window": 48}),
    "phi3-long": ("Phi3", "phi3", {"original_max_position_embeddings": ORIGINAL}),
}
INTERLEAVED = ("llama", "smollm3")  # q and k rows of these are permuted in GGUF

NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{kind}"


def heads_of(config, name):
    if ".q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".k_proj." in name else 0


def interleave(w, n_heads):
    """Rows of halves (transformers) to rows of pairs (GGUF's llama)."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def halves(w, n_heads):
    return w.reshape(n_heads, w.shape[0] // n_heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


# ---- Models --------------------------------------------------------------------------------------

def make_config(family, sizes):
    class_name, _, extra = FAMILIES[family]
    rope = dict(ROPE.get(family, {"rope_type": "default"}), rope_theta=sizes.pop("theta"))
    config = getattr(transformers, class_name + "Config")(
        **sizes, **extra, rope_parameters=rope, vocab_size=N_VOCAB, max_position_embeddings=1024, rms_norm_eps=1e-5,
        hidden_act="silu", bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation="eager")
    config._attn_implementation = "eager"
    return config


def make_model(family, config):
    model = getattr(transformers, FAMILIES[family][0] + "ForCausalLM")(config)
    return model.to(torch.float32).eval()


def load_tiny(family, path):
    """The class of transformers with the weights of a GGUF file."""
    reader = gguf.GGUFReader(path)
    arch = FAMILIES[family][1]
    tensors = {t.name: np.array(t.data, dtype=np.float32) for t in reader.tensors}

    def number(key):
        field = reader.fields[f"{arch}.{key}"]
        return field.contents() if not isinstance(field.contents(), list) else field.contents()[0]

    config = make_config(family, {
        "hidden_size": number("embedding_length"), "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"), "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"), "theta": number("rope.freq_base"),
        "tie_word_embeddings": "output.weight" not in tensors})
    model = make_model(family, config)
    used = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"} & set(tensors)
    check_tables(family, config, tensors)
    state = {}
    for name in model.state_dict():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            state[name] = torch.from_numpy(tensors["token_embd.weight"])
            continue
        w = tensors[gguf_name(name)]
        used.add(gguf_name(name))
        if arch in INTERLEAVED and heads_of(config, name):
            w = halves(w, heads_of(config, name))
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    assert used == set(tensors), set(tensors) - used
    model.load_state_dict(state, strict=True)
    return model


def check_tables(family, config, tensors):
    """The file's tables are what the conversion would write."""
    for name, table in rope_tables(config).items():
        assert np.allclose(tensors[name], table, rtol=1e-6), (family, name, tensors[name], table)


def top_tokens(model, ids):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    top = logits.topk(2, dim=-1).values
    return logits.argmax(dim=-1).tolist(), float((top[:, 0] - top[:, 1]).min())


def prompts(seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_WORD, N_VOCAB, N_TOKENS).tolist() for _ in range(N_SEQUENCES)]


def greedy(model, prompt):
    """What follows, token by token, and how far the second best was behind at each."""
    ids, margins = list(prompt), []
    while len(ids) < N_PROMPT + N_OUTPUT:
        with torch.no_grad():
            top = model(input_ids=torch.tensor([ids])).logits[0, -1].double().topk(2)
        ids.append(int(top.indices[0]))
        margins.append(round(float(top.values[0] - top.values[1]), 6))
    return {"prompt": prompt, "out": ids[N_PROMPT:], "margin": margins}


def golden_of(family, model, seed):
    sequences, answers = [], []
    for ids in prompts(seed):
        top, margin = top_tokens(model, ids)
        sequences.append({"ids": ids, "top": top})
        answers.append(greedy(model, ids[:N_PROMPT]))
        print(f"{family}: distinct={len(set(top))} least_margin={margin:.2e} greedy={min(answers[-1]['margin']):.2e}")
    return {"family": family, "sequences": sequences, "greedy": answers}


# ---- Conversion ----------------------------------------------------------------------------------

def rope_tables(config):
    rope = config.rope_parameters
    dims = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if rope["rope_type"] == "longrope":
        return {"rope_factors_short.weight": np.array(rope["short_factor"], dtype=np.float32),
                "rope_factors_long.weight": np.array(rope["long_factor"], dtype=np.float32)}
    if rope["rope_type"] != "llama3":
        return {}
    length = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, dims, 2) / dims)
    turns = rope["original_max_position_embeddings"] / length
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    ramp = np.clip((turns - low) / (high - low), 0, 1)
    return {"rope_freqs.weight": (1 / ((1 - ramp) / rope["factor"] + ramp)).astype(np.float32)}


def put_rope(writer, arch, config):
    rope = config.rope_parameters
    dims = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kind, original = rope["rope_type"], rope.get("original_max_position_embeddings")
    writer.add_float32(f"{arch}.rope.freq_base", rope["rope_theta"])
    writer.add_uint32(f"{arch}.rope.dimension_count", int(dims * rope.get("partial_rotary_factor", 1.0)))
    if kind in ("linear", "yarn", "longrope"):
        writer.add_string(f"{arch}.rope.scaling.type", kind)
    if kind in ("linear", "yarn"):
        writer.add_float32(f"{arch}.rope.scaling.factor", rope["factor"])
    if original:
        writer.add_uint32(f"{arch}.rope.scaling.original_context_length", original)
    if kind == "longrope":
        stretch = config.max_position_embeddings / original
        writer.add_float32(f"{arch}.rope.scaling.attn_factor", float(np.sqrt(1 + np.log(stretch) / np.log(original))))


def convert(folder, out):
    config = transformers.AutoConfig.from_pretrained(folder)
    arch = {"llama": "llama", "mistral": "llama"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(out, arch)
    dims = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for key, value in {"block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
                       "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
                       "vocab_size": config.vocab_size, "attention.head_count": config.num_attention_heads,
                       "attention.head_count_kv": config.num_key_value_heads, "attention.key_length": dims,
                       "attention.value_length": dims}.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        writer.add_uint32(f"{arch}.attention.sliding_window", config.sliding_window)
    put_rope(writer, arch, config)
    for name, table in rope_tables(config).items():
        writer.add_tensor(name, table)
    for name, w in load_file(os.path.join(folder, "model.safetensors")).items():
        if arch in INTERLEAVED and heads_of(config, name):
            w = interleave(w, heads_of(config, name))
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(w, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- Commands ------------------------------------------------------------------------------------

def command_goldens(program, out):
    goldens = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, family in enumerate(FAMILIES):
            path = os.path.join(folder, family + ".gguf")
            subprocess.run([program, path, "--family", family], check=True)
            goldens.append(golden_of(family, load_tiny(family, path), seed))
    with open(out, "w") as f:
        json.dump({"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
                   "families": goldens}, f, separators=(",", ":"))
        f.write("\n")


def random_checkpoint(family, folder, seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 5, "num_attention_heads": 6,
             "num_key_value_heads": 6 if family == "llama2" else 3, "tie_word_embeddings": family.startswith("smollm"),
             "theta": 50000.0, "initializer_range": 0.15}
    if family == "phi3-long":
        sizes["num_attention_heads"], sizes["num_key_value_heads"] = 6, 2
    model = make_model(family, make_config(family, sizes))
    with torch.no_grad():
        for name, w in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                w.add_(torch.randn_like(w) * 0.2)
    model.save_pretrained(folder)
    return model


def command_check(program):
    with tempfile.TemporaryDirectory() as folder:
        goldens = []
        for seed, family in enumerate(FAMILIES):
            checkpoint = os.path.join(folder, family)
            model = random_checkpoint(family, checkpoint, seed)
            convert(checkpoint, os.path.join(folder, family + ".gguf"))
            goldens.append(golden_of(family, model, 100 + seed))
        with open(os.path.join(folder, "families.json"), "w") as f:
            json.dump({"families": goldens}, f)
        sys.exit(subprocess.run([program, folder]).returncode)


def main():
    commands = {"goldens": (command_goldens, 2), "check": (command_check, 1), "convert": (convert, 2)}
    name, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name not in commands or len(arguments) != commands[name][1]:
        sys.exit(__doc__)
    commands[name][0](*arguments)


main()
