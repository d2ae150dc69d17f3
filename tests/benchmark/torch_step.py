"""The peer of step_time_bench: trains the same Llama in PyTorch, one step for each line on stdin.

The first line is a JSON object: `config` (keys of config.json), `training`, `dtype`, `compile`,
`core`, and the files `weights` (float32, in the order of record_llama.shapes) and `tokens` (int32,
num_microbatches x micro_batch_size x (seq_len + 1), the data of every step). The answer to it is
{"torch": version} or {"failed": why}; every later line is answered by {"seconds", "loss"} of one
step, the seconds being CPU time of this process.

bfloat16 is autocast over float32 weights. Fused where PyTorch has it fused: attention, RMSNorm,
AdamW.
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
from record_llama import rotary_angles, shapes  # noqa: E402

torch.set_num_threads(1)
torch.set_num_interop_threads(1)


def read_weights(path, config):
    flat = torch.from_file(path, size=os.path.getsize(path) // 4, dtype=torch.float32)
    weights, first = {}, 0
    for name, shape in shapes(config):
        count = torch.Size(shape).numel()
        weights[name] = flat[first:first + count].view(shape).clone().requires_grad_()
        first += count
    assert first == flat.numel(), f"{first} weights expected, {flat.numel()} given"
    return weights


def rotate(x, cos, sin):
    """x: (batch, heads, length, d); pairs are (i, i + d/2)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def causal_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def decoder_layer(x, w, c, cos, sin, attend=causal_attention):
    """x: (batch, length, hidden). w: the layer's tensors by their names within it."""
    batch, length = x.shape[:2]
    norm = lambda x, name: F.rms_norm(x, (c["hidden_size"],), w(name), c["rms_norm_eps"])
    split = lambda y: y.view(batch, length, -1, c["head_dim"]).transpose(1, 2)
    linear = lambda y, name: F.linear(y, w(name + ".weight"))
    n = norm(x, "input_layernorm.weight")
    q = rotate(split(linear(n, "self_attn.q_proj")), cos, sin)
    k = rotate(split(linear(n, "self_attn.k_proj")), cos, sin)
    v = split(linear(n, "self_attn.v_proj"))
    q, k = q.to(v.dtype), k.to(v.dtype)
    o = attend(q, k, v)
    x = x + linear(o.transpose(1, 2).reshape(batch, length, -1), "self_attn.o_proj")
    n = norm(x, "post_attention_layernorm.weight")
    up = F.silu(linear(n, "mlp.gate_proj")) * linear(n, "mlp.up_proj")
    return x + linear(up, "mlp.down_proj")


def head_loss(x, norm, head, c, labels):
    """Cross-entropy summed over all labels, in nats."""
    logits = F.linear(F.rms_norm(x, (c["hidden_size"],), norm, c["rms_norm_eps"]), head)
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")


def head_name(c):
    return "model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"


def loss_sum(w, c, cos, sin, tokens, labels):
    """tokens, labels: (batch, length)."""
    x = F.embedding(tokens, w["model.embed_tokens.weight"])
    for i in range(c["num_hidden_layers"]):
        x = decoder_layer(x, lambda name: w[f"model.layers.{i}.{name}"], c, cos, sin)
    return head_loss(x, w["model.norm.weight"], w[head_name(c)], c, labels)


def read_tokens(path, training):
    """(microbatch, row, token)"""
    flat = torch.from_file(path, size=os.path.getsize(path) // 4, dtype=torch.int32).long()
    return flat.view(-1, training["micro_batch_size"], training["seq_len"] + 1)


def new_optimizer(parameters, training):
    return torch.optim.AdamW(
        [dict(params=[x for x in parameters if x.dim() > 1],
              weight_decay=training["weight_decay"]),
         dict(params=[x for x in parameters if x.dim() == 1], weight_decay=0.0)],
        lr=training["lr"], betas=tuple(training["betas"]), eps=training["eps"], fused=True)


def rotary(config, training, autocast):
    angles = rotary_angles(config, training["seq_len"])
    cos, sin = angles.cos(), angles.sin()
    return (cos.bfloat16(), sin.bfloat16()) if autocast else (cos, sin)


class Trainee:
    def __init__(self, request):
        c, self.training = request["config"], request["training"]
        self.weights = read_weights(request["weights"], c)
        self.microbatches = read_tokens(request["tokens"], self.training)
        self.autocast = request["dtype"] == "bfloat16"
        cos, sin = rotary(c, self.training, self.autocast)
        self.loss_sum = lambda rows: loss_sum(self.weights, c, cos, sin, rows[:, :-1], rows[:, 1:])
        if request["compile"]:
            self.loss_sum = torch.compile(self.loss_sum)
        self.parameters = list(self.weights.values())
        self.optimizer = new_optimizer(self.parameters, self.training)

    def step(self):
        """Returns the mean loss. Gradients are of the mean from the start: no pass to scale them."""
        count = self.microbatches[:, :, 1:].numel()
        total = 0.0
        for rows in self.microbatches:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                loss = self.loss_sum(rows) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.training["grad_clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


def answer(**line):
    print(json.dumps(line), flush=True)


def main():
    request = json.loads(sys.stdin.readline())
    try:
        trainee = Trainee(request)
        first_loss = trainee.step()  # compiles, allocates
    except Exception as error:  # noqa: BLE001: torch.compile fails in many ways
        return answer(failed=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:200])
    os.sched_setaffinity(0, {request["core"]})
    answer(torch=torch.__version__.split("+")[0], loss=first_loss)
    for _ in sys.stdin:
        start = time.process_time()
        loss = trainee.step()
        answer(seconds=time.process_time() - start, loss=loss)


if __name__ == "__main__":
    main()
