"""Weights that any program can make again from names and shapes: no file of them is kept.

Element i of tensor NAME comes from splitmix64 at fnv1a64(NAME) + i + 1 steps: the upper 24 bits are u in [-1, 1), an f32
without rounding. A tensor is u times a power of two, norms are 1 + u/4; `bf16` rounds to nearest even. Bytes of e4m3fn are the
top 8 bits with both NaN patterns made 0. tests/tests/language/weights.rs does the same.
"""

import json
import struct

import numpy as np

STEP, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def bits(name, count):
    seed = 0xCBF29CE484222325
    for b in name.encode():
        seed = (seed ^ b) * 0x100000001B3 & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(name, shape):
    z = bits(name, int(np.prod(shape)))
    return ((z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1).astype(np.float32).reshape(shape)


def is_norm(name):
    return name.endswith("norm.weight") or name.endswith("LayerNorm.weight")


def make(name, shape, dtype):
    """The array in f32 (or bytes of e4m3fn), as it is stored."""
    if dtype == "F8_E4M3":
        z = (bits(name, int(np.prod(shape))) >> np.uint64(56)).astype(np.uint8)
        z[(z & 0x7F) == 0x7F] = 0
        return z.reshape(shape)
    u = uniform(name, shape)
    if is_norm(name):
        v = 1 + u / 4
    elif name.endswith("_scale_inv"):
        v = (u / 2 + 1) / 1024
        if dtype == "F8_E8M0":
            return np.where(u < 0, 116, 117).astype(np.uint8)
    elif name.endswith("e_score_correction_bias"):
        # So far down that experts of other groups are better if they are hidden by 0.
        v = u / 4 - 1
    elif name.endswith("bias"):
        v = u / 8
    elif "embed" in name:
        v = u
    elif name.endswith("mlp.gate.weight") or name.endswith("block_sparse_moe.gate.weight"):
        v = u / 2
    else:
        # About 1 / sqrt(fan in), as a power of two.
        v = u * 2.0 ** -np.floor(np.log2(shape[-1]) / 2)
    v = v.astype(np.float32)
    return bf16(v) if dtype == "BF16" else v


def bf16(v):
    b = v.view(np.uint32).astype(np.uint64)
    b = (b + 0x7FFF + ((b >> 16) & 1)) & 0xFFFF0000
    return b.astype(np.uint32).view(np.float32)


def stored(v, dtype):
    if dtype == "BF16":
        return (v.view(np.uint32) >> 16).astype("<u2").tobytes()
    return v.tobytes()


def save(path, tensors):
    """Writes a safetensors file of [(name, dtype, shape, bytes)]."""
    header, at = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors:
            f.write(t[3])


def e4m3(b):
    """Values of e4m3fn bytes."""
    b = b.astype(np.int64)
    e, m = (b >> 3) & 15, b & 7
    v = np.where(e == 0, m / 8 * 2.0**-6, (1 + m / 8) * 2.0 ** (e - 7))
    return np.where(b >> 7, -v, v)


def dequantised(w, scales, dtype):
    s = 2.0 ** (scales.astype(np.float64) - 127) if dtype == "F8_E8M0" else scales.astype(np.float64)
    s = np.repeat(np.repeat(s, 128, 0), 128, 1)[: w.shape[0], : w.shape[1]]
    return (e4m3(w) * s).astype(np.float32)


def values(listed):
    """What the tensors stand for, in f32."""
    made = {n: (make(n, s, d), d) for n, d, s in listed}
    out = {}
    for n, (v, d) in made.items():
        if d == "F8_E4M3":
            out[n] = dequantised(v, *made[n + "_scale_inv"])
        elif not n.endswith("_scale_inv"):
            out[n] = v
    return out
