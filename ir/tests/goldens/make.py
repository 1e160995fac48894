"""Writes graph.txt: cases of the graph dialect with results from numpy, ONNX's reference evaluator and onnxruntime.

Run with numpy, ml_dtypes, onnx and onnxruntime installed: `python3 ir/tests/goldens/make.py`. The Rust tests read graph.txt only.
A case is: the op with its attributes, its operands (`_` if absent), its results.
"""

import pathlib

import numpy as np
from ml_dtypes import float8_e4m3fn
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession

rng = np.random.default_rng(7)
NAMES = {
    "float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8", "bool": "bool",
    "float8_e4m3fn": "e4m3fn",
}
lines = []


def dense(a):
    a = np.asarray(a)
    if a.dtype == bool:
        nums = [str(int(v)) for v in a.ravel()]
    else:
        nums = [repr(v.item()) for v in a.ravel()]
    shape = ", ".join(str(n) for n in a.shape)
    return f"dense<{NAMES[a.dtype.name]}[{shape}]: {', '.join(nums)}>"


def case(op, ins, outs):
    lines.append(f"op graph.{op}")
    lines.extend("in " + ("_" if a is None else dense(a)) for a in ins)
    lines.extend("out " + dense(a) for a in outs)
    lines.append("")


def onnx(op, ins, node, extra=(), outs=1, opset=23, drop=(), by_runtime=False, **attrs):
    """A case whose results are those of an ONNX node on `ins` and the constant inputs `extra`, found by ONNX's reference or
    by onnxruntime."""
    feed = [a for a in ins] + [np.asarray(a) if a is not None else None for a in extra]
    names = ["" if a is None else f"i{k}" for k, a in enumerate(feed)]
    types = {f"i{k}": a for k, a in enumerate(feed) if a is not None}
    info = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in types.items()]
    onames = [f"o{k}" for k in range(outs)]
    oinfo = [helper.make_empty_tensor_value_info(n) for n in onames]
    graph = helper.make_graph([helper.make_node(node, names, onames, **attrs)], "g", info, oinfo)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    if by_runtime:
        model.ir_version = 10
        got = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, types)
    else:
        got = ReferenceEvaluator(model).run(None, types)
    case(op, ins, [g for k, g in enumerate(got) if k not in drop])


def f(*shape):
    return rng.standard_normal(shape).round(3).astype(np.float32)


def i(lo, hi, *shape, dtype=np.int64):
    return rng.integers(lo, hi, shape, dtype=dtype)


I = lambda *v: np.array(v, np.int64)
x23, x234 = f(2, 3), f(2, 3, 4)

# Data movement.
case("broadcast {shape = dims[2, 2, 3]}", [x23], [np.broadcast_to(x23, (2, 2, 3))])
case("reshape {shape = dims[3, 2]}", [x23], [x23.reshape(3, 2)])
case("transpose {perm = [2, 0, 1]}", [x234], [x234.transpose(2, 0, 1)])
case("shape_of {start = 1}", [x234], [I(3, 4)])
case("size_of", [x234], [np.array(24)])
case("dim {value = dims[7]}", [], [np.array(7)])
case("slice {axes = [1, 2], starts = dims[-2, 3], ends = dims[100, -5], steps = [1, -2]}", [x234], [x234[:, -2:100, 3::-2]])
case("slice {axes = [2], starts = dims[-9], ends = dims[9223372036854775807]}", [x234], [x234])
case("slice {axes = [0], starts = dims[2], ends = dims[1]}", [x234], [x234[2:1]])
case("concat {axis = 1}", [x234, f(2, 0, 4), x234[:, :1]], [np.concatenate([x234, x234[:, :1]], 1)])
case("split {axis = 2, sizes = dims[1, 0, 3]}", [x234], [x234[:, :, :1], x234[:, :, 1:1], x234[:, :, 1:]])
for mode in ["constant", "reflect", "edge", "wrap"]:
    value = np.array(1.5, np.float32) if mode == "constant" else None
    pad = np.pad(x23, [(1, 0), (2, 1)], mode, **({"constant_values": 1.5} if value is not None else {}))
    case(f'pad {{pads = dims[1, 2, 0, 1], mode = "{mode}"}}', [x23, value], [pad])
