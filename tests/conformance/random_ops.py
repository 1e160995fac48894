"""Random graphs of ONNX operators, built node by node on values that are known.

A `Graph` holds an array for every value. `Graph.node` runs the new node alone in ONNX Runtime, so that shapes, types
and data-dependent results need no formula here; what that refuses is taken back. An operator is a function with
`@op`: it takes operands from the graph or makes them, and adds one node or a few. Those of neural networks are in
random_nn.py.
"""
import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

F32, F64, F16, I32, I64, I8, U8, B = (np.dtype(t) for t in ("f4", "f8", "f2", "i4", "i8", "i1", "u1", "?"))
OPSETS = list(range(7, 25))
# The file format that goes with an operator set.
IR = {7: 4, 8: 4, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}
IR |= {n: 10 for n in range(21, 25)}
SIZES = [0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 8, 9, 16, 17]
MOST = 20000  # elements of a value
OPS = {}


class Refused(Exception):
    """ONNX Runtime does not take a node or a model; its words."""


def op(f=None, *, since=7, weight=1.0):
    """Registers an operator: the first set that has it in this form, and how often it is taken."""
    def add(f):
        OPS[f.__name__.strip("_")] = (f, since, weight)
        return f
    return add(f) if f else add


def info(name, dtype, dims):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), dims)


