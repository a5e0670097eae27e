"""PyTorch on a GPU; the requests and answers are those of driver.h.

Times are those of CUDA events around replays of a CUDA graph that has a run of each input set, as our own are of a
recording of them: what Python needs for a call does not count. Where PyTorch has several implementations, each is
tried and the fastest is taken; the note names it and the others.
"""

import math
import sys

import torch
import torch.nn.functional as F

SAMPLE_MS = 10.0
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DEVICE = "cuda"


class NotOffered(Exception):
    """PyTorch has nothing for a question."""


def normal(shape, dtype, std=1.0):
    """Normal values; above a million elements copies of a block of a million."""
    size = math.prod(shape)
    block = torch.randn(min(size, 2**20), device=DEVICE).mul_(std).to(dtype)
    return block.repeat(-(-size // len(block)))[:size].view(shape)


# An op is a function of the dtype and the dimensions that returns its implementations by name: functions that make a
# set of inputs and return what is run on it.


def gemm(dtype, m, n, k):
    def make():
        x, weight, out = normal((m, k), dtype), normal((n, k), dtype, k**-0.5), torch.empty((m, n), dtype=dtype, device=DEVICE)
        return lambda: torch.mm(x, weight.t(), out=out)

    return {"mm": make}


def linear_input_gradient(dtype, m, n, k):
    def make():
        dy, weight, out = normal((m, n), dtype), normal((n, k), dtype), torch.empty((m, k), dtype=dtype, device=DEVICE)
        return lambda: torch.mm(dy, weight, out=out)

    return {"mm": make}


def linear_weight_gradient(dtype, m, n, k):
    """In the dtype of the operands, where ours is added to fp32."""

    def make():
        dy, x, out = normal((m, n), dtype), normal((m, k), dtype), torch.empty((n, k), dtype=dtype, device=DEVICE)
        return lambda: torch.mm(dy.t(), x, out=out)

    return {"mm": make}


def attention_inputs(dtype, sequences, heads, queries, keys, depth, kv_heads=None):
    """As a model has them: the heads of a token lie side by side."""

    def tokens(length, count):
        return normal((sequences, length, count, depth), dtype).transpose(1, 2)

    kv = kv_heads or heads
    return tokens(queries, heads), tokens(keys, kv), tokens(keys, kv)


def attend(q, k, v, causal):
    grouped = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **grouped)


def with_backend(name, make):
    """`make`, and what it returns, under one implementation of scaled_dot_product_attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = getattr(SDPBackend, name, None)
    if backend is None:
        raise NotOffered(f"no {name}")

    def limited():
        with sdpa_kernel(backend):
            run = make()

        def again():
            with sdpa_kernel(backend):
                return run()

        return again

    return limited


BACKENDS = {
    "flash": "FLASH_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "math": "MATH",
}


def each_backend(make, sequences, heads, queries, keys, *_):
    """The one that keeps all scores is asked only where they are few."""
    few = sequences * heads * queries * keys < 2**28
    names = {name: backend for name, backend in BACKENDS.items() if name != "math" or few}
    return {name: with_backend(backend, make) for name, backend in names.items()}


def attention(dtype, *dims):
    causal = dims[2] == dims[3]

    def make():
        q, k, v = attention_inputs(dtype, *dims)
        return lambda: attend(q, k, v, causal)

    return each_backend(make, *dims)


def attention_backward(dtype, *dims):
    def make():
        inputs = [t.requires_grad_() for t in attention_inputs(dtype, *dims)]
        with torch.enable_grad():
            out = attend(*inputs, True)
        gradient = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)

    return each_backend(make, *dims)


def log_softmax(dtype, rows, vocabulary):
    def make():
        x = normal((rows, vocabulary), dtype, 3)
        return lambda: torch.log_softmax(x, -1, dtype=torch.float32)  # as ours: fp32 log-probs

    return {"log_softmax": make}


def log_softmax_backward(dtype, rows, vocabulary):
    def made(run):
        def make():
            logprobs = F.log_softmax(normal((rows, vocabulary), torch.float32, 3), -1)
            gradient = normal((rows, vocabulary), torch.float32)
            return lambda: run(gradient, logprobs)

        return make

    def then_cast(gradient, logprobs):
        return torch._log_softmax_backward_data(gradient, logprobs, -1, torch.float32).to(dtype)

    def at_once(gradient, logprobs):
        return torch._log_softmax_backward_data(gradient, logprobs, -1, dtype)

    return {"then_cast": made(then_cast), **({"at_once": made(at_once)} if dtype == torch.float16 else {})}


def add(dtype, *shape):
    def make():
        a, b = normal(shape, dtype), normal(shape, dtype)
        return lambda: torch.add(a, b)

    return {"add": make}


def cast(dtype, *shape):
    def make():
        x = normal(shape, torch.float32)
        return lambda: x.to(dtype)

    return {"to": make}


def rms_norm(dtype, rows, width):
    def norm(x, weight):
        return F.rms_norm(x, (width,), weight, 1e-6)

    return compiled_too(norm, lambda: (normal((rows, width), dtype), torch.ones(width, dtype=dtype, device=DEVICE)))


def rms_norm_backward(dtype, rows, width):
    def make():
        x = normal((rows, width), dtype).requires_grad_()
        weight = torch.ones(width, dtype=dtype, device=DEVICE, requires_grad=True)
        with torch.enable_grad():
            out = F.rms_norm(x, (width,), weight, 1e-6)
        dy = normal((rows, width), dtype)
        return lambda: torch.autograd.grad(out, (x, weight), dy, retain_graph=True)

    return {"rms_norm": make}


def swiglu(dtype, rows, width):
    def gated(x):
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    return compiled_too(gated, lambda: (normal((rows, width), dtype),))


def embedding(dtype, rows, width):
    def make():
        table = normal((rows, width), dtype)
        ids = torch.randint(0, rows, (rows,), device=DEVICE)
        return lambda: F.embedding(ids, table)

    return {"embedding": make}


def adamw(dtype, *shape):
    """Over fp32 masters; without the copy in `dtype` that ours writes, too."""

    def make():
        master = normal(shape, torch.float32).requires_grad_()
        master.grad = normal(shape, torch.float32)
        optimizer = torch.optim.AdamW([master], lr=1e-6, betas=(0.9, 0.99), fused=True, capturable=True)
        return optimizer.step

    return {"fused": make}


def compiled_too(function, inputs):
    """A function that torch.compile may make one kernel of, on inputs that are its arguments."""

    def with_inputs(called):
        def make():
            arguments = inputs()
            return lambda: called(*arguments)

        return make

    return {"eager": with_inputs(function), "compiled": with_inputs(torch.compile(function, dynamic=False))}


def train_step(dtype, *dims):
    from torch_cuda_model import training_step

    return training_step(dtype, *dims)


def generate(dtype, *dims):
    from torch_cuda_model import generation

    return generation(dtype, *dims)


OPS = {
    "gemm": gemm,
    "linearInputGradient": linear_input_gradient,
    "linearWeightGradient": linear_weight_gradient,
    "attention": attention,
    "attentionBackward": attention_backward,
    "decodeAttention": attention,
    "logSoftmax": log_softmax,
    "logSoftmaxBackward": log_softmax_backward,
    "add": add,
    "cast": cast,
    "rmsNorm": rms_norm,
    "rmsNormBackward": rms_norm_backward,
    "swiglu": swiglu,
    "embedding": embedding,
    "adamw": adamw,
    "trainStep": train_step,
    "generate": generate,
}
# What waits for the GPU itself: not captured.
CALLED = {"trainStep", "generate"}


class Timer:
    """Runs on the input sets in turn, as a graph of all of them or (`called`) one by one."""

    def __init__(self, runs, called):
        self.sets = runs
        self.graph = None
        self.rounds = 1
        for run in runs * 2:
            run()
        torch.cuda.synchronize()
        if not called:
            self.capture()
        while (took := self.sample(self.rounds)) < SAMPLE_MS:
            wanted = int(1.2 * self.rounds * SAMPLE_MS / max(took, 1e-3))
            self.rounds = max(self.rounds + 1, min(16 * self.rounds, wanted))

    def capture(self):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            for run in self.sets:
                run()
        self.graph = graph

    def round(self):
        if self.graph:
            self.graph.replay()
        else:
            for run in self.sets:
                run()

    def sample(self, rounds):
        """Milliseconds of so many rounds."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(rounds):
            self.round()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def measure(self, milliseconds):
        each, total = [], 0.0
        while total < milliseconds or len(each) < 2:
            took = self.sample(self.rounds)
            total += took
            each.append(took / self.rounds / len(self.sets))
        return each

    def milliseconds(self):
        each = sorted(self.measure(3 * SAMPLE_MS))
        return each[len(each) // 2]


def prepare(op, dtype, sets, *dims):
    """The timer of the fastest implementation, and what the note says of all."""
    if op not in OPS:
        raise NotOffered("no such op")
    timers, refusals = {}, []
    for name, make in OPS[op](TYPES[dtype], *map(int, dims)).items():
        try:
            with torch.no_grad():
                timer = Timer([make() for _ in range(int(sets))], op in CALLED)
            timers[name] = (timer.milliseconds(), timer)
        except Exception as error:  # whatever torch.compile or a backend throws
            refusals.append(f"{name}: {reason(error)}")
        # The best is kept, the others' memory is not.
        best = min(timers, key=lambda each: timers[each][0], default=None)
        for other in timers:
            if other != best:
                timers[other] = (timers[other][0], None)
        torch.cuda.empty_cache()
    if not timers:
        raise NotOffered("; ".join(refusals))
    notes = [f"{name} {ms:.4g} ms" for name, (ms, _) in timers.items()] if len(timers) > 1 else []
    return timers[best][1], "; ".join([best, *notes, *refusals])


def main():
    if not torch.cuda.is_available():
        say("none no PyTorch with CUDA")
        return
    torch.manual_seed(0)
    # One stream for all, which can be captured: gradients run on the stream of their forward pass.
    torch.cuda.set_stream(torch.cuda.Stream())
    # fp32 products in fp32, as ours are.
    torch.backends.cuda.matmul.allow_tf32 = False
    say(f"hello {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}")
    timer = None
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "prepare":
            timer = None
            torch.cuda.empty_cache()
            try:
                timer, note = prepare(*words)
                say(f"ready {note}")
            except Exception as error:
                say(f"none {reason(error)}")
        elif verb == "time" and timer:
            with torch.no_grad():
                say("samples " + " ".join(f"{ms:.6g}" for ms in timer.measure(float(words[0]))))
        elif verb == "time":
            say("none nothing is prepared")
        else:
            timer = None
            torch.cuda.empty_cache()
            say("dropped")


def reason(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
