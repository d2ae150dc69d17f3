"""Records what PyTorch computes for ten training steps of small Llamas, for oracle_test.cc.

For each case it makes a Hugging Face folder (config.json, model.safetensors) with random weights
from a fixed seed, and expected.json: the data, the optimizer's settings, and every step's loss and
gradient norm. The model is written out in plain PyTorch, float32, one thread.

  record_llama.py DIR            makes DIR/<case>/ for every case
  record_llama.py --rerun DIR    leaves the folders as they are and prints {case: [step, ...]} of
                                 their training again
"""
import json
import math
import os
import struct
import sys

import torch
import torch.nn.functional as F

torch.set_num_threads(1)

CASES = {
    "untied": dict(seed=1, tie_word_embeddings=False, rope_scaling=None),
    "tied": dict(seed=2, tie_word_embeddings=True, rope_scaling=dict(
        rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16)),
}
TRAINING = dict(steps=10, micro_batch_size=2, num_microbatches=2, seq_len=24, lr=3e-3,
                betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, grad_clip=1.0)


def make_config(case):
    scaling = case["rope_scaling"]
    return dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32,
        intermediate_size=56, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=61, max_position_embeddings=64, rms_norm_eps=1e-5,
        rope_theta=10000.0, rope_scaling=scaling, hidden_act="silu",
        tie_word_embeddings=case["tie_word_embeddings"], attention_bias=False, mlp_bias=False,
        initializer_range=0.02, torch_dtype="float32")


def shapes(c):
    h, f, q = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * c["head_dim"]
    k = c["num_key_value_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", (c["vocab_size"], h)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (h,)
        yield layer + "self_attn.q_proj.weight", (q, h)
        yield layer + "self_attn.k_proj.weight", (k, h)
        yield layer + "self_attn.v_proj.weight", (k, h)
        yield layer + "self_attn.o_proj.weight", (h, q)
        yield layer + "post_attention_layernorm.weight", (h,)
        yield layer + "mlp.gate_proj.weight", (f, h)
        yield layer + "mlp.up_proj.weight", (f, h)
        yield layer + "mlp.down_proj.weight", (h, f)
    yield "model.norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], h)


def write_safetensors(path, tensors):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * tensor.numel()
        header[name] = dict(dtype="F32", shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(struct.pack(f"<{tensor.numel()}f", *tensor.flatten().tolist()))


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            lo, hi = entry["data_offsets"]
            values = struct.unpack(f"<{(hi - lo) // 4}f", data[begin + lo:begin + hi])
            tensors[name] = torch.tensor(values).reshape(entry["shape"])
    return tensors


def rotary_angles(c, length):
    d = c["head_dim"]
    frequency = c["rope_theta"] ** (-torch.arange(0, d, 2).double() / d)
    s = c["rope_scaling"]
    if s:
        original = s["original_max_position_embeddings"]
        turns = original * frequency / (2 * math.pi)  # over the original context
        low, high = s["low_freq_factor"], s["high_freq_factor"]
        blend = ((turns - low) / (high - low)).clamp(0, 1)
        frequency = blend * frequency + (1 - blend) * frequency / s["factor"]
    return torch.outer(torch.arange(length).double(), frequency).float()


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, angles):
    """x: (batch, heads, length, d); pairs are (i, i + d/2)."""
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def loss_sum(w, c, tokens, labels):
    """Cross-entropy summed over all labels, in nats. tokens, labels: (batch, length)."""
    batch, length = tokens.shape
    heads, groups, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    angles, eps = rotary_angles(c, length), c["rms_norm_eps"]
    causal = torch.ones(length, length).tril().bool()
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = lambda name: w[f"model.layers.{i}.{name}.weight"]
        n = rms_norm(x, p("input_layernorm"), eps)
        split = lambda y, count: y.view(batch, length, count, d).transpose(1, 2)
        q = rotate(split(n @ p("self_attn.q_proj").T, heads), angles)
        k = rotate(split(n @ p("self_attn.k_proj").T, groups), angles)
        v = split(n @ p("self_attn.v_proj").T, groups)
        k, v = (y.repeat_interleave(heads // groups, 1) for y in (k, v))
        score = (q @ k.transpose(-1, -2) / math.sqrt(d)).masked_fill(~causal, -math.inf)
        o = (score.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, heads * d)
        x = x + o @ p("self_attn.o_proj").T
        n = rms_norm(x, p("post_attention_layernorm"), eps)
        up = F.silu(n @ p("mlp.gate_proj").T) * (n @ p("mlp.up_proj").T)
        x = x + up @ p("mlp.down_proj").T
    head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    logits = rms_norm(x, w["model.norm.weight"], eps) @ head.T
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def train(folder, tokens, t):
    """Sample i is tokens [i·seq_len, (i+1)·seq_len], in plain order. Returns the steps' numbers."""
    with open(os.path.join(folder, "config.json")) as file:
        c = json.load(file)
    w = read_safetensors(os.path.join(folder, "model.safetensors"))
    for tensor in w.values():
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(
        [dict(params=[x for x in w.values() if x.dim() > 1], weight_decay=t["weight_decay"]),
         dict(params=[x for x in w.values() if x.dim() == 1], weight_decay=0.0)],
        lr=t["lr"], betas=tuple(t["betas"]), eps=t["eps"], foreach=False)
    steps, sample, length = [], 0, t["seq_len"]
    for _ in range(t["steps"]):
        total, count = 0.0, 0
        for _ in range(t["num_microbatches"]):
            rows = [tokens[(sample + r) * length:(sample + r + 1) * length + 1]
                    for r in range(t["micro_batch_size"])]
            sample += t["micro_batch_size"]
            batch = torch.tensor(rows)
            loss = loss_sum(w, c, batch[:, :-1], batch[:, 1:])
            loss.backward()
            total, count = total + loss.item(), count + batch[:, 1:].numel()
        for tensor in w.values():
            tensor.grad /= count
        norm = torch.nn.utils.clip_grad_norm_(w.values(), t["grad_clip"])
        optimizer.step()
        optimizer.zero_grad()
        steps.append(dict(loss=total / count, grad_norm=norm.item()))
    return steps


def record(folder, case):
    os.makedirs(folder, exist_ok=True)
    config = make_config(case)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")
    generator = torch.Generator().manual_seed(case["seed"])
    weights = {}
    for name, shape in shapes(config):
        noise = torch.randn(shape, generator=generator)
        weights[name] = 1 + 0.1 * noise if len(shape) == 1 else 0.15 * noise
    write_safetensors(os.path.join(folder, "model.safetensors"), weights)
    t = TRAINING
    num_tokens = t["steps"] * t["num_microbatches"] * t["micro_batch_size"] * t["seq_len"] + 1
    # A chain with structure, so that there is something to learn.
    draws = torch.randint(0, 8, (num_tokens,), generator=generator).tolist()
    tokens = [0]
    for draw in draws[1:]:
        tokens.append((3 * tokens[-1] + draw) % config["vocab_size"])
    steps = train(folder, tokens, t)
    with open(os.path.join(folder, "expected.json"), "w") as file:
        json.dump(dict(torch=torch.__version__, training=t, tokens=tokens, steps=steps), file)
        file.write("\n")


def rerun(folder):
    with open(os.path.join(folder, "expected.json")) as file:
        expected = json.load(file)
    return train(folder, expected["tokens"], expected["training"])


if __name__ == "__main__":
    if sys.argv[1] == "--rerun":
        print(json.dumps({name: rerun(os.path.join(sys.argv[2], name)) for name in CASES}))
    else:
        for name, case in CASES.items():
            record(os.path.join(sys.argv[1], name), case)