def session(model):
    """A model in ONNX Runtime as it is written, or `Refused`."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as e:  # noqa: BLE001: whatever it raises
        raise Refused(str(e)) from e


def run(s, feeds):
    """What a session gives, or `Refused`."""
    try:
        return s.run(None, feeds)
    except Exception as e:  # noqa: BLE001: whatever it raises
        raise Refused(str(e)) from e


class Graph:
    def __init__(self, seed, special=True):
        self.r = np.random.default_rng(seed)
        self.special = special  # NaN, infinities, denormals among the data
        self.opset = self.any(*OPSETS)
        self.nodes, self.inits, self.inputs, self.results, self.made = [], [], [], [], []
        self.at = {}  # name -> array, or list of arrays

    # Choices.

    def any(self, *of):
        return of[int(self.r.integers(len(of)))]

    def p(self, chance):
        return self.r.random() < chance

    def int(self, low, high):
        return int(self.r.integers(low, high))

    def some(self, of, least=0):
        """A part of a list, in its order."""
        keep = self.r.permutation(len(of))[: self.int(least, len(of) + 1)]
        return [of[i] for i in sorted(keep)]

    def axis(self, rank, since=11):
        """An axis, from the end where the operator set knows that."""
        return self.int(-rank if self.opset >= since else 0, rank)

    def axes(self, rank, least=0, since=11):
        back = self.opset >= since and self.p(0.3)
        return [i - rank if back else i for i in self.some(range(rank), least)]

    def shape(self, low=0, high=4, least=0):
        return tuple(max(least, self.any(*SIZES)) for _ in range(self.int(low, high + 1)))

    def broadcast(self, shape):
        """A shape that broadcasts with another: a tail of it with some ones, seldom with an axis more."""
        tail = shape[self.int(0, len(shape) + 1) if self.p(0.3) else 0:]
        ones = tuple(1 if self.p(0.3) else d for d in tail)
        return (self.any(1, 2, 3), *ones) if self.p(0.05) and len(ones) == len(shape) < 4 else ones

    # Values.

    def data(self, dtype, shape, low=None, high=None):
        """Random numbers; within [low, high) if bounds are given."""
        dtype = np.dtype(dtype)
        if dtype == B:
            return np.asarray(self.r.random(shape) < 0.5)
        if dtype.kind in "iu":
            if low is None and self.p(0.05):
                return self.r.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
            low = (-9 if dtype.kind == "i" else 0) if low is None else low
            return self.r.integers(low, 10 if high is None else high, shape).astype(dtype)
        if low is not None:
            return np.asarray(self.r.uniform(low, high, shape), dtype)
        x = np.array(self.r.standard_normal(shape) * self.any(0.5, 1, 3), dtype)
        if self.special and x.size and self.p(0.06):
            large = 6e4 if dtype == F16 else 1e30
            x.reshape(-1)[self.int(0, x.size)] = self.any(np.nan, np.inf, -np.inf, -0.0, large, 1e-40)
        return x

    def put(self, array, known=0.35, prefix="x"):
        """A value of that array: an initializer with that chance, else an input."""
        array = np.asarray(array)
        name = f"{prefix}{len(self.at)}"
        self.at[name] = array
        if self.p(known):
            self.inits.append(name)
        else:
            self.inputs.append(name)
        return name

    def new(self, dtype, shape, low=None, high=None, known=0.35):
        return self.put(self.data(dtype, shape, low, high), known)

    def const(self, value, dtype=I64, known=1.0):
        return self.put(np.asarray(value, dtype), known, "k")

    def get(self, *dtypes, low=0, high=4, least=0):
        """A value of one of the types and of that rank: mostly one that a node made lately."""
        def fit(v):
            return v.dtype in dtypes and low <= v.ndim <= high and min(v.shape, default=1) >= least
        fits = [v for v in self.results[-8:] if fit(self.at[v])]
        if fits and self.p(0.75):
            return self.any(*fits)
        return self.new(self.any(*dtypes), self.shape(low, high, least))

    def dtype(self, v):
        return self.at[v].dtype

    def dims(self, v):
        return self.at[v].shape

    def finite(self, *values):
        """For operators that give NaN and infinities no meaning."""
        if not all(np.isfinite(self.at[v]).all() for v in values):
            raise Refused("not finite")

    def within(self, v, most):
        """For operators in which large numbers overflow on one side."""
        if not (np.abs(self.at[v]) <= most).all():
            raise Refused("large numbers")

    # Nodes.

    def node(self, kind, inputs, outputs=1, domain="", **attrs):
        """Adds a node and gives the names of its results; `Refused` if ONNX Runtime does not take it."""
        names = [f"{'v' if i < outputs else 'u'}{len(self.at) + i}" for i in range(outputs)]
        while inputs and inputs[-1] == "":
            inputs = inputs[:-1]
        node = helper.make_node(kind, inputs, names, domain=domain, **attrs)
        feeds = {n: self.at[n] for n in self.needed([node]) if n not in self.inits}
        results = run(session(self.model([node], names)), feeds)
        for name, y in zip(names, results):
            self.at[name] = y
            if isinstance(y, np.ndarray) and y.size > MOST:
                raise Refused("a large result")
        self.nodes.append(node)
        self.made.append(kind)
        self.results += [n for n in names if isinstance(self.at[n], np.ndarray)]
        return names

    def one(self, *args, **attrs):
        return self.node(*args, **attrs)[0]

    def needed(self, nodes):
        """Values that the nodes and their bodies use and do not make, in the order in which they came."""
        used, made = set(), set()

        def look(nodes):
            for n in nodes:
                used.update(n.input)
                made.update(n.output)
                for a in n.attribute:
                    if a.HasField("g"):
                        made.update(i.name for i in a.g.input)
                        look(a.g.node)
        look(nodes)
        return [n for n in self.at if n in used and n not in made]

    def model(self, nodes, outputs, symbol=lambda name, axis, size: size):
        """Nodes as a model. Sizes of inputs are what `symbol` says, types of results what ONNX Runtime infers."""
        needed = self.needed(nodes)

        def port(n):
            v = self.at[n]
            if isinstance(v, list):
                t = helper.np_dtype_to_tensor_dtype(v[0].dtype if v else F32)
                return helper.make_tensor_sequence_value_info(n, t, None)
            return info(n, v.dtype, [symbol(n, i, d) for i, d in enumerate(v.shape)])
        inputs = [port(n) for n in needed if n not in self.inits]
        inits = [numpy_helper.from_array(self.at[n], n) for n in needed if n in self.inits]

        def result(n):
            v = self.at.get(n)
            if not isinstance(v, np.ndarray):
                return onnx.ValueInfoProto(name=n)
            return helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None)
        graph = helper.make_graph(nodes, "random", inputs, [result(n) for n in outputs], inits)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR[self.opset])


def build(seed, only=(), most=8, special=True):
    """A graph of up to `most` nodes of the operators named, or of all."""
    g = Graph(seed, special)
    names = [n for n, (_, since, _) in OPS.items() if (not only or n in only) and since <= g.opset]
    if not names:
        return g
    weights = np.array([OPS[n][2] for n in names])
    wanted = g.int(1, most + 1)
    for _ in range(8 * wanted):
        if len(g.nodes) >= wanted:
            break
        saved = [list(v) for v in (g.nodes, g.inits, g.inputs, g.results, g.made)], dict(g.at)
        try:
            OPS[names[int(g.r.choice(len(names), p=weights / weights.sum()))]][0](g)
        except (Refused, ValueError):
            (g.nodes, g.inits, g.inputs, g.results, g.made), g.at = saved
    return g


# Elementwise.

# name: (types, first set)
UNARY = {
    "Abs": ((F32, F64, I32, I64, I8), 7), "Neg": ((F32, I32, I64, I8), 7), "Relu": ((F32,), 7), "Sigmoid": ((F32,), 7),
    "Tanh": ((F32, F64), 7), "Exp": ((F32,), 7), "Floor": ((F32,), 7), "Ceil": ((F32,), 7), "Sqrt": ((F32,), 7),
    "Reciprocal": ((F32,), 7), "Log": ((F32,), 7), "Sin": ((F32,), 7), "Cos": ((F32,), 7), "Tan": ((F32,), 7),
    "Atan": ((F32,), 7), "Asin": ((F32,), 7), "Acos": ((F32,), 7), "Softsign": ((F32,), 7), "Softplus": ((F32,), 7),
    "Identity": ((F32, I64, B, U8), 7), "Not": ((B,), 7), "Erf": ((F32,), 9), "Sign": ((F32, I64, I32, U8), 9),
    "Sinh": ((F32,), 9), "Cosh": ((F32,), 9), "Asinh": ((F32,), 9), "Acosh": ((F32,), 9), "Atanh": ((F32,), 9),
    "IsNaN": ((F32,), 9), "Round": ((F32, F64), 11), "HardSwish": ((F32,), 14), "Mish": ((F32,), 18),
    "BitwiseNot": ((I32, U8, I64), 18), "Gelu": ((F32,), 20), "Swish": ((F32,), 24),
}
ATTRIBUTES = [
    ("LeakyRelu", 7, {"alpha": 0.2}), ("LeakyRelu", 7, {}), ("Elu", 7, {"alpha": 1.5}), ("Elu", 7, {}), ("Selu", 7, {}),
    ("HardSigmoid", 7, {"alpha": 0.3, "beta": 0.4}), ("HardSigmoid", 7, {}), ("ThresholdedRelu", 10, {"alpha": 0.5}),
    ("Celu", 12, {"alpha": 0.7}), ("Shrink", 9, {"lambd": 0.4, "bias": 0.1}), ("Gelu", 20, {"approximate": "tanh"}),
    ("IsInf", 10, {"detect_negative": 0}), ("IsInf", 10, {"detect_positive": 0}), ("IsInf", 10, {}),
]
BINARY = {
    "Add": ((F32, I32, I64, F64, U8, I8), 7), "Sub": ((F32, I32, I64), 7), "Mul": ((F32, I32, I64, F64), 7),
    "Div": ((F32, F64), 7), "Equal": ((I32, I64, B, F32), 7), "Less": ((F32, I32, I64), 7),
    "Greater": ((F32, I32, I64), 7), "And": ((B,), 7), "Or": ((B,), 7), "Xor": ((B,), 7),
    "LessOrEqual": ((F32, I32, I64), 12), "GreaterOrEqual": ((F32, I32, I64), 12), "BitwiseAnd": ((I32, U8), 18),
    "BitwiseOr": ((I32, U8), 18),
    "BitwiseXor": ((I32, U8), 18), "PRelu": ((F32,), 7),
}


@op(weight=3)
def unary(g):
    name = g.any(*[n for n, (_, since) in UNARY.items() if since <= g.opset])
    g.node(name, [g.get(*UNARY[name][0])])


@op
def with_attributes(g):
    name, since, attrs = g.any(*ATTRIBUTES)
    if since <= g.opset:
        g.node(name, [g.get(F32)], **attrs)


@op(weight=4)
def binary(g):
    name = g.any(*[n for n, (_, since) in BINARY.items() if since <= g.opset])
    x = g.get(*BINARY[name][0])
    same = [v for v in g.results[-8:] if g.dtype(v) == g.dtype(x)]
    y = g.any(*same) if same and g.p(0.5) else g.new(g.dtype(x), g.broadcast(g.dims(x)))
    g.node(name, [y, x] if g.p(0.4) and name != "PRelu" else [x, y])


@op
def integer_division(g):
    x = g.get(I32, I64)
    y = g.new(g.dtype(x), g.broadcast(g.dims(x)), 1, 7, known=1)
    if g.p(0.5) and g.opset >= 10:
        g.node("Mod", [x, y], fmod=g.int(0, 2))
    else:
        g.node("Div", [x, y])


@op(since=10)
def remainder(g):
    x = g.get(F32)
    g.node("Mod", [x, g.new(F32, g.broadcast(g.dims(x)), 0.1, 3)], fmod=1)


@op
def power(g):
    e = g.any(2, 0.5, -1, 3, 0, 1, -2)
    g.node("Pow", [g.get(F32), g.const(e, F32 if g.opset < 12 or g.p(0.5) else g.any(I32, I64))])


@op(since=11)
def shift(g):
    x = g.new(U8, g.shape())
    g.node("BitShift", [x, g.new(U8, g.broadcast(g.dims(x)), 0, 8)], direction=g.any("LEFT", "RIGHT"))


@op(since=8)
def variadic(g):
    name = g.any("Sum", "Max", "Min", "Mean")
    x = g.get(F32) if g.opset < 12 or name in ("Sum", "Mean") else g.get(F32, I32, I64)
    g.node(name, [x] + [g.new(g.dtype(x), g.broadcast(g.dims(x))) for _ in range(g.int(0, 3))])


@op(since=9, weight=2)
def where(g):
    x = g.get(F32, I64, I32, U8)
    g.node("Where", [g.new(B, g.broadcast(g.dims(x))), x, g.new(g.dtype(x), g.broadcast(g.dims(x)))])


@op
def clip(g):
    if g.opset < 11:
        g.node("Clip", [g.get(F32)], **dict(g.some([("min", -0.5), ("max", 0.8)])))
        return
    x = g.get(F32, I64, I32)
    bound = lambda v: g.const(v, g.dtype(x), 0.8) if g.p(0.6) else ""
    g.node("Clip", [x, bound(-1), bound(g.any(2, -2))])


@op(weight=2)
def cast(g):
    types = (F32, F64, I32, I64, I8, U8, B)
    x, to = g.get(*types), g.any(*types, F16)
    if g.dtype(x).kind == "f" and to.kind in "iu":
        # Numbers outside of the type have no meaning in the standard.
        g.finite(x)
        x = g.one("Cast", [x], to=1)
        low = 0 if to.kind == "u" else -100
        bounds = [] if g.opset < 11 else [g.const(low, F32), g.const(100, F32)]
        x = g.one("Clip", [x] + bounds, **({} if bounds else {"min": float(low), "max": 100.0}))
    g.node("Cast", [x], to=helper.np_dtype_to_tensor_dtype(to))


# Reductions and orders.

@op(weight=3)
def reduction(g):
    name = "Reduce" + g.any("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp", "LogSum")
    x = g.get(F32, I32, I64)
    axes = g.axes(len(g.dims(x)))
    attrs = {"keepdims": g.int(0, 2)} if g.p(0.7) else {}
    if g.opset >= 18 or (name == "ReduceSum" and g.opset >= 13):
        if not axes and g.p(0.3):
            attrs["noop_with_empty_axes"] = 1
        g.node(name, [x] + ([g.const(axes)] if axes or g.p(0.5) else []), **attrs)
    else:
        g.node(name, [x], **attrs, **({"axes": axes} if axes else {}))


@op
def extreme_index(g):
    x = g.get(F32, I32, low=1, least=1)
    last = {"select_last_index": g.int(0, 2)} if g.opset >= 12 else {}
    g.node(g.any("ArgMax", "ArgMin"), [x], axis=g.axis(g.at[x].ndim), keepdims=g.int(0, 2), **last)


@op(weight=2)
def softmax(g):
    x = g.get(F32, low=1)
    g.node(g.any("Softmax", "LogSoftmax", "Hardmax"), [x], **({"axis": g.axis(g.at[x].ndim)} if g.p(0.7) else {}))


@op(since=11)
def running_sum(g):
    x = g.get(F32, I32, I64, low=1)
    r = g.at[x].ndim
    g.node("CumSum", [x, g.const(g.int(-r, r), g.any(I32, I64), 0.8)], exclusive=g.int(0, 2), reverse=g.int(0, 2))


@op
def topk(g):
    x = g.get(F32, low=1, least=1)
    a = g.axis(g.at[x].ndim)
    k = g.int(1, g.dims(x)[a] + 1)
    if g.opset < 10:
        g.node("TopK", [x], 2, axis=a, k=k)
    else:
        g.node("TopK", [x, g.const([k], known=0.8)], 2, axis=a, **({"largest": g.int(0, 2)} if g.opset >= 11 else {}))


@op(since=11)
def unique(g):
    g.node("Unique", [g.new(g.any(F32, I64), g.shape(1, 2))], 4, sorted=g.int(0, 2))


@op(since=9)
def nonzero(g):
    g.node("NonZero", [g.get(F32, I64, B, low=1)])
