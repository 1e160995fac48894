"""Operators of random graphs that move, cut and index (random_ops.py has the graphs)."""
import numpy as np
from onnx import numpy_helper

from random_ops import B, F16, F32, I32, I64, U8, Refused, op


@op(weight=2)
def transpose(g):
    x = g.get(F32, I64, B, U8)
    perm = [int(i) for i in g.r.permutation(g.at[x].ndim)]
    g.node("Transpose", [x], **({"perm": perm} if perm and g.p(0.8) else {}))


@op(weight=3)
def reshape(g):
    x = g.get(F32, I64, B)
    rest, shape = g.at[x].size, []
    if rest == 0:
        shape = list(g.dims(x))
    while rest > 1 and len(shape) < 3:
        shape.append(g.any(*[d for d in range(1, rest + 1) if rest % d == 0]))
        rest //= shape[-1]
    if rest > 1 or (rest and g.p(0.2)):
        shape.append(rest)
    if g.at[x].size and shape and g.p(0.5):
        shape[g.int(0, len(shape))] = -1
    for i, d in enumerate(g.dims(x)[: len(shape)]):
        if shape[i] == d and g.p(0.5):
            shape[i] = 0
    g.node("Reshape", [x, g.const(shape)])


@op
def computed_reshape(g):
    """Sizes read from a shape, as exporters write them."""
    x = g.get(F32, low=2, least=1)
    size = g.one("Gather", [g.one("Shape", [x]), g.const(g.int(0, g.at[x].ndim))], axis=0)
    if g.opset >= 13:
        size = g.one("Unsqueeze", [size, g.const([0])])
    else:
        size = g.one("Unsqueeze", [size], axes=[0])
    g.node("Reshape", [x, g.one("Concat", [size, g.const([-1])], axis=0)])


@op
def flatten(g):
    x = g.get(F32, low=0 if g.opset >= 9 else 1)
    r = g.at[x].ndim
    g.node("Flatten", [x], axis=g.int(-r if g.opset >= 11 else 0, r + 1))


@op(weight=2)
def squeeze(g):
    x = g.get(F32, I64)
    ones = [i for i, d in enumerate(g.dims(x)) if d == 1]
    out = ones and g.p(0.5)
    if out:
        axes, rank = (g.some(ones, 1) if g.p(0.8) else []), g.at[x].ndim
    else:
        rank = g.at[x].ndim + g.int(1, 3)
        axes = g.some(range(rank), rank - g.at[x].ndim)[: rank - g.at[x].ndim]
    if g.opset >= 11 and g.p(0.3):
        axes = [i - rank for i in axes]
    name = "Squeeze" if out else "Unsqueeze"
    if g.opset >= 13:
        g.node(name, [x] + ([g.const(axes)] if axes else []))
    else:
        g.node(name, [x], **({"axes": axes} if axes else {}))


@op(weight=2)
def concat(g):
    x = g.get(F32, I64, B, low=1)
    a = g.int(0, g.at[x].ndim)

    def other():
        fits = [v for v in g.results[-8:] if g.dtype(v) == g.dtype(x) and g.at[v].ndim == g.at[x].ndim
                and g.dims(v)[:a] + g.dims(v)[a + 1:] == g.dims(x)[:a] + g.dims(x)[a + 1:]]
        shape = list(g.dims(x))
        shape[a] = g.shape(1, 1)[0]
        return g.any(*fits) if fits and g.p(0.6) else g.new(g.dtype(x), shape)
    back = g.at[x].ndim if g.p(0.3) and g.opset >= 11 else 0
    g.node("Concat", [x] + [other() for _ in range(g.int(0, 3))], axis=a - back)


@op
def split(g):
    x = g.get(F32, I64, low=1)
    a = g.axis(g.at[x].ndim)
    n, k = g.dims(x)[a], g.int(1, 4)
    parts = np.diff([0, *sorted(g.int(0, n + 1) for _ in range(k - 1)), n]).tolist()
    if g.opset >= 18 and g.p(0.4):
        g.node("Split", [x], k, axis=a, num_outputs=k)
    elif n % k == 0 and g.p(0.3) and g.opset < 18:
        g.node("Split", [x], k, axis=a)
    elif g.opset >= 13:
        g.node("Split", [x, g.const(parts, known=0.8)], k, axis=a)
    else:
        g.node("Split", [x], k, axis=a, split=parts)


