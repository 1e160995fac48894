"""Makes the workloads that compare.py runs: `workloads.py FOLDER [--only NAMES] [--models MODELS]`.

Each is a folder with a model, its inputs, a reference output and spec.json. Weights and inputs are random
from fixed seeds; nothing is fetched. References come from numpy in f64 for single operators, from
onnxruntime without graph optimisation for networks. Networks need torch, torchvision and transformers,
quantised ones onnxruntime's quantiser; the real models are those that tests/models/fetch.py fetched
(MODELS, by default target/models).
"""
import argparse
import json
import math
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 20250301
IMAGE = (1, 3, 224, 224)


def normal(*shape, scale=1.0):
    rng = np.random.default_rng([SEED, *shape])
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def write(folder, model, inputs, outputs):
    """spec.json and the tensors beside a model that is already in the folder."""
    def put(kind, tensors):
        for i, value in enumerate(tensors.values()):
            np.save(folder / f"{kind}{i}.npy", value)
        return [{"name": name, "file": f"{kind}{i}.npy"} for i, name in enumerate(tensors)]

    spec = {"name": folder.name, "model": model, "inputs": put("in", inputs), "outputs": put("out", outputs)}
    (folder / "spec.json").write_text(json.dumps(spec, indent=1))


def operators(folder, nodes, inputs, weights, output):
    """A graph of a few operators with one output `y`, whose value in f64 is given."""
    def info(name, value):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)

    graph = helper.make_graph(
        [helper.make_node(op, args, [out], **attrs) for op, args, out, attrs in nodes], folder.name,
        [info(n, v) for n, v in inputs.items()], [info("y", output)],
        [numpy_helper.from_array(v, n) for n, v in weights.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "model.onnx")
    write(folder, "model.onnx", inputs, {"y": output.astype(np.float32)})


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(x)


def gelu_nodes(x, y):
    """x/2 · (1 + erf(x/√2)) as exporters write it."""
    return [("Div", [x, "root"], "g0", {}), ("Erf", ["g0"], "g1", {}), ("Add", ["g1", "one"], "g2", {}),
            ("Mul", [x, "g2"], "g3", {}), ("Mul", ["g3", "half"], y, {})]


GELU = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}


def gemm(folder):
    a, w = normal(1024, 1024), normal(1024, 1024, scale=1 / 32)
    operators(folder, [("MatMul", ["a", "w"], "y", {})], {"a": a}, {"w": w}, a.astype(float) @ w)


def gemm_gelu(folder):
    a, w, b = normal(384, 768), normal(768, 3072, scale=0.04), normal(3072)
    z = a.astype(float) @ w + b
    nodes = [("MatMul", ["a", "w"], "p", {}), ("Add", ["p", "b"], "z", {}), *gelu_nodes("z", "y")]
    operators(folder, nodes, {"a": a}, {"w": w, "b": b, **GELU}, z / 2 * (1 + erf(z / 2**0.5)))


def mlp(folder, batch):
    x = normal(batch, 1024)
    w = {"w1": normal(1024, 4096, scale=1 / 32), "b1": normal(4096), "w2": normal(4096, 1024, scale=1 / 64),
         "b2": normal(1024)}
    nodes = [("Gemm", ["x", "w1", "b1"], "a", {}), ("Relu", ["a"], "h", {}), ("Gemm", ["h", "w2", "b2"], "y", {})]
    h = np.maximum(x.astype(float) @ w["w1"] + w["b1"], 0)
    operators(folder, nodes, {"x": x}, w, h @ w["w2"] + w["b2"])