case("pad {pads = dims[0, -1, 1, 0]}", [x23], [np.pad(x23[:, 1:], [(0, 1), (0, 0)])])
case("tile {repeats = dims[2, 3]}", [x23], [np.tile(x23, (2, 3))])
case("gather {axis = 1}", [x234, I(2, -1, 0, 0).reshape(2, 2)], [x234.take(I(2, -1, 0, 0).reshape(2, 2), 1)])
case("gather {axis = 0}", [x23, np.array(1)], [x23[1]])
ix = i(-3, 3, 2, 2, 4)
onnx("gather_elements {axis = 1}", [x234, ix], "GatherElements", axis=1)
onnx("gather_nd", [x234, i(0, 2, 3, 2)], "GatherND")
onnx("gather_nd {batch = 1}", [x234, i(0, 3, 2, 2, 1)], "GatherND", batch_dims=1)
for red in ["none", "add", "mul", "min", "max"]:
    at = I(0, 2, 1, 1, 0, 2).reshape(2, 3) if red == "none" else I(0, 0, 1, 1, 0, 2).reshape(2, 3)
    onnx(f'scatter_elements {{axis = 1, reduction = "{red}"}}', [x23, at, f(2, 3)], "ScatterElements", axis=1, reduction=red)
    rows = I(1, 0).reshape(2, 1) if red == "none" else I(1, 1).reshape(2, 1)
    onnx(f'scatter_nd {{reduction = "{red}"}}', [x23, rows, f(2, 3)], "ScatterND", reduction=red)
case("full {value = dense<i64[1]: 7>, shape = dims[2, 0, 2]}", [], [np.full((2, 0, 2), 7)])
case("full {value = dense<f32[1]: 0.5>, shape = dims[3]}", [], [np.full(3, 0.5, np.float32)])
case("eye_like {k = 1, elem = f32}", [x23], [np.eye(2, 3, 1, dtype=np.float32)])
case("trilu {k = -1}", [x234], [np.triu(x234, -1)])
case("trilu {k = 1, upper = false}", [x234], [np.tril(x234, 1)])
hot = np.array([5.0, 2.0], np.float32)
case("one_hot {axis = 1, depth = dims[4]}", [I(1, -1, 9), hot], [np.array([[5, 2, 5, 5], [5, 5, 5, 2], [5, 5, 5, 5]], np.float32)])
case("one_hot {axis = 0, depth = dims[2]}", [I(1, 0, 1), hot], [np.array([[5, 2, 5], [2, 5, 2]], np.float32)])
case("nonzero", [np.array([[0, 3], [1, 0]], np.int32)], [I(0, 1, 1, 0).reshape(2, 2)])
cond = np.array([True, False, True])
case("compress {axis = 1}", [x23, cond], [x23[:, cond]])
case("compress", [x23, cond], [x23.ravel()[[0, 2]]])
u = I(2, 1, 1, 3, 4, 3)
onnx("unique", [u], "Unique", outs=4)
onnx("unique {sorted = false}", [u], "Unique", outs=4, sorted=0)
onnx("unique {axis = 0}", [np.array([[1, 0, 0], [1, 0, 0], [2, 3, 4]], np.float32)], "Unique", outs=4, axis=0)
t = np.array([[1, 5, 5, 0], [2, 2, 9, 1]], np.float32)
case("top_k {k = dims[3]}", [t], [np.array([[5, 5, 1], [9, 2, 2]], np.float32), I(1, 2, 0, 2, 0, 1).reshape(2, 3)])
case("top_k {k = dims[1], axis = 0, largest = false}", [t], [np.array([[1, 2, 5, 0]], np.float32), I(0, 1, 0, 0).reshape(1, 4)])
for ex in [0, 1]:
    for rev in [0, 1]:
        a = f"{{axis = 1, exclusive = {str(bool(ex)).lower()}, reverse = {str(bool(rev)).lower()}}}"
        onnx(f"cumsum {a}", [x234], "CumSum", [np.array(1)], exclusive=ex, reverse=rev)
onnx("reverse_sequence", [f(4, 3), I(4, 1, 3)], "ReverseSequence", time_axis=0, batch_axis=1)
d = f(1, 8, 2, 3)
for mode in ["DCR", "CRD"]:
    onnx(f'depth_to_space {{block = 2, mode = "{mode}"}}', [d], "DepthToSpace", blocksize=2, mode=mode)