@op(weight=3)
def slice_(g):
    x = g.get(F32, I64, B, low=1)
    axes = g.axes(g.at[x].ndim, 1)
    steps = [g.any(1, 1, 1, 2, 3, -1, -2) if g.opset >= 10 else 1 for _ in axes]
    ends = lambda n, step: g.any(2**31 - 1, -(2**31)) if g.p(0.1) else g.int(-n - 2, n + 3)
    begin = [g.int(-g.dims(x)[i] - 2, g.dims(x)[i] + 3) for i in axes]
    end = [ends(g.dims(x)[i], s) for i, s in zip(axes, steps)]
    if g.opset < 10:
        g.node("Slice", [x], starts=begin, ends=end, axes=axes)
        return
    t = g.any(I64, I64, I32)
    inputs = [x, g.const(begin, t, 0.75), g.const(end, t, 0.75), g.const(axes, t)]
    g.node("Slice", inputs + ([] if set(steps) == {1} and g.p(0.5) else [g.const(steps, t)]))


@op(weight=2)
def pad(g):
    x = g.get(*(F32, I64, I32) if g.opset >= 13 else (F32,), low=1)
    mode = g.any("constant", "constant", "reflect", "edge", *(["wrap"] if g.opset >= 19 else []))
    if min(g.dims(x)) < 2:
        mode = "constant"
    least, most = (-1, 3) if mode == "constant" else (0, 2)
    pads = [g.int(-min(-least, d), min(most, max(d, 1)) + (mode == "constant")) for d in g.dims(x) * 2]
    if g.opset < 11:
        g.node("Pad", [x], mode=mode, pads=pads, value=0.5)
    else:
        value = [g.const(2, g.dtype(x), 0.7)] if g.p(0.5) else []
        g.node("Pad", [x, g.const(pads, known=0.8)] + value, mode=mode)


@op(since=8)
def expand(g):
    x = g.get(F32, I64, B)
    g.node("Expand", [x, g.const(g.broadcast(g.dims(x)), known=0.7)])


@op
def tile(g):
    x = g.get(F32, I64, low=1)
    g.node("Tile", [x, g.const([g.any(1, 1, 2, 2, 3, 0) for _ in g.dims(x)], known=0.7)])


@op(since=18)
def centred(g):
    x = g.get(F32, low=1)
    r = g.at[x].ndim
    g.node("CenterCropPad", [x, g.const(g.shape(r, r), known=0.7)])


@op
def blocks(g):
    n, c, h, w = g.any(1, 2), g.any(4, 8), g.any(2, 4), g.any(2, 6)
    x = g.new(F32, (n, c, h, w))
    if g.p(0.5):
        g.node("SpaceToDepth", [x], blocksize=2)
    else:
        g.node("DepthToSpace", [x], blocksize=2, **({"mode": g.any("DCR", "CRD")} if g.opset >= 11 else {}))


@op(since=14)
def triangle(g):
    x = g.get(F32, I64, low=2)
    g.node("Trilu", [x] + ([g.const(g.int(-4, 5), known=0.7)] if g.p(0.6) else []), upper=g.int(0, 2))


@op(since=9)
def eye(g):
    g.node("EyeLike", [g.get(F32, I32, low=2, high=2)], k=g.int(-3, 4), dtype=1)


@op
def shapes(g):
    x = g.get(F32, I64, B)
    r = g.at[x].ndim
    part = {"start": g.int(-r - 1, r + 2), "end": g.int(-r - 1, r + 2)} if g.opset >= 15 and g.p(0.5) else {}
    s = g.one("Shape", [x], **part)
    if g.p(0.3) and g.opset >= 9:
        g.node("ConstantOfShape", [s], value=numpy_helper.from_array(np.array([g.any(0, 1.5)], F32)))
    if g.p(0.3):
        g.node("Size", [x])


@op(since=11)
def number_range(g):
    t = g.any(I64, I32, F32)
    step = g.any(0.5, 0.3, -0.7) if t == F32 else g.any(1, 2, 3, -1, -2)
    g.node("Range", [g.const(v, t, 0.7) for v in (g.int(-5, 5), g.int(-5, 15), step)])


# Indices.


@op(weight=2)
def gather(g):
    x = g.get(F32, I64, B, low=1, high=3, least=1)
    a = g.axis(g.at[x].ndim)
    n = g.dims(x)[a]
    i = g.r.integers(-n if g.opset >= 11 else 0, n, g.shape(0, 2))
    g.node("Gather", [x, g.const(i, g.any(I32, I64), 0.6)], axis=a)


@op(since=11)
def gather_elements(g):
    x = g.get(F32, I64, low=1, high=3, least=1)
    a = g.axis(g.at[x].ndim)
    shape = [g.int(1, d + 1) for d in g.dims(x)]
    shape[a] = g.shape(1, 1)[0]
    n = g.dims(x)[a]
    g.node("GatherElements", [x, g.const(g.r.integers(-n, n, shape), g.any(I32, I64), 0.6)], axis=a)


