"""The peer of parallel_step_bench: trains the same Llama in PyTorch on two processes over Gloo, a
line of steps for each line on stdin.

The first line is a JSON object as torch_step's, with `sharding`: "ddp" (gradients all-reduced while
the backward runs) or "fsdp" (each layer a unit whose weights are gathered for its forward and its
backward; gradients are reduced once a step). The answer is {"torch": version, "loss"} or {"failed":
why}; a later line with a number is answered by {"seconds", "loss"}: the mean wall time of so many
steps, and the last loss. bfloat16 is autocast over float32 weights, with fsdp gathered
as bfloat16 and reduced as float32.

    torch_parallel_step.py            rank 0, which starts rank 1
    torch_parallel_step.py RANK PORT
"""
import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from torch_step import (answer, decoder_layer, head_loss, head_name, new_optimizer, read_tokens,
                        read_weights, rotary)

WORLD = 2


class Weights(torch.nn.Module):
    """A unit's parameters by their names."""

    def __init__(self, weights):
        super().__init__()
        for name, tensor in weights.items():
            self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(tensor.detach()))

    def get(self, name):
        return self._parameters[name.replace(".", "_")]


class Layer(Weights):
    def forward(self, x, c, cos, sin):
        return decoder_layer(x, self.get, c, cos, sin)


class Llama(Weights):
    def __init__(self, weights, config):
        outer = {n: w for n, w in weights.items() if not n.startswith("model.layers.")}
        super().__init__(outer)
        self.config = config
        of_layer = lambda i: {n.removeprefix(f"model.layers.{i}."): w for n, w in weights.items()
                              if n.startswith(f"model.layers.{i}.")}
        self.layers = torch.nn.ModuleList(
            Layer(of_layer(i)) for i in range(config["num_hidden_layers"]))

    def forward(self, rows, cos, sin):
        x = F.embedding(rows[:, :-1], self.get("model.embed_tokens.weight"))
        for layer in self.layers:
            x = layer(x, self.config, cos, sin)
        return head_loss(x, self.get("model.norm.weight"), self.get(head_name(self.config)),
                         self.config, rows[:, 1:])


class Trainee:
    def __init__(self, request, rank):
        c, self.training = request["config"], request["training"]
        self.fsdp = request["sharding"] == "fsdp"
        self.autocast = request["dtype"] == "bfloat16"
        self.cos, self.sin = rotary(c, self.training, self.autocast)
        self.microbatches = read_tokens(request["tokens"], self.training)[rank::WORLD]
        model = Llama(read_weights(request["weights"], c), c)
        if self.fsdp:
            mesh = init_device_mesh("cpu", (WORLD,))
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32,
                                          cast_forward_inputs=False)
            options = dict(mesh=mesh, mp_policy=policy if self.autocast else MixedPrecisionPolicy())
            for layer in model.layers:
                fully_shard(layer, **options)
            self.model = fully_shard(model, **options)
        else:
            self.model = DistributedDataParallel(model)
        self.optimizer = new_optimizer(list(self.model.parameters()), self.training)

    def reduces(self, last):
        if self.fsdp:
            self.model.set_requires_gradient_sync(last)
            return contextlib.nullcontext()
        return contextlib.nullcontext() if last else self.model.no_sync()

    def step(self):
        """Returns this rank's mean loss."""
        count = self.microbatches[:, :, 1:].numel()
        total = 0.0
        for i, rows in enumerate(self.microbatches):
            with self.reduces(i + 1 == len(self.microbatches)):
                with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                    loss = self.model(rows, self.cos, self.sin) / count
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
        trainee = Trainee(request, 0)
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
    trainee = Trainee(request, rank)
    steps(trainee, 1)
    for line in sys.stdin:
        steps(trainee, int(line))


if len(sys.argv) == 1:
    lead()
else:
    follow(int(sys.argv[1]), int(sys.argv[2]))