onnx("space_to_depth {block = 2}", [f(1, 2, 4, 6)], "SpaceToDepth", blocksize=2)
case("range", [np.array(10), np.array(2), np.array(-3)], [I(10, 7, 4)])
case("range", [np.array(3), np.array(3), np.array(1)], [np.zeros(0, np.int64)])
case("range", [np.array(v, np.float32) for v in (0, 1, 0.25)], [np.array([0, 0.25, 0.5, 0.75], np.float32)])

# Contractions.
a, b = f(2, 3, 4), f(2, 4, 5)
case("matmul", [a, b], [a @ b])
case("matmul", [f(2, 0), f(0, 3)], [np.zeros((2, 3), np.float32)])
qa, qb = i(0, 255, 3, 4, dtype=np.uint8), i(-128, 127, 4, 2, dtype=np.int8)
za, zb = np.array([3, 200, 7], np.uint8), np.array([-5, 9], np.int8)
wide = lambda v: v.astype(np.int32)
case("matmul_integer", [qa, qb, za, zb], [(wide(qa) - wide(za)[:, None]) @ (wide(qb) - wide(zb))])
case("matmul_integer", [qa, qb, np.array(128, np.uint8)], [(wide(qa) - 128) @ wide(qb)])
for eq, xs in [
    ("bij,bjk->bik", [a, b]), ("...ij,jk", [a, f(4, 2)]), ("ii->i", [f(3, 3)]), ("ij->", [x23]), ("i,j->ji", [f(2), f(3)]),
    ("bhqd,bhkd->bhqk", [f(1, 2, 3, 4), f(1, 2, 2, 4)]), ("ab,bc,cd->ad", [f(2, 3), f(3, 4), f(4, 2)]), ("ij,j->i", [x23, f(3)]),
]:
    case(f'einsum {{equation = "{eq}"}}', xs, [np.einsum(eq, *xs)])
x, w = f(2, 4, 5, 6), f(6, 2, 3, 2)
onnx("conv {strides = [2, 1], pads = dims[1, 0, 2, 1], dilations = [1, 2], groups = 2}", [x, w, f(6)], "Conv",
     strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2], group=2)
onnx("conv {pads = dims[2, 1]}", [f(1, 3, 7), f(2, 3, 4)], "Conv", pads=[2, 1])
onnx("conv", [f(1, 2, 3, 3, 3), f(2, 2, 2, 2, 2)], "Conv")
qx, qw = i(0, 255, 1, 2, 4, 4, dtype=np.uint8), i(0, 255, 3, 2, 2, 2, dtype=np.uint8)
onnx("conv_integer {pads = dims[1, 1, 0, 0]}", [qx, qw, np.array(7, np.uint8)], "ConvInteger", pads=[1, 1, 0, 0])
onnx("conv_transpose {strides = [2, 3], pads = dims[1, 0, 0, 1], output_padding = [1, 0]}", [f(1, 2, 3, 3), f(2, 3, 3, 2), f(3)],
     "ConvTranspose", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0])
gx, gw = f(1, 4, 3), f(4, 2, 2)
gy = np.zeros((1, 4, 5), np.float32)
for ch in range(4):
    for tap in range(2):
        gy[0, ch // 2 * 2 : ch // 2 * 2 + 2, 2 * tap : 2 * tap + 3] += gw[ch, :, tap, None] * gx[0, ch]
case("conv_transpose {groups = 2, dilations = [2]}", [gx, gw], [gy])

# Pooling.
p = f(1, 2, 5, 6)
onnx("max_pool {kernel = [3, 2], strides = [2, 2], pads = dims[1, 0, 1, 1]}", [p], "MaxPool", kernel_shape=[3, 2], strides=[2, 2],
     pads=[1, 0, 1, 1])
onnx("max_pool {kernel = [2, 2], strides = [2, 2], indices = true}", [f(1, 2, 4, 4)], "MaxPool", outs=2, kernel_shape=[2, 2], strides=[2, 2])
onnx("max_pool {kernel = [3, 3], strides = [2, 2], ceil = true}", [f(1, 1, 4, 4)], "MaxPool", kernel_shape=[3, 3], strides=[2, 2],
     ceil_mode=1)
onnx("max_pool {kernel = [2], dilations = [3]}", [f(1, 2, 8)], "MaxPool", kernel_shape=[2], dilations=[3])
for inc in [0, 1]:
    onnx(f"average_pool {{kernel = [3, 3], strides = [2, 1], pads = dims[1, 1, 1, 0], count_include_pad = {str(bool(inc)).lower()}}}",
         [p], "AveragePool", kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 0], count_include_pad=inc)
