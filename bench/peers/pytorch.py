"""PyTorch's driver; the requests and answers are those of driver.h.

Written for the 1.13 of Debian 12 and for later ones. Outputs are kept (`out=`) where the op has that, since a fresh
output a call costs more in page faults than the arithmetic does.
"""

import math
import os
import sys
import time

import torch
import torch.nn.functional as F

SAMPLE_MS = 2.0
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class NotOffered(Exception):
    """PyTorch has nothing for a question."""


def normal(shape, dtype, std=1.0):
    return (torch.randn(shape) * std).to(dtype)


def gemm(dtype, m, n, k):
    x, weight = normal((m, k), dtype), normal((n, k), dtype, k**-0.5)
    out = torch.empty((m, n), dtype=dtype)
    transposed = weight.t()

    def run():
        with torch.no_grad():
            torch.mm(x, transposed, out=out)

    return run


def attend(q, k, v, mask):
    scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
    return torch.bmm(torch.softmax(scores, -1), v)


def attention_inputs(dtype, sequences, heads, queries, keys, depth):
    q = normal((sequences * heads, queries, depth), dtype)
    k, v = (normal((sequences * heads, keys, depth), dtype) for _ in range(2))
    mask = torch.zeros((queries, keys), dtype=dtype)
    if queries == keys:
        mask = torch.triu(torch.full((queries, keys), -math.inf), 1).to(dtype)
    return q, k, v, mask


def attention(dtype, *dims):
    q, k, v, mask = attention_inputs(dtype, *dims)
    if hasattr(F, "scaled_dot_product_attention"):
        shape = (dims[0], dims[1], -1, dims[4])
        q4, k4, v4 = (t.view(shape) for t in (q, k, v))
        causal = dims[2] == dims[3]

        def run():
            with torch.no_grad():
                F.scaled_dot_product_attention(q4, k4, v4, is_causal=causal)

        return run

    def run():
        with torch.no_grad():
            attend(q, k, v, mask)

    return run


def attention_backward(dtype, *dims):
    q, k, v, mask = attention_inputs(dtype, *dims)
    inputs = [t.requires_grad_() for t in (q, k, v)]
    if hasattr(F, "scaled_dot_product_attention"):
        shape = (dims[0], dims[1], -1, dims[4])
        out = F.scaled_dot_product_attention(*(t.view(shape) for t in inputs), is_causal=True)
    else:
        out = attend(*inputs, mask)
    gradient = torch.randn_like(out)

    def run():
        torch.autograd.grad(out, inputs, gradient, retain_graph=True)

    return run


def log_softmax(dtype, rows, vocabulary):
    x = normal((rows, vocabulary), dtype, 3)
    out = torch.empty_like(x)

    def run():
        with torch.no_grad():
            torch._log_softmax(x, -1, False, out=out)

    return run


def log_softmax_backward(dtype, rows, vocabulary):
    logprobs = F.log_softmax(normal((rows, vocabulary), dtype, 3), -1)
    gradient = normal((rows, vocabulary), dtype)
    out = torch.empty_like(gradient)

    def run():
        with torch.no_grad():
            torch._log_softmax_backward_data(gradient, logprobs, -1, dtype, out=out)

    return run


def train_step(dtype, *dims):
    from pytorch_model import training_step

    return training_step(dtype, *dims)


def generate(dtype, *dims):
    from pytorch_model import generation

    return generation(dtype, *dims)


OPS = {
    "gemm": gemm,
    "attention": attention,
    "attentionBackward": attention_backward,
    "decodeAttention": attention,
    "logSoftmax": log_softmax,
    "logSoftmaxBackward": log_softmax_backward,
    "trainStep": train_step,
    "generate": generate,
}


class Timer:
    def __init__(self, runs):
        self.sets = runs
        self.next = 0
        self.runs = 1
        for _ in runs:
            self.sample(1)
        while True:
            took = self.sample(self.runs)
            if took >= SAMPLE_MS:
                break
            wanted = int(1.2 * self.runs * SAMPLE_MS / max(took, 1e-3))
            self.runs = max(self.runs + 1, min(16 * self.runs, wanted))

    def sample(self, count):
        start = time.perf_counter()
        for _ in range(count):
            self.sets[self.next]()
            self.next = (self.next + 1) % len(self.sets)
        return 1000 * (time.perf_counter() - start)

    def measure(self, milliseconds):
        each, total = [], 0.0
        while total < milliseconds or len(each) < 2:
            took = self.sample(self.runs)
            total += took
            each.append(took / self.runs)
        return each


def prepare(op, dtype, sets, *dims):
    if op not in OPS:
        raise NotOffered("no such op")
    return Timer([OPS[op](TYPES[dtype], *map(int, dims)) for _ in range(int(sets))])


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    say(f"hello {torch.__version__}")
    timer = None
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "prepare":
            try:
                timer = None
                timer = prepare(*words)
                say("ready")
            except (NotOffered, RuntimeError) as error:
                say(f"none {str(error).splitlines()[0]}")
        elif verb == "time" and timer:
            say("samples " + " ".join(f"{ms:.6g}" for ms in timer.measure(float(words[0]))))
        elif verb == "time":
            say("none nothing is prepared")
        else:
            timer = None
            say("dropped")


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
