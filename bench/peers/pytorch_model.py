"""The reference model in PyTorch: a small Llama-style decoder, its training step and its generation.

The same sizes, steps and numbers of tokens as the cases of bench/cases/engine.ts. bf16 is autocast over fp32 masters in
training, bf16 weights and cache in generation.
"""

import math
import warnings

import torch
from torch import nn
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=UserWarning)


class RmsNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


def rotary_table(depth, length):
    frequencies = 10000.0 ** -(torch.arange(0, depth, 2).float() / depth)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Layer(nn.Module):
    def __init__(self, hidden, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = RmsNorm(hidden), RmsNorm(hidden)
        # Separate matrices: merged ones cost PyTorch a tenth more here, for the copies of their strided parts.
        self.q, self.k, self.v, self.out = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(hidden, ffn, bias=False) for _ in range(2))
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x, table, mask, cache, position):
        batch, length, hidden = x.shape
        normed = self.attention_norm(x)
        q, k, v = (
            project(normed).view(batch, length, self.heads, -1).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        q, k = rotate(q, *table), rotate(k, *table)
        if cache is not None:
            keys, values = cache
            keys[:, :, position : position + length] = k
            values[:, :, position : position + length] = v
            k, v = keys[:, :, : position + length], values[:, :, : position + length]
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores + mask
        attended = torch.softmax(scores.float(), -1).to(v.dtype) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, hidden))
        normed = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Model(nn.Module):
    def __init__(self, layers, hidden, heads, ffn, vocabulary, length):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, ffn) for _ in range(layers))
        self.norm = RmsNorm(hidden)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        self.table = rotary_table(hidden // heads, length)

    def forward(self, ids, caches=None, position=0, last=False):
        length = ids.shape[1]
        table = [part[position : position + length] for part in self.table]
        mask = None
        if length > 1:
            mask = torch.triu(torch.full((length, position + length), -math.inf), position + 1)
        x = self.embedding(ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, table, mask, None if caches is None else caches[i], position)
        return self.head(self.norm(x[:, -1] if last else x))


def training_step(dtype, layers, hidden, heads, ffn, vocabulary, batch, length):
    """Forward, cross-entropy, backward, AdamW. (Without clipping, which our engine does: the peer is given that.)"""
    if dtype == torch.float16:
        raise RuntimeError("autocast on CPUs knows bfloat16 alone")
    model = Model(layers, hidden, heads, ffn, vocabulary, length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    ids = torch.randint(0, vocabulary, (batch, length + 1))

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().view(-1, vocabulary), ids[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def generation(dtype, layers, hidden, heads, ffn, vocabulary, batch, prompt, new):
    """One pass over the prompts, then a sampled token a step with a cache of keys and values."""
    model = Model(layers, hidden, heads, ffn, vocabulary, prompt + new).eval().to(dtype)
    shape = (batch, heads, prompt + new, hidden // heads)

    @torch.no_grad()
    def run():
        ids = torch.randint(0, vocabulary, (batch, prompt))
        caches = [(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for _ in range(layers)]
        logits = model(ids, caches, 0, last=True)
        for i in range(new):
            token = torch.multinomial(torch.softmax(logits.float(), -1), 1)
            if i + 1 < new:
                logits = model(token, caches, prompt + i, last=True)

    return run