onnx("lp_pool {kernel = [2, 2], p = 3}", [p], "LpPool", kernel_shape=[2, 2], p=3)

# Reductions.
KINDS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd", "l1": "ReduceL1",
    "l2": "ReduceL2", "sum_square": "ReduceSumSquare", "log_sum": "ReduceLogSum", "log_sum_exp": "ReduceLogSumExp",
}
for kind, node in KINDS.items():
    src = np.abs(x234) if kind == "log_sum" else x234
    onnx(f'reduce {{kind = "{kind}", axes = [0, 2]}}', [src], node, [I(0, 2)], keepdims=0)
    onnx(f'reduce {{kind = "{kind}", axes = [1], keep = true}}', [src], node, [I(1)])
case('reduce {kind = "sum", axes = [0]}', [f(0, 2)], [np.zeros(2, np.float32)])
case('reduce {kind = "max", axes = [0]}', [f(0, 2)], [np.full(2, -np.inf, np.float32)])
case('reduce {kind = "sum", axes = []}', [np.array(3.0, np.float32)], [np.array(3.0, np.float32)])
case('reduce {kind = "mean", axes = [0]}', [I(-7, 2)], [np.array(-2)])
case('reduce {kind = "max", axes = [0]}', [np.array([-128, 5], np.int8)], [np.array(5, np.int8)])
m = np.array([[1, 3, 3], [2, 0, 0]], np.float32)
for last in [0, 1]:
    for op, node in [("argmax", "ArgMax"), ("argmin", "ArgMin")]:
        onnx(f"{op} {{axis = 1, keep = true, last = {str(bool(last)).lower()}}}", [m], node, axis=1, select_last_index=last)
onnx("softmax {axis = 1}", [x234], "Softmax", axis=1)
onnx("log_softmax", [x234], "LogSoftmax")

