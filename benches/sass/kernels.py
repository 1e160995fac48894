"""Triton's side of the comparison: the product and the attention of Triton's tutorials, with sizes known or not."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def matmul(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    tiles = tl.cdiv(n, BN)
    pid = tl.program_id(0)
    im = (pid // tiles) * BM + tl.arange(0, BM)
    jn = (pid % tiles) * BN + tl.arange(0, BN)
    ck = tl.arange(0, BK)
    pa = a + (im % m)[:, None] * k + ck[None, :]
    pb = b + ck[:, None] * n + (jn % n)[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for x in range(0, tl.cdiv(k, BK)):
        va = tl.load(pa, mask=ck[None, :] < k - x * BK, other=0.0)
        vb = tl.load(pb, mask=ck[:, None] < k - x * BK, other=0.0)
        acc = tl.dot(va, vb, acc)
        pa += BK
        pb += BK * n
    tl.store(c + im[:, None] * n + jn[None, :], acc.to(tl.float16), mask=(im[:, None] < m) & (jn[None, :] < n))


@triton.jit
def matmul_known(a, b, c, m: tl.constexpr, n: tl.constexpr, k: tl.constexpr,
                 BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    tiles: tl.constexpr = n // BN
    pid = tl.program_id(0)
    im = (pid // tiles) * BM + tl.arange(0, BM)
    jn = (pid % tiles) * BN + tl.arange(0, BN)
    ck = tl.arange(0, BK)
    pa = a + im[:, None] * k + ck[None, :]
    pb = b + ck[:, None] * n + jn[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for x in range(0, k // BK):
        acc = tl.dot(tl.load(pa), tl.load(pb), acc)
        pa += BK
        pb += BK * n
    tl.store(c + im[:, None] * n + jn[None, :], acc.to(tl.float16))


@triton.jit
def attention(q, k, v, o, scale, tokens, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    start = tl.program_id(0)
    base = tl.program_id(1) * tokens * D
    im = start * BM + tl.arange(0, BM)
    jn = tl.arange(0, BN)
    d = tl.arange(0, D)
    tq = tl.load(q + base + im[:, None] * D + d[None, :], mask=im[:, None] < tokens, other=0.0)
    best = tl.full((BM,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    acc = tl.zeros((BM, D), dtype=tl.float32)
    for j in range(0, tl.minimum((start + 1) * BM, tokens), BN):
        at = j + jn
        tk = tl.load(k + base + at[None, :] * D + d[:, None], mask=at[None, :] < tokens, other=0.0)
        s = tl.dot(tq, tk) * (scale * 1.44269504)
        s = tl.where(im[:, None] >= at[None, :], s, -float("inf"))
        new = tl.maximum(best, tl.max(s, axis=1))
        p = tl.exp2(s - new[:, None])
        old = tl.exp2(best - new)
        total = total * old + tl.sum(p, axis=1)
        tv = tl.load(v + base + at[:, None] * D + d[None, :], mask=at[:, None] < tokens, other=0.0)
        acc = tl.dot(p.to(tv.dtype), tv, acc * old[:, None])
        best = new
    tl.store(o + base + im[:, None] * D + d[None, :], (acc / total[:, None]).to(tl.float16), mask=im[:, None] < tokens)


@triton.jit
def attention_whole(q, k, v, o, scale, tokens, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    """The form of the tutorial: tiles before the diagonal without a mask, then the diagonal; whole tiles only."""
    start = tl.program_id(0)
    base = tl.program_id(1) * tokens * D
    im = start * BM + tl.arange(0, BM)
    jn = tl.arange(0, BN)
    d = tl.arange(0, D)
    tq = tl.load(q + base + im[:, None] * D + d[None, :])
    pk = k + base + jn[None, :] * D + d[:, None]
    pv = v + base + jn[:, None] * D + d[None, :]
    best = tl.full((BM,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    acc = tl.zeros((BM, D), dtype=tl.float32)
    factor = scale * 1.44269504
    for j in range(0, start * BM, BN):
        s = tl.dot(tq, tl.load(pk))
        new = tl.maximum(best, tl.max(s, axis=1) * factor)
        p = tl.exp2(s * factor - new[:, None])
        old = tl.exp2(best - new)
        total = total * old + tl.sum(p, axis=1)
        tv = tl.load(pv)
        acc = tl.dot(p.to(tv.dtype), tv, acc * old[:, None])
        best = new
        pk += BN * D
        pv += BN * D
    for j in range(start * BM, (start + 1) * BM, BN):
        s = tl.dot(tq, tl.load(pk)) * factor + tl.where(im[:, None] >= (j + jn)[None, :], 0, -1.0e6)
        new = tl.maximum(best, tl.max(s, axis=1))
        p = tl.exp2(s - new[:, None])
        old = tl.exp2(best - new)
        total = total * old + tl.sum(p, axis=1)
        tv = tl.load(pv)
        acc = tl.dot(p.to(tv.dtype), tv, acc * old[:, None])
        best = new
        pk += BN * D
        pv += BN * D
    tl.store(o + base + im[:, None] * D + d[None, :], (acc / total[:, None]).to(tl.float16))


def ptx(fn, sizes, warps, stages, arch=80):
    """PTX and bytes of shared memory."""
    signature, aligned = {}, {}
    for i, p in enumerate(fn.arg_names):
        if p in sizes:
            signature[p] = "constexpr"
        elif p == "scale":
            signature[p] = "fp32"
        else:
            pointer = p in "abcqvo" or p == "k" and fn in (attention, attention_whole)
            signature[p] = "*fp16" if pointer else "i32"
            aligned[(i,)] = [["tt.divisibility", 16]]
    consts = {(fn.arg_names.index(k),): v for k, v in sizes.items()}
    source = ASTSource(fn, signature, constexprs=consts, attrs=aligned)
    out = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps, "num_stages": stages})
    return out.asm["ptx"], out.metadata.shared, warps * 32
