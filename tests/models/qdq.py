"""Makes quantised networks with onnxruntime's quantiser, and their reference outputs.

    python tests/models/qdq.py [FOLDER]

FOLDER is $SILURE_MODELS/qdq, or target/models/qdq. One network has ResNet-18's topology on small images,
one is a block of a transformer; weights and calibration data are from a fixed seed. Each is written as QDQ or
with ranges found at run time (DynamicQuantizeLinear and integer products); every output is a tensor of
integers, so that a difference is a number of steps. index.json lists, for each model, its file, how many
products it has, and inputs and onnxruntime's outputs as .npy files.
"""

import json
import os
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

SEED = 20240229
IMAGE = (1, 3, 32, 32)
CLASSES = 100
WIDTHS = [16, 32, 64, 128]
TOKENS = (2, 16, 64)
CASES = 3

# name: activations, weights, one scale per channel, options of the quantiser
KINDS = {
    "u8-i8-channel": (QuantType.QUInt8, QuantType.QInt8, True, {}),
    "i8-symmetric": (
        QuantType.QInt8,
        QuantType.QInt8,
        False,
        {"ActivationSymmetric": True, "WeightSymmetric": True},
    ),
    "u8-u8-tensor": (
        QuantType.QUInt8,
        QuantType.QUInt8,
        False,
        {"ActivationSymmetric": False, "WeightSymmetric": False},
    ),
}
# name: weights, one scale per channel
DYNAMIC = {
    "dynamic-i8-channel": (QuantType.QInt8, True),
    "dynamic-u8-tensor": (QuantType.QUInt8, False),
}
# name: kind, network
MODELS = {
    "resnet-u8-i8-channel": ("u8-i8-channel", "resnet"),
    "resnet-i8-symmetric": ("i8-symmetric", "resnet"),
    "resnet-u8-u8-tensor": ("u8-u8-tensor", "resnet"),
    "transformer-u8-i8-channel": ("u8-i8-channel", "transformer"),
    "transformer-i8-symmetric": ("i8-symmetric", "transformer"),
    "resnet-dynamic-i8-channel": ("dynamic-i8-channel", "resnet"),
    "resnet-dynamic-u8-tensor": ("dynamic-u8-tensor", "resnet"),
    "transformer-dynamic-i8-channel": ("dynamic-i8-channel", "transformer"),
    "transformer-dynamic-u8-tensor": ("dynamic-u8-tensor", "transformer"),
}


class Network:
    """Collects nodes and weights of a network."""

    def __init__(self, rng):
        self.rng, self.nodes, self.weights = rng, [], []

    def add(self, op, inputs, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name, value):
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(self, x, inputs, outputs, kernel, stride):
        # A batch normalisation behind it is folded in: a factor and an offset per channel.
        scale = np.sqrt(2.0 / (inputs * kernel * kernel))
        w = self.rng.normal(0, scale, (outputs, inputs, kernel, kernel))
        w *= self.rng.uniform(0.5, 1.5, (outputs, 1, 1, 1))
        b = self.rng.normal(0, 0.1, outputs)
        n = len(self.weights)
        names = [x, self.weight(f"w{n}", w), self.weight(f"b{n}", b)]
        pad = [kernel // 2] * 4
        return self.add("Conv", names, kernel_shape=[kernel, kernel], strides=[stride] * 2, pads=pad)

    def block(self, x, inputs, outputs, stride):
        y = self.add("Relu", [self.conv(x, inputs, outputs, 3, stride)])
        y = self.conv(y, outputs, outputs, 3, 1)
        if stride != 1 or inputs != outputs:
            x = self.conv(x, inputs, outputs, 1, stride)
        return self.add("Relu", [self.add("Add", [y, x])])


def resnet(seed):
    net = Network(np.random.default_rng(seed))
    x = net.add("Relu", [net.conv("x", 3, WIDTHS[0], 7, 1)])
    x = net.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = WIDTHS[0]
    for i, width in enumerate(WIDTHS):
        x = net.block(x, inputs, width, 1 if i == 0 else 2)
        x = net.block(x, width, width, 1)
        inputs = width
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    w = net.weight("fc", net.rng.normal(0, inputs**-0.5, (CLASSES, inputs)))
    b = net.weight("fc_bias", net.rng.normal(0, 0.1, CLASSES))
    x = net.add("Gemm", [x, w, b], transB=1)
    graph = helper.make_graph(
        net.nodes,
        "resnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, (IMAGE[0], CLASSES))],
        net.weights,
    )
    return finished(graph)


def transformer(seed):
    net = Network(np.random.default_rng(seed))
    batch, tokens, width = TOKENS

    def dense(x, inputs, outputs):
        n = len(net.weights)
        w = net.weight(f"w{n}", net.rng.normal(0, inputs**-0.5, (inputs, outputs)))
        b = net.weight(f"b{n}", net.rng.normal(0, 0.1, outputs))
        return net.add("Add", [net.add("MatMul", [x, w]), b])

    q, k, v = (dense("x", width, width) for _ in range(3))
    k = net.add("Transpose", [k], perm=[0, 2, 1])
    scores = net.add("MatMul", [q, k])
    scores = net.add("Mul", [scores, net.weight("factor", np.array(width**-0.5))])
    x = net.add("MatMul", [net.add("Softmax", [scores], axis=-1), v])
    x = net.add("Add", [dense(x, width, width), "x"])
    y = dense(x, width, 4 * width)
    y = net.add("Mul", [y, net.add("Sigmoid", [y])])
    x = net.add("Add", [dense(y, 4 * width, width), x])
    graph = helper.make_graph(
        net.nodes,
        "transformer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", tokens, width])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", tokens, width])],
        net.weights,
    )
    return finished(graph)