# Normalisation.
onnx("layer_norm {axis = 1, stats = true}", [x234, f(3, 4), f(3, 4)], "LayerNormalization", outs=3, axis=1)
onnx("layer_norm {epsilon = 0.01}", [x234, f(4)], "LayerNormalization", epsilon=0.01)
s4 = f(4)
case("rms_norm", [x234, s4], [x234 / np.sqrt((x234.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5).astype(np.float32) * s4])
n4 = f(2, 4, 3)
g = n4.astype(np.float64).reshape(2, 2, -1)
g = ((g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5)).reshape(2, 4, 3)
sc, bi = f(4), f(4)
case("group_norm {groups = 2}", [n4, sc, bi], [(g * sc[:, None] + bi[:, None]).astype(np.float32)])
onnx("instance_norm", [n4, sc, bi], "InstanceNormalization")
onnx("batch_norm {epsilon = 0.001}", [n4, sc, bi, f(4), np.abs(f(4))], "BatchNormalization", epsilon=0.001)

# Quantisation.
q = (f(2, 3) * 20).astype(np.float32)
onnx("quantize", [q, np.array(0.5, np.float32), np.array(10, np.uint8)], "QuantizeLinear")
case("quantize {elem = i8}", [np.array([0.25, 0.75, -0.25, 99], np.float32), np.array(0.5, np.float32)], [np.array([0, 2, 0, 127], np.int8)])
per, pz = np.array([0.5, 1, 0.25], np.float32), np.array([0, 5, -5], np.int8)
onnx("quantize {axis = 1}", [q, per, pz], "QuantizeLinear", axis=1)
onnx("dequantize {axis = 1}", [i(-99, 99, 2, 3, dtype=np.int8), per, pz], "DequantizeLinear", axis=1)
onnx("dequantize {axis = 1, block = 2}", [i(-99, 99, 2, 4, dtype=np.int8), np.abs(f(2, 2)), i(-9, 9, 2, 2, dtype=np.int8)], "DequantizeLinear",
     axis=1, block_size=2)
onnx("dynamic_quantize", [q], "DynamicQuantizeLinear", outs=3)
wide = np.array([[1.0, -63.5, 0.25], [0, 0, 0], [-3, 2.5, 0.5]], np.float32)
steps = (np.abs(wide).max(1, keepdims=True) / np.float32(127)).astype(np.float32)
steps[steps == 0] = 1
case("quantize_rows", [wide], [np.rint(wide / steps).astype(np.int8), steps])
wide = np.array([[448, 224, 3, 0, -7], [1, -0.5, 0, 0, 2]], np.float32)
steps = np.array([[448, 3, 7], [1, 448, 2]], np.float32) / np.float32(448)
codes = wide / np.repeat(steps, 2, axis=1)[:, :5]
case("quantize_rows {block = 2, elem = e4m3fn}", [wide], [codes.astype(float8_e4m3fn), steps])

# Recurrent layers.
S, N, X, H = 3, 2, 4, 3


def rec(gates, dirs, extra=()):
    return [f(S, N, X), f(dirs, gates * H, X), f(dirs, gates * H, H), f(dirs, 2 * gates * H), *extra]


onnx("rnn", rec(1, 1, [None, f(1, N, H)]), "RNN", outs=2, hidden_size=H)
onnx("gru {linear_before_reset = true}", rec(3, 1, [None, f(1, N, H)]), "GRU", outs=2, hidden_size=H, linear_before_reset=1)
onnx("gru", rec(3, 1), "GRU", outs=2, hidden_size=H)


def sig(v):
    return 1 / (1 + np.exp(-v))


def lstm(x, w, r, b, lens, h0, c0, p, dirs):
    """Written from the equations of the ONNX operator page; directions as numbers, 1 backward."""
    y = np.zeros((S, len(dirs), N, H))
    hs, cs = h0.astype(np.float64).copy(), c0.astype(np.float64).copy()
    for k, back in enumerate(dirs):
        for n in range(N):
            h, c = hs[k, n], cs[k, n]
            order = range(lens[n])
            for t in reversed(order) if back else order:
                z = w[k].astype(np.float64) @ x[t, n] + r[k].astype(np.float64) @ h + b[k][: 4 * H] + b[k][4 * H :]
                gi, go, gf, gc = np.split(z, 4)
                pi, po, pf = np.split(p[k], 3)
                c_new = sig(gf + pf * c) * c + sig(gi + pi * c) * np.tanh(gc)
                h = sig(go + po * c_new) * np.tanh(c_new)
                c = c_new
                y[t, k, n] = h
            hs[k, n], cs[k, n] = h, c
    return [v.astype(np.float32) for v in (y, hs, cs)]


for word, dirs in [("forward", [0]), ("reverse", [1]), ("bidirectional", [0, 1])]:
    D = len(dirs)
    ops = rec(4, D, [np.array([3, 2], np.int32), f(D, N, H), f(D, N, H), f(D, 3 * H)])
    case(f'lstm {{direction = "{word}"}}', ops, lstm(*ops, dirs))

# Resampling.
im = f(1, 1, 4, 5)
for mode in ["nearest", "linear", "cubic"]:
    for coord in ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"]:
        onnx(f'resize {{scales = [1.0, 1.0, 0.5, 2.0], mode = "{mode}", coordinates = "{coord}"}}', [im], "Resize",
             [None, np.array([1, 1, 0.5, 2], np.float32)], mode=mode, coordinate_transformation_mode=coord)
for near in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]:
    onnx(f'resize {{sizes = dims[1, 1, 7, 3], nearest = "{near}"}}', [im], "Resize", [None, None, I(1, 1, 7, 3)], nearest_mode=near)
for mode in ["linear", "cubic"]:
    onnx(f'resize {{scales = [1.0, 1.0, 0.6, 0.5], mode = "{mode}", antialias = true}}', [im], "Resize",
         [None, np.array([1, 1, 0.6, 0.5], np.float32)], mode=mode, antialias=1)
