"""Operators of random graphs: products, networks, quantisation, control flow (random_ops.py has the graphs)."""
import numpy as np
from onnx import TensorProto, helper

from random_ops import B, F32, I32, I64, I8, U8, Refused, op

# Products.

EQUATIONS = ["ab,bc->ac", "abc,acd->abd", "ab,ab->", "ab,ab->a", "...ab,bc->...ac", "ab,cd->abcd", "abc,bd->dca",
             "i,i->i", "ab,ba", "abcd,aecd->eb", "aa->a", "ii", "ab->ba", "abb->a", "...a->a...", "ab->", "ba"]


@op(weight=3)
def matmul(g):
    # ONNX Runtime leaves a sum of nothing without a value.
    x = g.get(F32, low=1, least=1)
    s = g.dims(x)
    n = g.shape(1, 1)
    y = (s[-1],) if g.p(0.15) else (*g.broadcast(s[:-2]), s[-1], *n) if len(s) > 1 else (s[0], *n)
    g.node("MatMul", [x, g.new(F32, y)])


@op
def gemm(g):
    x = g.get(F32, low=2, high=2)
    ta, tb, n = g.int(0, 2), g.int(0, 2), g.shape(1, 1)[0]
    m, k = g.dims(x)[::-1] if ta else g.dims(x)
    inputs = [x, g.new(F32, (n, k) if tb else (k, n))]
    if g.opset < 11 or g.p(0.8):
        inputs.append(g.new(F32, g.any((n,), (1, n), (m, 1), (m, n), (1,), ())))
    g.node("Gemm", inputs, transA=ta, transB=tb, alpha=g.any(1.0, 0.5), beta=g.any(1.0, 2.0, 0.0))


@op(since=12)
def einsum(g):
    equation = g.any(*EQUATIONS)
    sizes = {c: g.any(1, 2, 3, 4) for c in "abcdei"} | {".": g.any(1, 2)}
    shape = lambda term: [sizes[c] for c in term.replace("...", ".")]
    g.node("Einsum", [g.new(F32, shape(t)) for t in equation.split("->")[0].split(",")], equation=equation)


# Windows.


def image(g, groups=1):
    """Batch, channels and spatial sizes of one to three axes."""
    rank = g.any(1, 2, 2, 2, 3)
    return g.any(1, 1, 2), groups * g.any(1, 2, 3), [g.any(3, 4, 5, 6, 7, 8, 9) for _ in range(rank)]


def within(strides, kernel):
    """Strides where SAME does not cut: ONNX Runtime begins inside the image then, the standard says at its edge."""
    return [min(s, k) for s, k in zip(strides, kernel)]


