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


def loss_sum(w, c, cos, sin, tokens, labels):
    """Cross-entropy summed over all labels, in nats. tokens, labels: (batch, length)."""
    batch, length = tokens.shape
    h, d, eps = c["hidden_size"], c["head_dim"], c["rms_norm_eps"]
    norm = lambda x, name: F.rms_norm(x, (h,), w[name], eps)
    split = lambda y: y.view(batch, length, -1, d).transpose(1, 2)
    x = F.embedding(tokens, w["model.embed_tokens.weight"])
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        linear = lambda y, name: F.linear(y, w[layer + name + ".weight"])
        n = norm(x, layer + "input_layernorm.weight")
        q = rotate(split(linear(n, "self_attn.q_proj")), cos, sin)
        k = rotate(split(linear(n, "self_attn.k_proj")), cos, sin)
        v = split(linear(n, "self_attn.v_proj"))
        q, k = q.to(v.dtype), k.to(v.dtype)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + linear(o.transpose(1, 2).reshape(batch, length, -1), "self_attn.o_proj")
        n = norm(x, layer + "post_attention_layernorm.weight")
        up = F.silu(linear(n, "mlp.gate_proj")) * linear(n, "mlp.up_proj")
        x = x + linear(up, "mlp.down_proj")
    tied = c["tie_word_embeddings"]
    head = w["model.embed_tokens.weight" if tied else "lm_head.weight"]
    logits = F.linear(norm(x, "model.norm.weight"), head)
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")


class Trainee:
    def __init__(self, request):
        c, self.training = request["config"], request["training"]
        t = self.training
        self.weights = read_weights(request["weights"], c)
        self.microbatches = torch.from_file(
            request["tokens"], size=os.path.getsize(request["tokens"]) // 4,
            dtype=torch.int32).long().view(-1, t["micro_batch_size"], t["seq_len"] + 1)
        angles = rotary_angles(c, t["seq_len"])
        cos, sin = angles.cos(), angles.sin()
        self.autocast = request["dtype"] == "bfloat16"
        if self.autocast:
            cos, sin = cos.bfloat16(), sin.bfloat16()
        self.loss_sum = lambda rows: loss_sum(self.weights, c, cos, sin, rows[:, :-1], rows[:, 1:])
        if request["compile"]:
            self.loss_sum = torch.compile(self.loss_sum)
        self.parameters = list(self.weights.values())
        self.optimizer = torch.optim.AdamW(
            [dict(params=[x for x in self.parameters if x.dim() > 1],
                  weight_decay=t["weight_decay"]),
             dict(params=[x for x in self.parameters if x.dim() == 1], weight_decay=0.0)],
            lr=t["lr"], betas=tuple(t["betas"]), eps=t["eps"], fused=True)

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


main()