onnx('resize {scales = [1.0, 1.0, 0.8, 0.8], mode = "cubic", exclude_outside = true, cubic_a = -0.5}', [im], "Resize",
     [None, np.array([1, 1, 0.8, 0.8], np.float32)], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
onnx('resize {sizes = dims[1, 1, 3, 3], mode = "linear", coordinates = "tf_crop_and_resize", extrapolation = 10.0, '
     'roi = [0.0, 0.0, 0.4, 0.6, 1.0, 1.0, 1.2, 1.7]}', [im], "Resize",
     [np.array([0, 0, 0.4, 0.6, 1, 1, 1.2, 1.7], np.float32), None, I(1, 1, 3, 3)], mode="linear",
     coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=10.0)
grid = (rng.uniform(-1.3, 1.3, (1, 3, 2, 2))).round(3).astype(np.float32)
for mode in ["linear", "nearest", "cubic"]:
    for padding in ["zeros", "border", "reflection"]:
        for align in [0, 1]:
            onnx(f'grid_sample {{mode = "{mode}", padding = "{padding}", align_corners = {str(bool(align)).lower()}}}', [im, grid],
                 "GridSample", mode=mode, padding_mode=padding, align_corners=align,
                 # There the reference differs from torch, whose exports these are, and onnxruntime.
                 by_runtime=(mode, padding) == ("cubic", "border"))

# Attention.
Q, K, V = f(1, 4, 3, 8), f(1, 2, 5, 8), f(1, 2, 5, 6)
onnx("attention", [Q, K, V], "Attention")
onnx("attention", [Q, K, V, f(3, 5)], "Attention")
onnx("attention {causal = true}", [Q, f(1, 4, 3, 8), f(1, 4, 3, 8)], "Attention", is_causal=1)
keep = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0]], bool)
onnx("attention", [Q, K, V, keep], "Attention")

# Determinants and detection.
onnx("det", [np.array([[[0, 2, 1], [3, -1, 4], [5, 6, 0]], [[1, 2, 3], [2, 4, 6], [7, 8, 9]]], np.float32)], "Det")
boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [1, 0.9, 0, -0.1], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]]], np.float32)
scores = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5, 0.3]]], np.float32)
onnx("non_max_suppression", [boxes, scores, I(2), np.array([0.5], np.float32), np.array([0.4], np.float32)], "NonMaxSuppression")
maps = np.arange(48, dtype=np.float32).reshape(2, 1, 4, 6) % 7
rois = np.array([[0, 0, 5, 3], [1, 1, 3, 4], [-2, 0.5, 4, 9]], np.float32)
for mode in ["avg", "max"]:
    for half in [False, True]:
        onnx(
            f"roi_align {{height = 2, width = 2, sampling = 2, scale = 0.5, half_pixel = {str(half).lower()}, mode = \"{mode}\"}}",
            [maps, rois, I(1, 0, 1)], "RoiAlign", output_height=2, output_width=2, sampling_ratio=2, spatial_scale=0.5,
            mode=mode, coordinate_transformation_mode="half_pixel" if half else "output_half_pixel",
        )


def pooled(x, rois, bins, scale):
    """The greatest elements of regions; ONNX has no evaluator of it."""
    def ranges(a, b, bins, n):
        a, b = (int(np.trunc(v + np.copysign(0.5, v))) for v in (a * scale, b * scale))
        size = np.float32(max(b - a + 1, 1)) / np.float32(bins)
        clip = lambda v: min(max(int(v) + a, 0), n)
        return [range(clip(np.floor(i * size)), clip(np.ceil((i + 1) * size))) for i in range(bins)]

    def one(roi):
        image, x0, y0, x1, y1 = roi
        rows, cols = ranges(y0, y1, bins[0], x.shape[2]), ranges(x0, x1, bins[1], x.shape[3])
        part = lambda c, r, q: x[int(image), c][r.start:r.stop, q.start:q.stop]
        return [[[part(c, r, q).max() if len(r) and len(q) else 0 for q in cols] for r in rows] for c in range(x.shape[1])]

    return np.array([one(r) for r in rois], x.dtype)


boxes = np.array([[1, 0, 0, 5, 3], [0, 1, 1, 3, 4], [1, -2, 0.5, 4, 9], [0, 9, 1, 2, 1], [0, 20, 2, 30, 3]], np.float32)
for scale in [1.0, 0.5]:
    case(f"max_roi_pool {{height = 2, width = 3, scale = {scale}}}", [maps - 3, boxes], [pooled(maps - 3, boxes, (2, 3), scale)])