def gemv(folder, bits):
    """A chain of products of one row with 4096 × 4096 weights, 512 MiB of them: no cache holds any.

    f32, or integers of 8 or 4 bits with a scale for each 32 of a row, which half precision can hold."""
    n, block = 4096, 32
    each = {32: n * n * 4, 8: n * n + n * n // block * 4, 4: n * n // 2 + n * n // block * 4}[bits]
    nodes, weights, x = [], {}, normal(1, n)
    y = x.astype(float)
    for i in range((512 << 20) // each):
        w = np.roll(normal(n, n, scale=1 / 64), 17 * i + 1)
        if bits == 32:
            weights[f"w{i}"] = np.ascontiguousarray(w.T)
            nodes.append(("MatMul", [f"x{i}" if i else "x", f"w{i}"], f"x{i + 1}", {}))
            y = y @ w.T
            continue
        groups, middle = w.reshape(n, n // block, block), 1 << (bits - 1)
        scale = (np.abs(groups).max(-1) / (middle - 1)).astype(np.float16).astype(np.float32)
        q = np.clip(np.rint(groups / scale[:, :, None]), -middle, middle - 1) + middle
        y = y @ ((q - middle) * scale[:, :, None]).reshape(n, n).T
        q = q.astype(np.uint8)
        weights[f"w{i}"] = q if bits == 8 else q[..., ::2] | q[..., 1::2] << 4
        weights[f"s{i}"] = scale.ravel()
        attrs = {"K": n, "N": n, "bits": bits, "block_size": block, "domain": "com.microsoft"}
        nodes.append(("MatMulNBits", [f"x{i}" if i else "x", f"w{i}", f"s{i}"], f"x{i + 1}", attrs))
    op, args, _, attrs = nodes[-1]
    nodes[-1] = (op, args, "y", attrs)
    operators(folder, nodes, {"x": x}, weights, y)


def softmax(folder):
    x = normal(4096, 4096)
    e = np.exp(x.astype(float) - x.max(-1, keepdims=True))
    operators(folder, [("Softmax", ["x"], "y", {"axis": -1})], {"x": x}, {}, e / e.sum(-1, keepdims=True))


def layernorm(folder):
    x, g, b = normal(4096, 4096), normal(4096), normal(4096, scale=2.0)
    d = x.astype(float)
    y = (d - d.mean(-1, keepdims=True)) / np.sqrt(d.var(-1, keepdims=True) + 1e-5) * g + b
    nodes = [("LayerNormalization", ["x", "g", "b"], "y", {"axis": -1, "epsilon": 1e-5})]
    operators(folder, nodes, {"x": x}, {"g": g, "b": b}, y)


def gelu(folder):
    x = normal(4096, 4096)
    operators(folder, gelu_nodes("x", "y"), {"x": x}, GELU, x / 2 * (1 + erf(x.astype(float) / 2**0.5)))


def reference(folder, model, inputs):
    """Outputs of onnxruntime as the model is written."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(folder / model), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    write(folder, model, inputs, dict(zip(names, session.run(names, inputs))))


def exported(folder, network, names, args):
    import torch

    torch.onnx.export(network.eval(), args, folder / "model.onnx", input_names=names, output_names=["y"],
                      opset_version=18, dynamo=True, external_data=False, verbose=False)
    reference(folder, "model.onnx", {n: a.numpy() for n, a in zip(names, args)})


def convolutions(folder, build):
    import torch
    import torchvision

    torch.manual_seed(SEED)
    network = getattr(torchvision.models, build)(weights=None)
    for module in network.modules():
        # Statistics that are not the identity, so that folding them is something.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    exported(folder, network, ["x"], (torch.from_numpy(normal(*IMAGE)),))


def bert(folder, batch):
    import torch
    from transformers import BertConfig, BertModel

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel(BertConfig(), add_pooling_layer=False)

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    torch.manual_seed(SEED)
    ids = torch.randint(5, 30000, (batch, 128))
    exported(folder, Words(), ["input_ids", "attention_mask"], (ids, torch.ones_like(ids)))


def dynamic(folder, source):
    """Weights in 8 bits, ranges of activations found at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = folder.parent / source
    quantize_dynamic(source / "model.onnx", folder / "model.onnx", weight_type=QuantType.QInt8)
    spec = json.loads((source / "spec.json").read_text())
    reference(folder, "model.onnx", {i["name"]: np.load(source / i["file"]) for i in spec["inputs"]})


def qdq(folder, source):
    """Quantised in QDQ form, u8 activations, i8 weights by channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": normal(*IMAGE, scale=s)} for s in (0.8, 1.0, 1.2)]

        def get_next(self):
            return self.left.pop() if self.left else None

    source = folder.parent / source / "model.onnx"
    quant_pre_process(source, folder / "plain.onnx", skip_symbolic_shape=True)
    quantize_static(folder / "plain.onnx", folder / "model.onnx", Images(), quant_format=QuantFormat.QDQ,
                    per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    (folder / "plain.onnx").unlink()
    reference(folder, "model.onnx", {"x": normal(*IMAGE)})


def real(folder, models, name, inputs):
    (folder / "model.onnx").write_bytes((models / f"{name}.onnx").read_bytes())
    reference(folder, "model.onnx", inputs)


def words(length):
    ids = np.random.default_rng(SEED).integers(1000, 30000, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def audio():
    return {"input": normal(1, 576, scale=0.1), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}


def table(models):
    return {
        "gemm_1024": gemm,
        "gemm_gelu": gemm_gelu,
        "mlp_b1": lambda f: mlp(f, 1),
        "mlp_b64": lambda f: mlp(f, 64),
        "gemv_f32": lambda f: gemv(f, 32),
        "gemv_q8": lambda f: gemv(f, 8),
        "gemv_q4": lambda f: gemv(f, 4),
        "softmax_4096": softmax,
        "layernorm_4096": layernorm,
        "gelu_16m": gelu,
        "resnet50": lambda f: convolutions(f, "resnet50"),
        "squeezenet": lambda f: convolutions(f, "squeezenet1_1"),
        "mobilenetv2": lambda f: convolutions(f, "mobilenet_v2"),
        "bert_b1": lambda f: bert(f, 1),
        "bert_b8": lambda f: bert(f, 8),
        "bert_int8": lambda f: dynamic(f, "bert_b1"),
        "resnet50_qdq": lambda f: qdq(f, "resnet50"),
        "ocr_det": lambda f: real(f, models, "ocr-det", {"x": normal(1, 3, 320, 640)}),
        "ocr_rec": lambda f: real(f, models, "ocr-rec", {"x": normal(1, 3, 48, 320)}),
        "silero_vad": lambda f: real(f, models, "silero-vad", audio()),
        "minilm_int8": lambda f: real(f, models, "minilm-int8", words(32)),
    }


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=pathlib.Path)
    ap.add_argument("--only", help="names, separated by commas")
    ap.add_argument("--models", type=pathlib.Path, default=pathlib.Path("target/models"))
    a = ap.parse_args()
    rows = table(a.models)
    for name in a.only.split(",") if a.only else rows:
        folder = a.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        rows[name](folder)
        print("made", name, flush=True)


main()
