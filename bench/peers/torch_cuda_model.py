"""A Llama-style decoder in PyTorch on a GPU: its training step, compiled, and its generation.

The same sizes, steps and numbers of tokens as the cases of bench/cases/engine.ts. Training in 16 bits is autocast over
fp32 masters; generation has weights and cache in the dtype.
"""

import torch
from torch import nn
import torch.nn.functional as F

from torch_cuda import DEVICE


def rotary_table(depth, length):
    frequencies = 10000.0 ** -(torch.arange(0, depth, 2, device=DEVICE).float() / depth)
    angles = torch.outer(torch.arange(length, device=DEVICE).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Layer(nn.Module):
    def __init__(self, hidden, heads, kv_heads, ffn):
        super().__init__()
        self.depth = hidden // heads
        self.counts = (hidden, kv_heads * self.depth, kv_heads * self.depth)
        self.grouped = {"enable_gqa": True} if kv_heads != heads else {}
        self.attention_norm, self.mlp_norm = nn.RMSNorm(hidden, 1e-6), nn.RMSNorm(hidden, 1e-6)
        self.qkv = nn.Linear(hidden, sum(self.counts), bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.gate_up = nn.Linear(hidden, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x, table, cache, position):
        batch, length, hidden = x.shape
        parts = self.qkv(self.attention_norm(x)).split(self.counts, -1)
        q, k, v = (part.view(batch, length, -1, self.depth).transpose(1, 2) for part in parts)
        q, k = rotate(q, *table), rotate(k, *table)
        if cache is not None:
            keys, values = cache
            keys[:, :, position : position + length] = k
            values[:, :, position : position + length] = v
            k, v = keys[:, :, : position + length], values[:, :, : position + length]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1, **self.grouped)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, hidden))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, layers, hidden, heads, kv_heads, ffn, vocabulary, length):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, kv_heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, 1e-6)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        self.table = rotary_table(hidden // heads, length)

    def forward(self, ids, caches=None, position=0, last=False):
        table = [part[position : position + ids.shape[1]] for part in self.table]
        x = self.embedding(ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, table, None if caches is None else caches[i], position)
        return self.head(self.norm(x[:, -1] if last else x))


def sizes(dims, more):
    """Layers, hidden, heads, heads of keys and values (where they are not as many), ffn, vocabulary, and what follows."""
    dims = list(dims)
    if len(dims) == 5 + more:
        dims.insert(3, dims[2])
    return dims[:6], dims[6:]


def training_step(dtype, *dims):
    """Forward, cross-entropy, backward, clipping, AdamW."""
    size, (batch, length) = sizes(dims, 2)
    vocabulary = size[-1]

    def made(compiled):
        def make():
            with torch.device(DEVICE):
                model = Model(*size, length)
            if compiled:
                for layer in model.layers:  # the same code for all: it is compiled once
                    layer.compile(dynamic=False)
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
            scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
            ids = torch.randint(0, vocabulary, (batch, length + 1), device=DEVICE)

            @torch.enable_grad()
            def run():
                with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
                    logits = model(ids[:, :-1])
                loss = F.cross_entropy(logits.float().view(-1, vocabulary), ids[:, 1:].reshape(-1))
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()

            return run

        return make

    return {"eager": made(False), "compiled": made(True)}


def generation(dtype, *dims):
    """One pass over the prompts, then a sampled token a step with a cache of keys and values."""
    size, (batch, prompt, new) = sizes(dims, 3)
    layers, hidden, heads, kv_heads, _, vocabulary = size

    def make():
        with torch.device(DEVICE):
            model = Model(*size, prompt + new).eval().to(dtype)
        shape = (batch, kv_heads, prompt + new, hidden // heads)

        def run():
            ids = torch.randint(0, vocabulary, (batch, prompt), device=DEVICE)
            caches = [
                (torch.zeros(shape, dtype=dtype, device=DEVICE), torch.zeros(shape, dtype=dtype, device=DEVICE))
                for _ in range(layers)
            ]
            logits = model(ids, caches, 0, last=True)
            for i in range(new):
                token = torch.multinomial(torch.softmax(logits.float(), -1), 1)
                if i + 1 < new:
                    logits = model(token, caches, prompt + i, last=True)

        return run

    return {"eager": make}
