"""The peer of context_parallel_bench: trains the same Llama in PyTorch on two processes over Gloo
that share each sequence, by the ring attention of PyTorch's experimental context parallel, a line of
steps for each line on stdin.

The first line is a JSON object as torch_step's. The answer is {"torch": version, "loss"} or
{"failed": why}; a later line with a number is answered by {"seconds", "loss"}: the mean wall time
of so many steps, and the last loss. bfloat16 is autocast over float32 weights. Gradients are summed
by DistributedDataParallel while the backward runs.

context_parallel() itself takes no attention of CPUs (2.15: no sharding strategy is registered for
it), so the ring below it is called with that. A rank has an early and a late run of each sequence,
as context_parallel() gives it.

    torch_context_parallel.py            rank 0, which starts rank 1
    torch_context_parallel.py RANK PORT
"""
import json
import os
import socket
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.tensor.experimental._context_parallel._attention import (
    _templated_ring_attention, _templated_ring_attention_backward)
from torch.nn.parallel import DistributedDataParallel

from torch_step import (answer, decoder_layer, head_loss, head_name, new_optimizer, read_tokens,
                        read_weights, rotary)

WORLD = 2
LENGTH = 2  # the dimension of q, k, v: (batch, heads, length, d)


class RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        attend = lambda q, k, v, is_causal: (
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal))
        out, lse = _templated_ring_attention(dist.group.WORLD, LENGTH, attend, q, k, v,
                                             is_causal=True)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, grad_out):
        attend = lambda grad_out, query, key, value, out, logsumexp, is_causal: (
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad_out, query, key, value, out, logsumexp, 0.0, is_causal))
        return _templated_ring_attention_backward(dist.group.WORLD, LENGTH, attend,
                                                  grad_out.contiguous(), "grad_out",
                                                  *ctx.saved_tensors, is_causal=True)


def own_part(x, dim):
    """What this rank has of it: an early and a late run."""
    runs, rank = x.chunk(2 * WORLD, dim), dist.get_rank()
    return torch.cat([runs[rank], runs[2 * WORLD - 1 - rank]], dim).contiguous()


class Llama(torch.nn.Module):
    def __init__(self, weights, config):
        super().__init__()
        self.config = config
        for name, tensor in weights.items():
            self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(tensor.detach()))

    def get(self, name):
        return self._parameters[name.replace(".", "_")]

    def forward(self, tokens, labels, cos, sin):
        """The loss summed over this rank's labels."""
        x = F.embedding(tokens, self.get("model.embed_tokens.weight"))
        for i in range(self.config["num_hidden_layers"]):
            x = decoder_layer(x, lambda name: self.get(f"model.layers.{i}.{name}"), self.config,
                              cos, sin, RingAttention.apply)
        return head_loss(x, self.get("model.norm.weight"), self.get(head_name(self.config)),
                         self.config, labels)


class Trainee:
    def __init__(self, request):
        c, self.training = request["config"], request["training"]
        self.autocast = request["dtype"] == "bfloat16"
        self.cos, self.sin = (own_part(x, 0) for x in rotary(c, self.training, self.autocast))
        rows = read_tokens(request["tokens"], self.training)
        self.microbatches = list(zip(own_part(rows[:, :, :-1], 2), own_part(rows[:, :, 1:], 2)))
        self.num_labels = rows[:, :, 1:].numel()
        self.model = DistributedDataParallel(Llama(read_weights(request["weights"], c), c))
        self.optimizer = new_optimizer(list(self.model.parameters()), self.training)

    def step(self):
        """Returns WORLD times this rank's part of the mean loss: DDP takes the ranks' mean."""
        total = 0.0
        for i, (tokens, labels) in enumerate(self.microbatches):
            self.model.require_backward_grad_sync = i + 1 == len(self.microbatches)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                loss = self.model(tokens, labels, self.cos, self.sin) * (WORLD / self.num_labels)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training["grad_clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


def steps(trainee, number):
    """The seconds of one of so many, until both processes have ended all; the last one's loss."""
    dist.barrier()
    start = time.perf_counter()
    for _ in range(number):
        loss = trainee.step()
    dist.barrier()
    seconds = (time.perf_counter() - start) / number
    mean = torch.tensor([loss])
    dist.all_reduce(mean)
    return seconds, mean.item() / WORLD


def join(rank, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank),
                      WORLD_SIZE=str(WORLD), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo")


def lead():
    request = json.loads(sys.stdin.readline())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = subprocess.Popen([sys.executable, __file__, "1", str(port)], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, text=True)
    tell = lambda line: (other.stdin.write(line + "\n"), other.stdin.flush())
    try:
        tell(json.dumps(request))
        join(0, port)
        trainee = Trainee(request)
        _, loss = steps(trainee, 1)
        answer(torch=torch.__version__.split("+")[0], loss=loss)
        for line in sys.stdin:
            tell(line.strip())
            seconds, loss = steps(trainee, int(line))
            answer(seconds=seconds, loss=loss)
    except Exception as error:  # noqa: BLE001: whatever it is, the other side is told
        answer(failed=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:200])
    finally:
        other.kill()


def follow(rank, port):
    request = json.loads(sys.stdin.readline())
    join(rank, port)
    trainee = Trainee(request)
    steps(trainee, 1)
    for line in sys.stdin:
        steps(trainee, int(line))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        lead()
    else:
        follow(int(sys.argv[1]), int(sys.argv[2]))
