"""The peer of attention_bench: causal scaled_dot_product_attention of PyTorch on one thread.

The first line on stdin is a JSON object: `length`, `heads`, `head_dim`, `dtype`, `core`, and
`tensors`, a file of q, k, v and dout in float32, each (length, heads, head_dim). The answer is
{"torch": version, "norms": of out, dq, dk and dv, "forward", "backward": seconds of that first
call} or {"failed": why}; every later line, "forward" or "backward" and a number of calls, is answered
by {"seconds"} of one of them, CPU time of this process.
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_num_interop_threads(1)


def answer(**fields):
    print(json.dumps(fields), flush=True)


def seconds_of(call, repeats=1):
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


class Attention:
    def __init__(self, request):
        shape = (4, 1, request["length"], request["heads"], request["head_dim"])
        flat = torch.from_file(request["tensors"], size=torch.Size(shape).numel())
        dtype = getattr(torch, request["dtype"])
        # (batch, heads, length, head_dim), laid out as a layer's product leaves them.
        q, k, v, self.dout = (x.to(dtype).transpose(1, 2) for x in flat.view(shape))
        self.inputs = [x.detach().requires_grad_() for x in (q, k, v)]

    def forward(self):
        self.out = F.scaled_dot_product_attention(*self.inputs, is_causal=True)

    def backward(self):
        self.gradients = torch.autograd.grad(self.out, self.inputs, self.dout, retain_graph=True)


def main():
    request = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, {request["core"]})
    try:
        attention = Attention(request)
        forward, backward = seconds_of(attention.forward), seconds_of(attention.backward)
        norms = [x.double().norm().item() for x in (attention.out, *attention.gradients)]
    except Exception as error:  # noqa: BLE001: whatever PyTorch says
        return answer(failed=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:200])
    answer(torch=torch.__version__.split("+")[0], norms=norms, forward=forward, backward=backward)
    for line in sys.stdin:
        call, repeats = line.split()
        answer(seconds=seconds_of(getattr(attention, call), int(repeats)))


if __name__ == "__main__":
    main()