def finished(graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


# name: how it is made, shape of its input
NETWORKS = {"resnet": (resnet, IMAGE), "transformer": (transformer, TOKENS)}


class Inputs(CalibrationDataReader):
    """Random inputs to calibrate on."""

    def __init__(self, seed, shape, count=8):
        rng = np.random.default_rng(seed)
        self.left = [rng.normal(0, 1, shape).astype(np.float32) for _ in range(count)]

    def get_next(self):
        return {"x": self.left.pop()} if self.left else None


def integer_outputs(path):
    """Replaces each dequantised output by the integers it is made of."""
    model = onnx.load(path)
    graph = model.graph
    makers = {o: n for n in graph.node for o in n.output}
    for i, output in enumerate(graph.output):
        last = makers[output.name]
        assert last.op_type == "DequantizeLinear", last.op_type
        quantize = makers[last.input[0]]
        assert quantize.op_type == "QuantizeLinear", quantize.op_type
        zero = next(t for t in graph.initializer if t.name == quantize.input[2])
        shape = [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
        graph.output[i].CopyFrom(
            helper.make_tensor_value_info(quantize.output[0], zero.data_type, shape)
        )
        graph.node.remove(last)
    # The last features of an image too: many more elements than classes.
    for pool in [n for n in graph.node if n.op_type == "GlobalAveragePool"]:
        features = makers[makers[pool.input[0]].input[0]]
        zero = next(t for t in graph.initializer if t.name == features.input[2])
        shape = [IMAGE[0], WIDTHS[-1], IMAGE[2] // 16, IMAGE[3] // 16]
        graph.output.append(
            helper.make_tensor_value_info(features.output[0], zero.data_type, shape)
        )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantised_outputs(path):
    """Replaces each output by its integers, of a range found at run time."""
    model = onnx.load(path)
    for i, output in enumerate(model.graph.output):
        names = [f"{output.name}_{k}" for k in ("integers", "scale", "zero")]
        model.graph.node.append(helper.make_node("DynamicQuantizeLinear", [output.name], names))
        shape = [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
        model.graph.output[i].CopyFrom(
            helper.make_tensor_value_info(names[0], TensorProto.UINT8, shape)
        )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make(folder, name, source, shape):
    kind, network = MODELS[name]
    path = os.path.join(folder, f"{name}.onnx")
    if kind in DYNAMIC:
        weights, channels = DYNAMIC[kind]
        quantize_dynamic(source, path, weight_type=weights, per_channel=channels)
        quantised_outputs(path)
    else:
        activations, weights, channels, options = KINDS[kind]
        quantize_static(
            source,
            path,
            Inputs(SEED, shape),
            quant_format=QuantFormat.QDQ,
            activation_type=activations,
            weight_type=weights,
            per_channel=channels,
            extra_options=options,
        )
        integer_outputs(path)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    # As the nodes are written: its own integer kernels saturate sums of pairs on some processors.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(SEED + 1)
    cases = []
    for i in range(CASES):
        x = rng.normal(0, 1, shape).astype(np.float32)
        results = session.run(None, {"x": x})
        files = [f"{name}-{i}-out{k}.npy" for k in range(len(results))]
        np.save(os.path.join(folder, f"{name}-{i}-in.npy"), x)
        for file, result in zip(files, results):
            np.save(os.path.join(folder, file), result)
        cases.append({"input": f"{name}-{i}-in.npy", "outputs": files})
    ops = [n.op_type for n in onnx.load(path).graph.node]
    products = {
        "convs": ops.count("Conv") + ops.count("ConvInteger"),
        "matmuls": sum(map(ops.count, ["MatMul", "MatMulInteger", "Gemm"])),
        # Of operands that are both made at run time, which the dynamic quantiser leaves alone.
        "floats": ops.count("MatMul") if kind in DYNAMIC else 0,
        "dynamic": ops.count("DynamicQuantizeLinear"),
    }
    return {"file": f"{name}.onnx", "network": network, **products, "cases": cases}


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    models = os.environ.get("SILURE_MODELS") or os.path.join(root, "target", "models")
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(models, "qdq")
    os.makedirs(folder, exist_ok=True)
    index = {}
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        for name, (_, network) in MODELS.items():
            build, shape = NETWORKS[network]
            source = os.path.join(tmp, f"{network}.onnx")
            onnx.save(build(SEED), source)
            index[name] = make(folder, name, source, shape)
    with open(os.path.join(folder, "index.json"), "w") as f:
        json.dump(index, f, indent=1)
    print(f"{len(index)} quantised models in {folder}")


if __name__ == "__main__":
    main()
