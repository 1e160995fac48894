"""Writes small models as ONNX Runtime's quantisers leave them, with its own outputs, in the form of export.py.

    python quantisers.py DIR [--seed N]

A convolutional network, recurrent layers and a transformer's block are quantised dynamically, statically in
operators (QOperator) and with quantise/dequantise pairs that its optimiser then fuses, and to blocks of 4 and
8 bits. Needs onnxruntime with its quantisation tools; what these need and is not installed is said and left out.
"""

import argparse
import json
import logging
import pathlib
import shutil
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as q

logging.disable(logging.WARNING)
ort.set_default_logger_severity(4)
F, MS = TensorProto.FLOAT, "com.microsoft"


class Builder:
    """A model of float operators with random weights."""

    def __init__(self, rng):
        self.rng, self.nodes, self.inits, self.count = rng, [], [], 0

    def weight(self, *shape, scale=None):
        scale = scale or (2 / max(1, np.prod(shape[1:]))) ** 0.5
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def const(self, v):
        self.count += 1
        self.inits.append(numpy_helper.from_array(np.asarray(v), f"w{self.count}"))
        return f"w{self.count}"

    def op(self, op, *inputs, outputs=1, **attrs):
        self.count += 1
        names = [f"v{self.count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{self.count}", **attrs))
        return names[0] if outputs == 1 else names

    def model(self, inputs, outputs):
        infos = [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs]
        outs = [helper.make_tensor_value_info(n, F, s) for n, s in outputs]
        graph = helper.make_graph(self.nodes, "float", infos, outs, self.inits)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def cnn(rng):
    b = Builder(rng)
    x = b.op("Relu", b.op("Conv", "x", b.weight(8, 3, 3, 3), b.weight(8, scale=0.1), pads=[1, 1, 1, 1]))
    y = b.op("Conv", x, b.weight(8, 8, 3, 3), b.weight(8, scale=0.1), pads=[1, 1, 1, 1])
    y = b.op("Relu", b.op("Add", x, y))
    y = b.op("LeakyRelu", b.op("Conv", y, b.weight(16, 4, 3, 3), strides=[2, 2], group=2), alpha=0.1)
    a, m = b.op("AveragePool", y, kernel_shape=[2, 2]), b.op("MaxPool", y, kernel_shape=[2, 2])
    y = b.op("Concat", a, m, axis=1)
    gate = b.op("Sigmoid", b.op("Conv", y, b.weight(32, 32, 1, 1), b.weight(32, scale=0.1)))
    y = b.op("GlobalAveragePool", b.op("Mul", y, gate))
    y = b.op("Gemm", b.op("Flatten", y), b.weight(10, 32), b.weight(10, scale=0.1), transB=1)
    y = b.op("Softmax", y, axis=-1)
    return b.model([("x", F, ["n", 3, 12, 12])], [(y, ["n", 10])]), {"x": (rng.standard_normal, (2, 3, 12, 12))}


def lstm(rng):
    b = Builder(rng)
    bias = b.weight(2, 64, scale=0.1)
    y, h, c = b.op(
        "LSTM", "x", b.weight(2, 32, 12), b.weight(2, 32, 8), bias, outputs=3, direction="bidirectional", hidden_size=8
    )
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.const(np.array([0, 0, 16])))
    y, _, _ = b.op("LSTM", y, b.weight(1, 32, 16), b.weight(1, 32, 8), outputs=3, hidden_size=8)
    y = b.op("MatMul", b.op("Squeeze", y, b.const(np.array([1]))), b.weight(8, 5))
    return b.model([("x", F, ["s", "n", 12])], [(y, ["s", "n", 5])]), {"x": (rng.standard_normal, (6, 3, 12))}