@op(since=12)
def gather_nd(g):
    x = g.get(F32, I64, low=1, high=3, least=1)
    s, b = g.dims(x), g.int(0, g.at[x].ndim)
    k, mid = g.int(1, len(s) - b + 1), g.shape(0, 1)
    i = np.stack([g.r.integers(-s[b + j], s[b + j], (*s[:b], *mid)) for j in range(k)], -1)
    g.node("GatherND", [x, g.const(i, known=0.6)], batch_dims=b)


def reduction_of(g):
    if g.opset < 16 or g.p(0.5):
        return None
    return g.any("add", "mul", *(("max", "min") if g.opset >= 18 else ()))


@op(since=11)
def scatter_elements(g):
    x = g.get(F32, I64, low=1, high=3, least=1)
    s, a = g.dims(x), g.axis(g.at[x].ndim)
    shape = [g.int(1, d + 1) for d in s]
    reduction = reduction_of(g)
    if reduction:
        i = g.r.integers(-s[a], s[a], shape)
    else:
        # Each place once: their order has no meaning.
        i = np.argsort(g.r.random(s), axis=a)[tuple(slice(0, d) for d in shape)]
    attrs = {"reduction": reduction} if reduction else {}
    g.node("ScatterElements", [x, g.const(i, known=0.6), g.new(g.dtype(x), shape)], axis=a, **attrs)


@op(since=11)
def scatter_nd(g):
    x = g.get(F32, I64, low=1, high=3, least=1)
    s, k = g.dims(x), g.int(1, g.at[x].ndim + 1)
    places, reduction = int(np.prod(s[:k])), reduction_of(g)
    m = g.int(1, places + 1)
    flat = g.r.integers(0, places, m) if reduction else g.r.permutation(places)[:m]
    i = np.stack(np.unravel_index(flat, s[:k]), -1)
    attrs = {"reduction": reduction} if reduction else {}
    g.node("ScatterND", [x, g.const(i, known=0.6), g.new(g.dtype(x), (m, *s[k:]))], **attrs)


@op(since=9)
def one_hot(g):
    depth, shape = g.any(1, 2, 3, 5), g.shape(1, 2)
    i = g.const(g.r.integers(-depth - 1, depth + 2, shape), known=0.5)
    g.node("OneHot", [i, g.const(depth), g.const([0, 1], F32)], axis=g.int(-1, len(shape) + 1))


@op(since=9)
def compress(g):
    x = g.get(F32, low=1, least=1)
    a = g.axis(g.at[x].ndim)
    n = g.dims(x)[a]
    g.node("Compress", [x, g.put(g.data(B, (g.any(n, max(1, n - 1)),)), 0.6)], axis=a)


@op(since=10)
def reverse_sequence(g):
    t, b, by_time = g.any(1, 3, 5), g.any(1, 2, 4), g.int(0, 2)
    x = g.new(F32, (t, b, *g.shape(0, 1)), known=0)
    length, count = (t, b) if by_time else (b, t)
    n = g.const(g.r.integers(1, length + 1, count), known=0.6)
    g.node("ReverseSequence", [x, n], time_axis=1 - by_time, batch_axis=by_time)


@op
def half(g):
    """Its results are read no further: ONNX Runtime rounds products twice, and what follows would enlarge that."""
    x = g.one("Cast", [g.get(F32, low=1, least=1)], to=10)
    y = g.one(g.any("Neg", "Abs", "Sigmoid", "Relu"), [x])
    if g.p(0.5):
        g.node("MatMul", [y, g.new(F16, (g.dims(x)[-1], g.any(1, 3)), known=1)])


@op(since=11)
def parts(g):
    """A sequence that is joined or read."""
    x = g.get(F32, low=1, least=1)
    a = g.axis(g.at[x].ndim)
    s = g.one("SplitToSequence", [x], axis=a, keepdims=1)
    n = g.dims(x)[a]
    if g.p(0.5):
        g.node("ConcatFromSequence", [s], axis=a)
    else:
        g.node("SequenceAt", [s, g.const(g.int(-n, n), known=0.6)])


@op(since=18)
def col2im(g):
    image, block = (g.any(4, 5, 6), g.any(4, 6)), (g.any(1, 2, 3), g.any(1, 2))
    strides, pads, dilations = [g.any(1, 2) for _ in range(2)], [g.any(0, 1) for _ in range(4)], [1, g.any(1, 2)]
    count = [(image[i] + pads[i] + pads[i + 2] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(2)]
    if min(count) < 1:
        raise Refused("no block fits")
    x = g.new(F32, (g.any(1, 2), g.any(1, 2) * block[0] * block[1], count[0] * count[1]), known=0)
    g.node("Col2Im", [x, g.const(image), g.const(block)], strides=strides, pads=pads, dilations=dilations)