# Blocks of a row, the last one cut.
rows, q, s, z = f(2, 3, 5), i(-8, 7, 4, 5, dtype=np.int8), f(4, 3), i(-3, 3, 4, 3, dtype=np.int8)
wide = lambda v: np.repeat(v, 2, 1)[:, :5].astype(np.float64)
off, at = ((np.arange(12) - 5) / 8).astype(np.float32).reshape(4, 3), I(2, -1, 0, 3, 2, 2).reshape(2, 3)
for zero, offset in [(None, None), (z, None), (None, off), (z, off)]:
    w = (q - (0 if zero is None else wide(zero))) * wide(s) - (0 if offset is None else wide(offset))
    given = [zero, offset] if offset is not None else [] if zero is None else [zero]
    case("matmul_blocks {block = 2}", [rows, q, s] + given, [(rows.astype(np.float64) @ w.T).astype(np.float32)])
    case("gather_blocks {block = 2}", [q, s, at] + given, [w[at].astype(np.float32)])


def paged(q, k, v, lengths, pages, ends, page, scale=None, cap=0.0, window=0):
    """Every token by itself: its keys gathered, a softmax in f64."""
    out, first = np.zeros((*q.shape[:2], v.shape[2])), 0
    for length, table, end in zip(lengths, pages, ends):
        at = [table[t // page] * page + t % page for t in range(length)]
        for token in range(first, end):
            last = length - (end - token)
            seen = at[max(0, last + 1 - window) if window else 0 : last + 1]
            for h in range(q.shape[1]):
                g = h // (q.shape[1] // k.shape[1])
                s = k[seen, g].astype(np.float64) @ q[token, h] * (scale or q.shape[2] ** -0.5)
                s = cap * np.tanh(s / cap) if cap else s
                p = np.exp(s - s.max())
                out[token, h] = p / p.sum() @ v[seen, g]
        first = end
    return out.astype(np.float32)


q, k, v = f(5, 4, 3), f(12, 2, 3), f(12, 2, 2)
lengths, pages, ends = I(5, 2), np.array([[5, 0, 2], [3, 1, 0]]), I(3, 5)
case("paged_attention {page = 2}", [q, k, v, lengths, pages, ends], [paged(q, k, v, lengths, pages, ends, 2)])
case("paged_attention {page = 2, scale = 0.5, softcap = 2.0, window = 3, values = 2}", [q, k, None, lengths, pages, ends], [paged(q, k, k[..., :2], lengths, pages, ends, 2, 0.5, 2.0, 3)])
case("paged_attention {page = 4}", [q[:2], k, v, I(6, 1), np.array([[2, 1], [0, 0]]), None], [paged(q[:2], k, v, I(6, 1), np.array([[2, 1], [0, 0]]), I(1, 2), 4)])

x, w, ids = f(3, 2, 4), f(5, 3, 4), np.array([[4, 0], [1, 1], [0, 3]])
case("expert_matmul", [x, w, ids], [np.einsum("ntk,ntmk->ntm", x, w[ids]).astype(np.float32)])
case("expert_matmul", [x[:, :1], w, ids], [np.einsum("nk,ntmk->ntm", x[:, 0], w[ids]).astype(np.float32)])

# Rotary positions as products of complex numbers.
x, angle = f(3, 2, 7), rng.uniform(-4, 4, (3, 3))
cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
for interleaved in [False, True]:
    p, q = (slice(0, 6, 2), slice(1, 6, 2)) if interleaved else (slice(0, 3), slice(3, 6))
    z = (x[..., p] + 1j * x[..., q]).astype(np.complex128) * (cos + 1j * sin)[:, None, :]
    y = x.copy()
    y[..., p], y[..., q] = z.real, z.imag
    case("rotary" + (" {interleaved = true}" if interleaved else ""), [x, cos, sin], [y])
x, q, scale = f(3, 2, 4), i(-8, 7, 5, 3, 4, dtype=np.int8), f(5, 3, 2)
ids = np.array([[4, 0], [1, 1], [0, 3]])
wide = q * np.repeat(scale, 3, 2)[..., :4].astype(np.float64)
case("expert_matmul {block = 3}", [x, q, ids, scale], [np.einsum("ntk,ntmk->ntm", x, wide[ids]).astype(np.float32)])
offset = f(5, 3, 2)
wide = wide - np.repeat(offset, 3, 2)[..., :4].astype(np.float64)
case("expert_matmul {block = 3}", [x, q, ids, scale, offset], [np.einsum("ntk,ntmk->ntm", x, wide[ids]).astype(np.float32)])

pathlib.Path(__file__).with_name("graph.txt").write_text("\n".join(lines))