@op(weight=3)
def conv(g):
    groups = g.any(1, 1, 1, 2, 3)
    n, c, sizes = image(g, groups)
    rank, m = len(sizes), groups * g.any(1, 2, 4, 16)
    if g.p(0.2):
        groups, m = c, c * g.any(1, 2)
    kernel = [g.any(1, 2, 3) for _ in sizes]
    auto = g.any(None, None, None, "VALID", "SAME_UPPER", "SAME_LOWER")
    same = auto in ("SAME_UPPER", "SAME_LOWER")
    strides = [g.any(1, 1, 2, 3) for _ in sizes]
    attrs = {"strides": within(strides, kernel) if same else strides}
    attrs["dilations"] = [1 if same else g.any(1, 1, 2) for _ in sizes]
    attrs |= {"kernel_shape": kernel} if g.p(0.7) else {}
    attrs |= {"auto_pad": auto} if auto else {"pads": [g.int(0, 3) for _ in range(2 * rank)]}
    inputs = [g.new(F32, (n, c, *sizes), known=0), g.new(F32, (m, c // groups, *kernel), known=0.85)]
    g.node("Conv", inputs + ([g.new(F32, (m,), known=0.85)] if g.p(0.6) else []), group=groups, **attrs)


@op(weight=2)
def conv_transpose(g):
    groups = g.any(1, 1, 2)
    n, c, sizes = image(g, groups)
    rank, m = len(sizes), groups * g.any(1, 2, 3)
    kernel, strides = [g.any(1, 2, 3, 4) for _ in sizes], [g.any(1, 2, 3) for _ in sizes]
    dilations = [g.any(1, 1, 2) for _ in sizes]
    attrs = {"strides": strides, "dilations": dilations, "group": groups}
    more = [g.int(0, s) for s in strides] if g.p(0.3) else [0] * rank
    way = g.any("pads", "pads", "pads", "auto", "shape")
    if way == "auto":
        strides = within(strides, kernel)
        attrs["strides"], more = strides, [min(m, s - 1) for m, s in zip(more, strides)]
    full = [s * (d - 1) + p + (k - 1) * e + 1 for s, d, p, k, e in zip(strides, sizes, more, kernel, dilations)]
    attrs |= {"pads": {"pads": [g.int(0, 2) for _ in range(2 * rank)]},
              "auto": {"auto_pad": g.any("SAME_UPPER", "SAME_LOWER", "VALID")},
              "shape": {"output_shape": [v - g.any(0, 1) for v in full]}}[way]
    if any(more):
        attrs["output_padding"] = more
    inputs = [g.new(F32, (n, c, *sizes), known=0), g.new(F32, (c, m // groups, *kernel), known=1)]
    g.node("ConvTranspose", inputs + ([g.new(F32, (m,), known=1)] if g.p(0.5) else []), **attrs)


@op(weight=3)
def pool(g):
    n, c, sizes = image(g)
    name = g.any("MaxPool", "AveragePool", *(["LpPool"] if g.opset < 22 else []))
    kernel = [g.any(1, 2, 3) for _ in sizes]
    attrs = {"kernel_shape": kernel} | ({"strides": [g.any(1, 1, 2, 3) for _ in sizes]} if g.p(0.9) else {})
    if g.p(0.65):
        attrs["pads"] = [g.int(0, k) for k in kernel * 2]
        if g.opset >= 10 and name != "LpPool" and g.p(0.35):
            attrs["ceil_mode"] = 1
        if g.p(0.3) and g.opset >= {"MaxPool": 10, "AveragePool": 19, "LpPool": 99}[name]:
            attrs["dilations"] = [g.any(1, 2) for _ in sizes]
    else:
        attrs["auto_pad"] = g.any("SAME_UPPER", "SAME_LOWER", "VALID")
        if "strides" in attrs:
            attrs["strides"] = within(attrs["strides"], kernel)
    attrs |= {"MaxPool": {}, "AveragePool": {"count_include_pad": g.int(0, 2)}, "LpPool": {"p": g.any(1, 2, 3)}}[name]
    small = name == "MaxPool" and g.opset >= 12 and g.p(0.15)
    indices = name == "MaxPool" and g.opset >= 8 and g.p(0.3)
    g.node(name, [g.new(g.any(U8, I8) if small else F32, (n, c, *sizes), known=0)], 2 if indices else 1, **attrs)


@op
def global_pool(g):
    x = g.get(F32, low=3, least=1)
    g.node(g.any("GlobalAveragePool", "GlobalMaxPool", *(["GlobalLpPool"] if g.opset < 22 else [])), [x])


@op(since=11)
def unpool(g):
    x = g.new(F32, (1, g.any(1, 2), 4, 6), known=0)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    g.node("MaxUnpool", g.node("MaxPool", [x], 2, **window), **window)


# Norms and losses.


@op(weight=2)
def norm(g):
    # ONNX Runtime overflows in the squares of large numbers.
    x = g.get(F32, low=3, least=1)
    g.within(x, 1e15)
    s = g.dims(x)
    by_channel = lambda low=None, high=None: g.new(F32, (s[1],), low, high, known=1)
    match g.any("Batch", "Instance", "LRN", "Lp", "MeanVariance", "Layer", "Group", "RMS"):
        case "Batch":
            operands = [x, by_channel(), by_channel(), by_channel(), by_channel(0.3, 3)]
            g.node("BatchNormalization", operands, epsilon=g.any(1e-5, 1e-3))
        case "Instance":
            g.node("InstanceNormalization", [x, by_channel(), by_channel()])
        case "LRN":
            g.node("LRN", [x], size=g.any(1, 3, 5))
        case "Lp":
            g.node("LpNormalization", [x], axis=g.any(-1, 0, 1), p=g.any(1, 2))
        case "MeanVariance":
            g.node("MeanVarianceNormalization", [x], axes=g.any([0, 2, 3][: len(s) - 1], [1], [0, 1]))
        case "Layer":
            a = g.int(-len(s), len(s))
            shape = s[a:] if g.p(0.7) else s[-1:]
            bias = [g.new(F32, shape, known=1)] if g.p(0.6) else []
            g.node("LayerNormalization", [x, g.new(F32, shape, known=0.8)] + bias, 3 if g.p(0.2) else 1, axis=a)
        case "Group":
            groups = g.any(*[d for d in range(1, s[1] + 1) if s[1] % d == 0])
            g.node("GroupNormalization", [x, by_channel(), by_channel()], num_groups=groups)
        case "RMS":
            a = g.int(-len(s), len(s))
            g.node("RMSNormalization", [x, g.new(F32, s[a:], known=0.8)], axis=a)


@op(since=13)
def loss(g):
    n, c, rest = g.any(1, 3), g.any(2, 5), g.any((), (2,))
    labels = g.const(g.r.integers(0, c, (n, *rest)), known=0.5)
    weights = [g.new(F32, (c,), 0.1, 2, known=1)] if g.p(0.4) else []
    attrs = {"reduction": g.any("none", "mean", "sum")} | ({"ignore_index": 0} if g.p(0.3) else {})
    name = g.any("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
    outputs = 2 if name.startswith("Softmax") and g.p(0.5) else 1
    g.node(name, [g.new(F32, (n, c, *rest), known=0), labels] + weights, outputs, **attrs)


@op
def dropout(g):
    x = g.get(F32)
    if g.opset < 12:
        g.node("Dropout", [x], ratio=0.3)
    else:
        g.node("Dropout", [x] + ([g.const(0.5, F32)] if g.p(0.5) else []), g.any(1, 2))


# Places that are data.


@op(since=11, weight=2)
def resize(g):
    x = g.get(F32, low=2, least=1)
    s = g.dims(x)
    r = len(s)
    mode = g.any("nearest", "linear", "cubic")
    places = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    places += ["half_pixel_symmetric"] if g.opset >= 19 else []
    attrs = {"mode": mode, "coordinate_transformation_mode": g.any(*places)}
    if mode == "nearest":
        attrs["nearest_mode"] = g.any("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
    if mode == "cubic":
        attrs |= {"cubic_coeff_a": g.any(-0.75, -0.5), "exclude_outside": g.int(0, 2)}
    if g.opset >= 18 and mode != "nearest" and g.p(0.3):
        attrs["antialias"] = 1
    free = [r - 2, r - 1] if mode != "nearest" or g.p(0.6) else list(range(r))
    some = g.opset >= 18 and g.p(0.4)
    if some:
        attrs["axes"] = [i - r if g.p(0.3) else i for i in free]
    axes = free if some else range(r)
    none = "" if g.opset >= 13 else g.const([], F32)
    # Between the corners of a length that is no whole number ONNX Runtime measures the rounded length.
    corners = attrs["coordinate_transformation_mode"] == "align_corners"
    if not corners and g.p(0.5):
        scales = [g.any(0.6, 0.8, 1.0, 1.3, 1.7, 2.0, 2.5) if i in free else 1.0 for i in axes]
        g.node("Resize", [x, none, g.const(scales, F32, 0.8)], **attrs)
    else:
        sizes = [g.int(1, 2 * s[i] + 2) if i in free else s[i] for i in axes]
        g.node("Resize", [x, none, none, g.const(sizes, known=0.8)], **attrs)


@op(since=16)
def grid_sample(g):
    x = g.new(F32, (g.any(1, 2), g.any(1, 3), g.any(1, 4, 5), g.any(2, 6)), known=0)
    grid = g.new(F32, (g.dims(x)[0], g.any(1, 3), g.any(2, 4), 2), -1.3, 1.3, known=0)
    mode = g.any(*("linear", "nearest", "cubic") if g.opset >= 20 else ("bilinear", "nearest", "bicubic"))
    padding = g.any("zeros", "border", "reflection")
    g.node("GridSample", [x, grid], mode=mode, padding_mode=padding, align_corners=g.int(0, 2))


@op(since=10)
def roi_align(g):
    n, k = g.any(1, 2), g.any(1, 3)
    x = g.new(F32, (n, g.any(1, 2), g.any(5, 8), g.any(6, 9)), known=0)
    boxes = np.sort(g.r.uniform(-1, 9, (k, 2, 2)), axis=1).reshape(k, 4)
    attrs = {"output_height": g.any(1, 2, 3), "output_width": g.any(1, 2), "sampling_ratio": g.any(0, 1, 2),
             "spatial_scale": g.any(1.0, 0.5), "mode": g.any("avg", "max")}
    if g.opset >= 16:
        attrs["coordinate_transformation_mode"] = g.any("half_pixel", "output_half_pixel")
    g.node("RoiAlign", [x, g.const(boxes, F32, 0.5), g.const(g.r.integers(0, n, k), known=0.5)], **attrs)


@op(since=10)
def non_max_suppression(g):
    n, k, c = g.any(1, 2), g.any(1, 6, 12), g.any(1, 2)
    corner = g.r.uniform(0, 4, (n, k, 2))
    boxes = np.concatenate([corner, corner + g.r.uniform(0.2, 3, (n, k, 2))], -1)
    limits = [g.const([g.any(0, 2, 5)], known=0.7), g.const([g.any(0.3, 0.6)], F32), g.const([0.2], F32)]
    inputs = [g.const(boxes, F32, 0.3), g.const(g.r.random((n, c, k)), F32, 0.3), *limits]
    g.node("NonMaxSuppression", inputs, center_point_box=g.int(0, 2))


# Recurrence.


@op(weight=2)
def recurrence(g):
    name = g.any("LSTM", "GRU", "RNN")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[name]
    t, b, i, h = g.any(1, 2, 5), g.any(1, 2, 3), g.any(1, 3), g.any(1, 2, 4)
    direction = g.any("forward", "reverse", "bidirectional")
    d = 1 + (direction == "bidirectional")
    fixed = lambda *shape: g.new(F32, shape, known=1)
    inputs = [g.new(F32, (t, b, i), known=0), fixed(d, gates * h, i), fixed(d, gates * h, h)]
    inputs.append(fixed(d, 2 * gates * h) if g.p(0.6) else "")
    inputs.append(g.const(g.r.integers(1, t + 1, b), I32, 0.5) if g.p(0.4) else "")
    inputs.append(g.new(F32, (d, b, h)) if g.p(0.4) else "")
    attrs = {"hidden_size": h, "direction": direction}
    if name == "LSTM":
        inputs.append(g.new(F32, (d, b, h)) if g.p(0.4) else "")
        inputs.append(fixed(d, 3 * h) if g.p(0.3) else "")
        attrs |= {"input_forget": 1} if g.p(0.2) else {}
    if name == "GRU":
        attrs |= {"linear_before_reset": g.int(0, 2)}
    if g.p(0.2):
        attrs["clip"] = 0.5
    if g.p(0.2):
        kinds = {"LSTM": ["Sigmoid", "Tanh", "Relu"], "GRU": ["HardSigmoid", "Tanh"], "RNN": ["Relu"]}[name]
        attrs["activations"] = kinds * d
    g.node(name, inputs, 3 if name == "LSTM" else 2, **attrs)


# Quantisation.


def scale(g, *shape):
    return g.const(g.r.uniform(0.01, 0.2, shape), F32)


def zero(g, t, *shape):
    return g.const(g.r.integers(-3 if t == I8 else 0, 5, shape), t)


@op(since=10, weight=2)
def quantised(g):
    x = g.get(F32, low=1, least=1)
    g.finite(x)
    a = g.int(0, g.at[x].ndim)
    by_channel = g.opset >= 13 and g.p(0.4)
    t, shape = g.any(U8, I8), (g.dims(x)[a],) if by_channel else ()
    s, z, attrs = scale(g, *shape), zero(g, t, *shape), {"axis": a} if by_channel else {}
    q = g.one("QuantizeLinear", [x, s, z], **attrs)
    g.node("DequantizeLinear", [q, s, z], **attrs)


@op(since=11)
def dynamically_quantised(g):
    x = g.get(F32, low=1, least=1)
    g.finite(x)
    g.node("DynamicQuantizeLinear", [x], 3)


@op(since=10, weight=1.5)
def matmul_integer(g):
    m, k, n = g.any(1, 2, 5), g.any(1, 3, 8, 32), g.any(1, 4, 9)
    t = g.any(U8, I8)
    inputs = [g.new(U8, (m, k), known=0), g.new(t, (k, n))]
    if g.p(0.7):
        inputs.append(g.const(g.int(0, 255), U8))
        if g.p(0.5):
            inputs.append(g.new(t, g.any((n,), ()), known=1))
    g.node("MatMulInteger", inputs)


@op(since=10)
def matmul_quantised(g):
    m, k, n, t = g.any(1, 2, 5), g.any(1, 3, 8, 32), g.any(1, 4, 9), g.any(U8, I8)
    each = (n,) if g.p(0.4) else ()
    a = [g.new(t, (m, k), known=0), scale(g), zero(g, t)]
    b = [g.new(t, (k, n), known=1), scale(g, *each), zero(g, t, *each)]
    g.node("QLinearMatMul", a + b + [scale(g), zero(g, t)])


@op(since=10, weight=1.5)
def conv_quantised(g):
    c, m, h, k, t = g.any(1, 3, 4, 8), g.any(1, 2, 16), g.any(4, 5, 7), g.any(1, 3), g.any(U8, I8)
    tw = I8 if t == I8 else g.any(U8, I8)
    each = (m,) if g.p(0.5) and tw == I8 else ()
    x = [g.new(t, (1, c, h, h), known=0), scale(g), zero(g, t)]
    w = [g.new(tw, (m, c, k, k), known=1), scale(g, *each), g.const(np.zeros(each), tw) if each else zero(g, tw)]
    bias = [g.new(I32, (m,), -50, 50, known=1)] if g.p(0.5) else []
    g.node("QLinearConv", x + w + [scale(g), zero(g, t)] + bias, strides=[g.any(1, 2)] * 2, pads=[g.any(0, 1)] * 4)


# Control flow. Names in bodies are those of no value: values are named by number.


def port(name, elem=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, elem, shape)


def branches(g, c, then, other, suffix):
    t, e = f"then{suffix}", f"else{suffix}"
    node = lambda what, out: helper.make_node(what[0], what[1], [out], **what[2])
    graphs = [helper.make_graph([node(n, o)], o, [], [port(o)]) for n, o in ((then, t), (other, e))]
    return g.one("If", [c], then_branch=graphs[0], else_branch=graphs[1])


@op(since=11)
def branch(g):
    x = g.get(F32)
    c = g.new(B, (), known=0.3)
    branches(g, c, ("Neg", [x], {}), ("Abs", [x], {}), len(g.at))


@op(since=13)
def branch_of_shapes(g):
    x = g.get(F32, low=1, least=1)
    c = g.new(B, (), known=0)
    sum_of = ("ReduceSum", [x, g.const([0])], {"keepdims": 1})
    y = branches(g, c, sum_of, ("Concat", [x, x], {"axis": 0}), len(g.at))
    g.node("ReduceSum", [y, g.const(range(g.at[x].ndim))], keepdims=0)


@op(since=11)
def loop(g):
    x, n = g.get(F32), len(g.at)
    trips, go = g.const(g.int(0, 4), known=0.5), g.any("", g.const(True, B))
    i, c, v, c2, v2, s = (f"{p}{n}" for p in ("i", "c", "s", "co", "so", "each"))
    nodes = [helper.make_node(k, [a], [b]) for k, a, b in (("Identity", c, c2), ("Tanh", v, v2), ("Identity", v, s))]
    ins = [port(i, TensorProto.INT64, []), port(c, TensorProto.BOOL, []), port(v)]
    body = helper.make_graph(nodes, "body", ins, [port(c2, TensorProto.BOOL, []), port(v2), port(s)])
    each = g.node("Loop", [trips, go, x], 2, body=body)[1]
    if g.at[each].shape == (0,):
        # Of no trips ONNX Runtime forgets the rank.
        g.results.remove(each)


@op(since=11)
def scan(g):
    x, n = g.get(F32, low=1, high=3, least=1), len(g.at)
    rest = g.dims(x)[1:]
    s, e, s2, e2 = (f"{p}{n}" for p in ("s", "e", "so", "eo"))
    nodes = [helper.make_node("Add", [s, e], [s2]), helper.make_node("Identity", [s2], [e2])]
    ports = lambda *names: [port(v, shape=rest) for v in names]
    body = helper.make_graph(nodes, "body", ports(s, e), ports(s2, e2))
    back = {k: [g.int(0, 2)] for k in ("scan_input_directions", "scan_output_directions") if g.p(0.5)}
    g.node("Scan", [g.new(F32, rest), x], 2, body=body, num_scan_inputs=1, **back)
