"""The Triton part of the corpus: kernels that a newcomer would write after Triton's tutorials."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def triton_softmax(y, x, row_stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    v = tl.load(x + row * row_stride + at, mask=at < n, other=-float("inf"))
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row * row_stride + at, e / tl.sum(e, axis=0), mask=at < n)


@triton.jit
def triton_matmul(a, b, c, m, n, k, lda, ldb, ldc, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    tiles = tl.cdiv(n, BN)
    pid = tl.program_id(0)
    im = (pid // tiles) * BM + tl.arange(0, BM)
    jn = (pid % tiles) * BN + tl.arange(0, BN)
    ck = tl.arange(0, BK)
    pa = a + (im % m)[:, None] * lda + ck[None, :]
    pb = b + ck[:, None] * ldb + (jn % n)[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for x in range(0, tl.cdiv(k, BK)):
        va = tl.load(pa, mask=ck[None, :] < k - x * BK, other=0.0)
        vb = tl.load(pb, mask=ck[:, None] < k - x * BK, other=0.0)
        acc = tl.dot(va, vb, acc)
        pa += BK
        pb += BK * ldb
    tl.store(c + im[:, None] * ldc + jn[None, :], acc, mask=(im[:, None] < m) & (jn[None, :] < n))


@triton.jit
def triton_attention(q, k, v, o, scale, tokens, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
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
    tl.store(o + base + im[:, None] * D + d[None, :], acc / total[:, None], mask=im[:, None] < tokens)


# Name: kernel, element type of the matrices, compile-time sizes, warps, stages.
KERNELS = {
    "triton_softmax": (triton_softmax, "fp32", {"BLOCK": 512}, 4, 3),
    "triton_matmul_f16": (triton_matmul, "fp16", {"BM": 64, "BN": 64, "BK": 32}, 4, 3),
    "triton_matmul_bf16": (triton_matmul, "bf16", {"BM": 64, "BN": 64, "BK": 32}, 4, 3),
    "triton_attention_f16": (triton_attention, "fp16", {"BM": 64, "BN": 32, "D": 64}, 4, 2),
    "triton_attention_bf16": (triton_attention, "bf16", {"BM": 64, "BN": 32, "D": 64}, 4, 2),
}
POINTERS = {"x", "y", "a", "b", "c", "q", "k", "v", "o"}


def ptx(name):
    fn, elem, sizes, warps, stages = KERNELS[name]
    signature, aligned = {}, {}
    for i, p in enumerate(fn.arg_names):
        if p in sizes:
            signature[p] = "constexpr"
        elif p == "scale":
            signature[p] = "fp32"
        elif p in POINTERS and not (fn is triton_matmul and p == "k"):
            signature[p] = "*fp32" if fn is triton_matmul and p == "c" else f"*{elem}"
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[p] = "i32"
            if fn is triton_matmul:
                aligned[(i,)] = [["tt.divisibility", 16]]
    consts = {(fn.arg_names.index(k),): v for k, v in sizes.items()}
    source = ASTSource(fn, signature, constexprs=consts, attrs=aligned)
    out = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": warps, "num_stages": stages})
    return out.asm["ptx"], out.metadata.shared
