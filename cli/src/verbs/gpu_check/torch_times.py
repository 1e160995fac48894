import json
import sys

import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    sys.exit("torch has no CUDA device")
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False


def new(*shape, dtype=torch.float32):
    return torch.rand(*shape, device="cuda").mul_(2).sub_(1).to(dtype)


def made(name, n, m, k):
    """A function that does the problem's work, or None."""
    if name == "map":
        x, b = new(n, m), new(m)
        return lambda: F.gelu(x + b)
    if name == "map_bf16":
        x, z = new(n, m, dtype=torch.bfloat16), new(n, m, dtype=torch.bfloat16)
        return lambda: F.silu(x) * z
    if name in ("reduce_sum", "argmax", "softmax", "layer_norm", "rms_norm", "transpose"):
        x, s, b = new(n, m), new(m), new(m)
        return {
            "reduce_sum": lambda: x.sum(1),
            "argmax": lambda: x.argmax(1),
            "softmax": lambda: x.softmax(1),
            "layer_norm": lambda: F.layer_norm(x, (m,), s, b),
            "rms_norm": lambda: F.rms_norm(x, (m,), s, 1e-5),
            "transpose": lambda: x.t().contiguous(),
        }[name]
    if name == "top_k":
        x = new(n, 256)
        return lambda: x.topk(8, 1)
    if name == "gather":
        t, i = new(1000, m), torch.randint(0, 1000, (n,), device="cuda")
        return lambda: t[i]
    if name == "join_and_cut":
        a, b = new(n, m), new(n, m)
        return lambda: torch.cat([a, b, a], 1)[:, m:].contiguous()
    if name in ("matmul_f32", "matmul_f16", "matmul_bf16"):
        t = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[name[7:]]
        a, b = new(n, k, dtype=t), new(k, m, dtype=t)
        return lambda: a @ b
    if name == "matmul_bias_relu":
        a, b, c = new(n, k), new(k, m), new(m)
        return lambda: torch.relu(torch.addmm(c, a, b))
    if name == "matmul_batched":
        a, b = new(12, n, k), new(12, k, m)
        return lambda: a @ b
    if name == "conv":
        x, w, b = new(1, 16, n, m), new(32, 16, 3, 3), new(32)
        return lambda: F.conv2d(x, w, b, padding=1)
    if name == "conv_depthwise":
        x, w = new(1, 32, n, m), new(32, 1, 3, 3)
        return lambda: F.conv2d(x, w, padding=1, groups=32)
    if name == "max_pool":
        x = new(1, 16, n, m)
        return lambda: F.max_pool2d(x, 2, 1)
    if name in ("attention", "attention_f16"):
        t = torch.float16 if name.endswith("f16") else torch.float32
        q, k, v = new(1, 8, n, 64, dtype=t), new(1, 2, n, 64, dtype=t), new(1, 2, n, 64, dtype=t)
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return None


out = {}
for word in sys.argv[1:]:
    name, sizes = word.split(":")
    work = made(name, *map(int, sizes.split(",")))
    if work is None:
        continue
    best = float("inf")
    for _ in range(10):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)
    out[name] = best
print(json.dumps(out))
