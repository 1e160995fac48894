"""A Llama's folder as the ONNX model that onnxruntime is fastest with: its own operators, states as arguments.

    python3 decoder_onnx.py FOLDER OUT.onnx [--int8]

FOLDER holds config.json and one model.safetensors in f32, without scaled rotary positions. `--int8` quantises the
weights by columns with onnxruntime's quantiser, what they are multiplied with at run time. Needs onnx,
onnxruntime, safetensors, numpy.
"""

import argparse
import json
import os

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from safetensors.numpy import load_file

OWN = "com.microsoft"


def build(folder):
    config = json.load(open(os.path.join(folder, "config.json")))
    weights = load_file(os.path.join(folder, "model.safetensors"))
    hidden, heads, groups = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    size, eps = hidden // heads, config["rms_norm_eps"]
    nodes, tensors = [], []

    def constant(name, array):
        tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(kind, inputs, outputs, domain="", **attributes):
        nodes.append(h.make_node(kind, inputs, outputs, name=f"n{len(nodes)}", domain=domain, **attributes))
        return outputs[0]

    def linear(x, name):
        return op("MatMul", [x, constant(name, weights[name].T)], [f"{name}.y"])

    theta = {**config, **config.get("rope_parameters", {})}.get("rope_theta", 1e4)
    frequency = theta ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    angle = np.outer(np.arange(config["max_position_embeddings"]), frequency)
    cos, sin = (constant(n, f(angle).astype(np.float32)) for n, f in (("cos", np.cos), ("sin", np.sin)))
    inputs = [h.make_tensor_value_info("tokens", T.INT64, [1, "S"])]
    inputs += [h.make_tensor_value_info("last", T.INT32, [1]), h.make_tensor_value_info("total", T.INT32, [])]
    outputs = []
    table = constant("table", weights["model.embed_tokens.weight"])
    rest = op("Gather", [table, "tokens"], ["x"])
    one = weights["model.norm.weight"]
    before = None
    layers = config["num_hidden_layers"]

    def norm(x, name, i):
        """The norm of the sum of the residual and what was added last, and that sum."""
        scale = constant(name, weights.get(name, one))
        if before is None:
            return op("SimplifiedLayerNormalization", [x, scale], [f"norm{i}"], axis=-1, epsilon=eps), x
        ys = [f"norm{i}", "", "", f"sum{i}"]
        op("SkipSimplifiedLayerNormalization", [x, before, scale], ys, OWN, epsilon=eps)
        return ys[0], ys[3]

    for i in range(layers):
        p = f"model.layers.{i}."
        x, rest = norm(rest, p + "input_layernorm.weight", 2 * i)
        q, k, v = (linear(x, f"{p}self_attn.{n}_proj.weight") for n in "qkv")
        own = [f"{a}.{i}" for a in ("key", "value")]
        for name in own:
            inputs.append(h.make_tensor_value_info(f"past.{name}", T.FLOAT, [1, groups, "P", size]))
            outputs.append(h.make_tensor_value_info(f"present.{name}", T.FLOAT, [1, groups, "Q", size]))
        past, present = ([f"{t}.{n}" for n in own] for t in ("past", "present"))
        y = op("GroupQueryAttention", [q, k, v, *past, "last", "total", cos, sin], [f"attention{i}", *present], OWN,
               num_heads=heads, kv_num_heads=groups, do_rotary=1)
        before = linear(y, p + "self_attn.o_proj.weight")
        x, rest = norm(rest, p + "post_attention_layernorm.weight", 2 * i + 1)
        gate, up = linear(x, p + "mlp.gate_proj.weight"), linear(x, p + "mlp.up_proj.weight")
        gate = op("Mul", [gate, op("Sigmoid", [gate], [f"sigmoid{i}"])], [f"silu{i}"])
        before = linear(op("Mul", [gate, up], [f"inner{i}"]), p + "mlp.down_proj.weight")
    x, _ = norm(rest, "model.norm.weight", 2 * layers)
    at = constant("end", np.array([-1], np.int64))
    x = op("Gather", [x, at], ["final"], axis=1)
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    linear(x, "lm_head.weight")
    nodes[-1].output[0] = "logits"
    outputs.insert(0, h.make_tensor_value_info("logits", T.FLOAT, [1, 1, config["vocab_size"]]))
    graph = h.make_graph(nodes, "decoder", inputs, outputs, tensors)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 20), h.make_opsetid(OWN, 1)], ir_version=10)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder")
    p.add_argument("out")
    p.add_argument("--int8", action="store_true")
    a = p.parse_args()
    out = a.out + ".f32" if a.int8 else a.out
    onnx.save(build(a.folder), out, save_as_external_data=True, location=os.path.basename(out) + ".data")
    if a.int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(out, a.out, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
                         use_external_data_format=True, extra_options={"DefaultTensorType": T.FLOAT})
        os.remove(out)
        os.remove(out + ".data")


if __name__ == "__main__":
    main()