def block(rng, heads=4, size=32, words=64):
    """One block of a transformer, with its embedding."""
    b = Builder(rng)
    x = b.op("Gather", b.weight(words, size, scale=1.0), "ids", axis=0)
    ones, zeros = (lambda: b.const(np.ones(size, np.float32))), (lambda: b.const(np.zeros(size, np.float32)))
    x = b.op("LayerNormalization", x, ones(), zeros(), axis=-1)

    def dense(v, i, o):
        return b.op("Add", b.op("MatMul", v, b.weight(i, o, scale=i**-0.5)), b.weight(o, scale=0.1))

    def split(v, perm):
        return b.op("Transpose", b.op("Reshape", v, b.const(np.array([0, 0, heads, size // heads]))), perm=perm)

    query, key, value = (split(dense(x, size, size), p) for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    s = b.op("Div", b.op("MatMul", query, key), b.const(np.float32((size // heads) ** 0.5)))
    y = b.op("MatMul", b.op("Softmax", s, axis=-1), value)
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.const(np.array([0, 0, size])))
    x = b.op("LayerNormalization", b.op("Add", x, dense(y, size, size)), ones(), zeros(), axis=-1)
    h = dense(x, size, 64)
    e = b.op("Erf", b.op("Div", h, b.const(np.float32(2**0.5))))
    h = b.op("Mul", b.op("Mul", h, b.op("Add", e, b.const(np.float32(1)))), b.const(np.float32(0.5)))
    x = b.op("LayerNormalization", b.op("Add", x, dense(h, 64, size)), ones(), zeros(), axis=-1)
    make = (lambda shape: rng.integers(0, words, shape), (2, 7))
    return b.model([("ids", TensorProto.INT64, ["n", "s"])], [(x, ["n", "s", size])]), {"ids": make}


def fused(rng, heads=4, size=32, words=64):
    """The same as the runtime's optimiser for transformers leaves it."""
    b = Builder(rng)
    ones, zeros = b.const(np.ones(size, np.float32)), b.const(np.zeros(size, np.float32))
    tables = [b.weight(words, size, scale=1.0), b.weight(16, size, scale=1.0), b.weight(2, size, scale=1.0)]
    x, mask = b.op("EmbedLayerNormalization", "ids", "kinds", *tables, ones, zeros, "mask", outputs=2, domain=MS)
    y = b.op(
        "Attention",
        x,
        b.weight(size, 3 * size, scale=size**-0.5),
        b.weight(3 * size, scale=0.1),
        mask,
        num_heads=heads,
        domain=MS,
    )
    y = b.op("MatMul", y, b.weight(size, size, scale=size**-0.5))
    x = b.op("SkipLayerNormalization", x, y, ones, zeros, b.weight(size, scale=0.1), domain=MS)
    h = b.op("BiasGelu", b.op("MatMul", x, b.weight(size, 64, scale=size**-0.5)), b.weight(64, scale=0.1), domain=MS)
    h = b.op("MatMul", h, b.weight(64, size, scale=0.125))
    x = b.op("SkipLayerNormalization", x, h, ones, zeros, b.weight(size, scale=0.1), domain=MS)
    inputs = {
        n: (lambda shape, k=k: rng.integers(0, k, shape).astype(np.int32), (2, 7))
        for n, k in [("ids", words), ("kinds", 2), ("mask", 2)]
    }
    inputs["mask"] = (lambda shape: np.tile(np.arange(7) < 5, (2, 1)).astype(np.int32), (2, 7))
    m = b.model([(n, TensorProto.INT32, ["n", "s"]) for n in inputs], [(x, ["n", "s", size])])
    m.opset_import.append(helper.make_opsetid(MS, 1))
    return m, inputs


class Reader(q.CalibrationDataReader):
    """Eight random batches."""

    def __init__(self, feeds):
        self.batches = iter([{n: fresh(v) for n, v in feeds.items()} for _ in range(8)])

    def get_next(self):
        return next(self.batches, None)


def fresh(v):
    a = v[0](v[1])
    return a.astype(np.float32) if a.dtype.kind == "f" else a


def optimised(model, level=ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED):
    """The model as the runtime's optimiser writes it."""
    with tempfile.TemporaryDirectory() as d:
        o = ort.SessionOptions()
        o.graph_optimization_level = level
        o.optimized_model_filepath = f"{d}/m.onnx"
        o.log_severity_level = 4
        # Products with weights in blocks compute in floats.
        o.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        # Layouts of only one machine stay out.
        ort.InferenceSession(
            model.SerializeToString(), o, ["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
        )
        return onnx.load(o.optimized_model_filepath)


def dynamic(model, _, **more):
    with tempfile.TemporaryDirectory() as d:
        q.quantize_dynamic(model, f"{d}/q.onnx", extra_options={"DefaultTensorType": F}, **more)
        return onnx.load(f"{d}/q.onnx")


def static(model, feeds, form, types, **more):
    with tempfile.TemporaryDirectory() as d:
        onnx.save(model, f"{d}/m.onnx")
        q.quantize_static(
            f"{d}/m.onnx",
            f"{d}/q.onnx",
            Reader(feeds),
            quant_format=form,
            activation_type=types[0],
            weight_type=types[1],
            extra_options={"ForceQuantizeNoInputCheck": True, "DefaultTensorType": F},
            **more,
        )
        return onnx.load(f"{d}/q.onnx")


def blocks(model, _, bits, symmetric):
    from onnxruntime.quantization import matmul_nbits_quantizer  # needs onnx_ir

    algorithm = matmul_nbits_quantizer.DefaultWeightOnlyQuantConfig(
        block_size=16,
        is_symmetric=symmetric,
        bits=bits,
        op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    m = matmul_nbits_quantizer.MatMulNBitsQuantizer(model, algo_config=algorithm)
    m.process()
    return m.model.model


def bnb4(model, _, kind):
    from onnxruntime.quantization import matmul_bnb4_quantizer

    m = matmul_bnb4_quantizer.MatMulBnb4Quantizer(model, kind, 16)
    m.process()
    return m.model.model


def ways():
    u8, i8 = q.QuantType.QUInt8, q.QuantType.QInt8
    for w in (u8, i8):
        for each in (False, True):
            name = f"dynamic_{w}{'_each' if each else ''}"
            yield name, lambda m, f, w=w, e=each: dynamic(m, f, weight_type=w, per_channel=e)
            yield name + "_fused", lambda m, f, w=w, e=each: optimised(dynamic(m, f, weight_type=w, per_channel=e))
    for t in [(u8, u8), (u8, i8), (i8, i8)]:
        for each in (False, True):
            name = f"_{t[0]}_{t[1]}{'_each' if each else ''}"
            o, p = q.QuantFormat.QOperator, q.QuantFormat.QDQ
            every = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            yield "operators" + name, lambda m, f, t=t, e=each, o=o: static(m, f, o, t, per_channel=e)
            # Channels go last there.
            yield "operators_fused" + name, lambda m, f, t=t, e=each, o=o: optimised(
                static(m, f, o, t, per_channel=e), every
            )
            yield "pairs_all" + name, lambda m, f, t=t, e=each, p=p: optimised(static(m, f, p, t, per_channel=e), every)
            yield "pairs" + name, lambda m, f, t=t, e=each, p=p: static(m, f, p, t, per_channel=e)
            yield "pairs_fused" + name, lambda m, f, t=t, e=each, p=p: optimised(static(m, f, p, t, per_channel=e))
    for bits in (4, 8):
        for symmetric in (False, True):
            yield f"blocks_{bits}_{symmetric}", lambda m, f, b=bits, s=symmetric: blocks(m, f, b, s)
    for kind in (0, 1):
        yield f"bnb4_{kind}", lambda m, f, k=kind: bnb4(m, f, k)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("root", type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    shutil.rmtree(a.root, ignore_errors=True)
    index, operators = {"onnx": f"quantisers {ort.__version__}", "cases": {}}, set()
    for make in (cnn, lstm, block, fused):
        for way, quantise in ways():
            name = f"{make.__name__}_{way}".lower()
            try:
                model, feeds = make(np.random.default_rng(a.seed))
                model = quantise(onnx.shape_inference.infer_shapes(model), feeds)
                o = ort.SessionOptions()
                o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
                o.intra_op_num_threads, o.log_severity_level = 1, 4
                session = ort.InferenceSession(model.SerializeToString(), o, ["CPUExecutionProvider"])
            except Exception as e:  # noqa: BLE001: the tool's own trouble
                print(f"left out: {name}: {type(e).__name__}: {str(e).splitlines()[0][:160] if str(e) else ''}")
                continue
            operators |= {n.op_type for n in model.graph.node if n.domain == MS}
            values = {n: fresh(v) for n, v in feeds.items()}
            have = session.run(None, values)
            folder = a.root / "cases" / name
            (folder / "set0").mkdir(parents=True)
            onnx.save(model, folder / "model.onnx")
            types = {"inputs": [], "outputs": []}
            for kind, arrays in [("in", [values[i.name] for i in session.get_inputs()]), ("out", have)]:
                for i, v in enumerate(arrays):
                    np.save(folder / "set0" / f"{kind}_{i}.npy", v)
                    types[kind + "puts"].append(
                        ["tensor", TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(v.dtype))]
                    )
            # A float that differs in its last bit may be quantised to the next number: with pairs, whose
            # operators compute in floats, the result may be two units of 1 / 256 away.
            atol = 0.008 if "pairs" in way else 1e-4
            index["cases"][name] = {"kind": "quantisers", "rtol": 1e-3, "atol": atol, "sets": [types]}
    (a.root / "index.json").write_text(json.dumps(index, indent=0))
    print(f"onnxruntime {ort.__version__}: {len(index['cases'])} models; {' '.join(sorted(operators))}")


main()
