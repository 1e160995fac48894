"""Writes cases of `com.microsoft` operators, with ONNX Runtime's own outputs, in the form of export.py.

    python contrib.py DIR [--seed N]

Every case is a model of one node with random inputs. A case with sizes named in `dims` is written twice:
with the sizes as numbers and, as NAME_dynamic, with symbols for them. What ONNX Runtime refuses on the
CPU is listed at the end and left out.
"""
import argparse
import concurrent.futures
import json
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from contrib_blocks import Blocks
from contrib_quantised import Quantised

MS = "com.microsoft"
RNG = np.random.default_rng(0)
CASES = []


def f32(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def case(name, op, inputs, outputs=1, dims=None, domain=MS, known=(), rtol=2e-4, atol=1e-5, **attrs):
    """`inputs` is a list of arrays and None; `dims` maps sizes to symbols; inputs whose number is in
    `known` are initializers; an output may be skipped by giving `outputs` as a list of flags."""
    wanted = [True] * outputs if isinstance(outputs, int) else outputs
    inputs = [None if v is None else np.asarray(v) for v in inputs]
    CASES.append((name, op, inputs, wanted, dims, domain, known, rtol, atol, attrs))


def model(op, inputs, wanted, dims, domain, known, attrs):
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(inputs)]
    outs = [f"y{i}" if w else "" for i, w in enumerate(wanted)]
    infos, inits = [], []
    for i, (n, v) in enumerate(zip(names, inputs)):
        if v is None:
            continue
        if i in known:
            inits.append(onnx.numpy_helper.from_array(v, n))
            continue
        shape = [(dims or {}).get(d, d) for d in v.shape]
        infos.append(helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), shape))
    # Output types come from the runtime's own inference.
    results = [onnx.ValueInfoProto(name=n) for n in outs if n]
    node = helper.make_node(op, names, outs, domain=domain, **attrs)
    graph = helper.make_graph([node], "contrib", infos, results, inits)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(data, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # Some operators quantise what each thread has on its own.
    options.intra_op_num_threads = 1
    return ort.InferenceSession(data, options, ["CPUExecutionProvider"]).run(None, feeds)


def write(root, index, refused):
    # A process of its own, since some operators end it.
    pool = concurrent.futures.ProcessPoolExecutor(1)
    for name, op, inputs, wanted, dims, domain, known, rtol, atol, attrs in CASES:
        for suffix, symbols in [("", None)] + ([("_dynamic", dims)] if dims else []):
            m = model(op, inputs, wanted, symbols, domain, known, attrs)
            feeds = {f"x{i}": v for i, v in enumerate(inputs) if v is not None and i not in known}
            try:
                have = pool.submit(run, m.SerializeToString(), feeds).result()
            except Exception as e:  # noqa: BLE001: whatever it refuses
                if isinstance(e, concurrent.futures.BrokenExecutor):
                    pool = concurrent.futures.ProcessPoolExecutor(1)
                refused.append(f"{name}{suffix}: {str(e).splitlines()[0][:160]}")
                continue
            folder = root / "cases" / (name + suffix)
            (folder / "set0").mkdir(parents=True)
            for info, v in zip(m.graph.output, have):
                shape = None if symbols else v.shape
                t = helper.np_dtype_to_tensor_dtype(v.dtype)
                info.CopyFrom(helper.make_tensor_value_info(info.name, t, shape))
            onnx.save(m, folder / "model.onnx")
            types = {"inputs": [], "outputs": []}
            for kind, values in [("in", feeds.values()), ("out", have)]:
                for i, v in enumerate(values):
                    np.save(folder / "set0" / f"{kind}_{i}.npy", v)
                    t = TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(v.dtype))
                    types[kind + "puts"].append(["tensor", t])
            index["cases"][name + suffix] = {"kind": "contrib", "rtol": rtol, "atol": atol, "sets": [types]}


def activations():
    x = f32(2, 3, 8, scale=3.0)
    dims = {2: "b", 3: "s"}
    case("gelu", "Gelu", [x], dims=dims)
    case("quick_gelu", "QuickGelu", [x], dims=dims)
    case("quick_gelu_alpha", "QuickGelu", [x], alpha=0.7)
    case("fast_gelu", "FastGelu", [x])
    case("fast_gelu_bias", "FastGelu", [x, f32(8)], dims=dims)
    case("bias_gelu", "BiasGelu", [x, f32(8)], dims=dims)
    case("bias_split_gelu", "BiasSplitGelu", [x, f32(8)])
    case("scaled_silu", "ScaledSiLU", [x], alpha=0.6)
    case("scaled_silu_operand", "ScaledSiLU", [x, np.array(1.7, np.float32)], dims=dims)
    case("linear_attention_gate", "LinearAttentionGate", [x, f32(8), f32(8), f32(2, 3, 8)], outputs=2)
    case("gated_add", "GatedAdd", [x, f32(2, 3, 8), f32(2, 3, 1)])


def products():
    for ta in (0, 1):
        for tb in (0, 1):
            a = f32(*((4, 3) if ta else (3, 4)))
            b = f32(*((5, 4) if tb else (4, 5)))
            case(f"fused_matmul_{ta}{tb}", "FusedMatMul", [a, b], transA=ta, transB=tb, alpha=0.5)
            a, b = f32(2, *a.shape), f32(2, *b.shape)
            case(f"fused_matmul_batch_{ta}{tb}", "FusedMatMul", [a, b], transA=ta, transB=tb, dims={2: "b"})
    case("fused_matmul_broadcast", "FusedMatMul", [f32(3, 2, 4, 3), f32(4, 5)], transA=1)
    case("fused_matmul_vector", "FusedMatMul", [f32(4), f32(2, 5, 4)], transB=1)
    case("fused_matmul_trans_batch_a", "FusedMatMul", [f32(3, 2, 4), f32(2, 4, 5)], transBatchA=1)
    case("fused_matmul_trans_batch_b", "FusedMatMul", [f32(2, 3, 4), f32(4, 2, 5)], transBatchB=1)
    case("fused_matmul_trans_batch_a_a", "FusedMatMul", [f32(4, 2, 3), f32(2, 4, 5)], transBatchA=1, transA=1)
    case("transpose_matmul", "TransposeMatMul", [f32(4, 3), f32(5, 4)], transA=1, transB=1, alpha=2.0)
    for act in ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", ""]:
        attrs = {"activation": act} if act else {}
        if act in ("LeakyRelu", "Elu", "HardSigmoid"):
            attrs["activation_alpha"] = 0.3
        if act == "HardSigmoid":
            attrs["activation_beta"] = 0.4
        case(f"fused_gemm_{act.lower() or 'none'}", "FusedGemm", [f32(3, 4), f32(5, 4), f32(5)], transB=1, alpha=0.8,
             beta=0.5, **attrs)
    x, w, b = f32(1, 4, 7, 6), f32(6, 2, 3, 3), f32(6)
    for act, params in [("Relu", None), ("Sigmoid", None), ("Tanh", None), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.7]),
                        ("HardSigmoid", [0.3, 0.4])]:
        attrs = {"activation_params": params} if params else {}
        case(f"fused_conv_{act.lower()}", "FusedConv", [x, w, b], group=2, pads=[1, 1, 1, 1], activation=act, **attrs)
    case("fused_conv_sum", "FusedConv", [x, w, b, f32(1, 6, 5, 4)], group=2, activation="Relu", dims={7: "h"})
    case("fused_conv_plain", "FusedConv", [x, w], group=2, strides=[2, 1])


def norms():
    x, skip, g, b = f32(2, 3, 8), f32(2, 3, 8), f32(8), f32(8)
    dims = {2: "b", 3: "s"}
    for domain, at in [("", "onnx"), (MS, "ms")]:
        case(f"simplified_layer_norm_{at}", "SimplifiedLayerNormalization", [x, g], domain=domain, dims=dims, axis=-1)
    case("simplified_layer_norm_stats", "SimplifiedLayerNormalization", [x, g], outputs=2, domain="", epsilon=1e-3)
    case("simplified_layer_norm_axis", "SimplifiedLayerNormalization", [x, f32(3, 8)], domain="", axis=1)
    case("skip_layer_norm", "SkipLayerNormalization", [x, skip, g], dims=dims)
    case("skip_layer_norm_bias", "SkipLayerNormalization", [x, skip, g, b, f32(8)], epsilon=1e-5, dims=dims)
    case("skip_layer_norm_sum", "SkipLayerNormalization", [x, skip, g, b, f32(8)], [True, False, False, True])
    case("skip_layer_norm_broadcast", "SkipLayerNormalization", [x, f32(1, 3, 8), g, b])
    case("skip_layer_norm_broadcast_2d", "SkipLayerNormalization", [x, f32(3, 8), g, b], dims=dims)
    case("skip_layer_norm_2d", "SkipLayerNormalization", [x[0], skip[0], g, b])
    case("skip_simplified", "SkipSimplifiedLayerNormalization", [x, skip, g], dims=dims)
    case("skip_simplified_sum", "SkipSimplifiedLayerNormalization", [x, skip, g, f32(8)], [True, False, False, True])
    for act in ("silu", "sigmoid"):
        case(f"gated_rms_norm_{act}", "GatedRMSNorm", [x, f32(4), f32(2, 3, 8)], activation=act, dims=dims)
    case("branchwise_rms_norm", "BranchwiseRMSNorm", [x, f32(8)], num_branches=2, dims=dims)
    case("branchwise_rms_norm_each", "BranchwiseRMSNorm", [f32(2, 3, 4), f32(4)], epsilon=1e-3)
    case("branchwise_rms_norm_plain", "BranchwiseRMSNorm", [f32(2, 3, 4)])
    case("group_norm", "GroupNorm", [f32(1, 3, 3, 4), f32(4), f32(4)], groups=2, activation=1)
    ids = RNG.integers(0, 11, (2, 3)).astype(np.int32)
    seg = RNG.integers(0, 2, (2, 3)).astype(np.int32)
    tables = [f32(11, 8), f32(6, 8), f32(2, 8)]
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    case("embed_layer_norm", "EmbedLayerNormalization", [ids, seg, *tables, g, b], outputs=2, dims=dims)
    case("embed_layer_norm_mask", "EmbedLayerNormalization", [ids, seg, *tables, g, b, mask], outputs=2, dims=dims)
    case("embed_layer_norm_no_segments", "EmbedLayerNormalization", [ids, None, *tables[:2], None, g, b], outputs=2)
    case("embed_layer_norm_sum", "EmbedLayerNormalization", [ids, seg, *tables, g, b, mask], outputs=3)
    at = RNG.integers(0, 6, (2, 3)).astype(np.int32)
    case("embed_layer_norm_positions", "EmbedLayerNormalization", [ids, seg, *tables, g, b, mask, at], outputs=2)


def attention():
    b, s, n, h = 2, 5, 3, 4
    dims = {b: "b", s: "s"}
    x, w, bias = f32(b, s, 7), f32(7, 3 * n * h, scale=0.4), f32(3 * n * h)
    raw = RNG.integers(0, 2, (b, s)).astype(np.int32)
    raw[:, 0] = 1
    for name, mask in [
        ("none", None),
        ("raw", raw),
        ("raw_3d", RNG.integers(0, 2, (b, s, s)).astype(np.int32)),
        ("empty_row", np.array([[0] * s, [1] * s], np.int32)),
        ("length", np.array([3, 5], np.int32)),
        ("span", np.array([4, 5, 1, 0], np.int32)),
    ]:
        case(f"attention_{name}", "Attention", [x, w, bias, mask], num_heads=n, dims=dims if name != "span" else None)
        case(f"attention_{name}_causal", "Attention", [x, w, bias, mask], num_heads=n, unidirectional=1)
    case("attention_scale", "Attention", [x, w, bias], num_heads=n, scale=0.7)
    case("attention_filter", "Attention", [x, w, bias, raw], num_heads=n, mask_filter_value=-3.0)
    case("attention_sizes", "Attention", [x, f32(7, 12 + 12 + 6), f32(30)], num_heads=n, qkv_hidden_sizes=[12, 12, 6])
    past = f32(2, b, n, 6, h)
    case("attention_past", "Attention", [x, w, bias, None, past], outputs=2, num_heads=n, dims=dims | {6: "p"})
    case("attention_past_causal", "Attention", [x, w, bias, None, past], outputs=2, num_heads=n, unidirectional=1,
         dims=dims | {6: "p"})
    long = RNG.integers(0, 2, (b, s + 6)).astype(np.int32)
    case("attention_past_mask", "Attention", [x, w, bias, long, past], outputs=2, num_heads=n, unidirectional=1)
    case("attention_extra", "Attention", [x, w, bias, raw, None, f32(b, n, s, s)], num_heads=n)
    case("attention_extra_broadcast", "Attention", [x, w, bias, None, None, f32(1, 1, s, s)], num_heads=n)
    case("attention_one_token", "Attention", [f32(b, 1, 7), w, bias, None, past], outputs=2, num_heads=n,
         unidirectional=1)


def multi_head():
    b, s, t, n, h, e = 2, 5, 7, 3, 4, 6
    dims = {b: "b", s: "s", t: "t"}
    q, k, v = f32(b, s, n * h), f32(b, t, n * h), f32(b, t, n * e)
    op = "MultiHeadAttention"
    case("mha", op, [q, k, v], num_heads=n, dims=dims)
    case("mha_scale", op, [q, k, v], num_heads=n, scale=0.3)
    case("mha_bias", op, [q, k, v, f32(2 * n * h + n * e)], num_heads=n, dims=dims)
    mask = RNG.integers(0, 2, (b, t)).astype(np.int32)
    case("mha_mask_2d", op, [q, k, v, None, mask], num_heads=n, dims=dims)
    case("mha_mask_3d", op, [q, k, v, None, RNG.integers(0, 2, (b, s, t)).astype(np.int32)], num_heads=n)
    case("mha_mask_1d", op, [q, k, v, None, np.array([4, 7], np.int32)], num_heads=n)
    for shape in [(b, n, s, t), (1, n, s, t), (b, 1, s, t), (1, 1, s, t)]:
        case("mha_extra_" + "x".join(map(str, shape)), op, [q, k, v, None, None, f32(*shape)], num_heads=n)
    case("mha_mask_extra", op, [q, k, v, None, mask, f32(1, n, s, t)], num_heads=n)
    k2, v2 = f32(b, s, n * h), f32(b, s, n * h)
    case("mha_causal", op, [q, k2, v2], num_heads=n, unidirectional=1, dims={b: "b", s: "s"})
    past = [f32(b, n, 6, h), f32(b, n, 6, h)]
    case("mha_past", op, [q, k2, v2, None, None, None, *past], outputs=3, num_heads=n, dims={b: "b", s: "s", 6: "p"})
    case("mha_past_causal", op, [q, k2, v2, None, None, None, *past], outputs=3, num_heads=n, unidirectional=1)
    case("mha_past_bias_mask", op, [q, k2, v2, f32(3 * n * h), RNG.integers(0, 2, (b, 11)).astype(np.int32), None, *past],
         outputs=3, num_heads=n)
    case("mha_present", op, [q, k2, v2], outputs=3, num_heads=n)
    case("mha_scores", op, [q, k2, v2], outputs=4, num_heads=n)
    case("mha_kv_4d", op, [q, f32(b, n, t, h), f32(b, n, t, h)], num_heads=n)
    case("mha_packed_qkv", op, [f32(b, s, n, 3, h)], num_heads=n)
    case("mha_packed_kv", op, [q, f32(b, t, n, 2, h)], num_heads=n)


def group_query():
    op, b, n, g, h = "GroupQueryAttention", 3, 4, 2, 16
    cos, sin = f32(32, h // 2), f32(32, h // 2)
    for name, extra in [("", {}), ("_window", {"local_window_size": 3}), ("_softcap", {"softcap": 2.0}),
                        ("_scale", {"scale": 0.2}), ("_rotary", {"do_rotary": 1}),
                        ("_interleaved", {"do_rotary": 1, "rotary_interleaved": 1}),
                        ("_rotary_window", {"do_rotary": 1, "local_window_size": 2})]:
        angles = [cos, sin] if "do_rotary" in extra else []
        heads = {"num_heads": n, "kv_num_heads": g}

        def lengths(*v):
            return np.array(v, np.int32) - 1

        # A prompt without a past, all sequences of one length.
        s = 6
        new = [f32(b, s, n * h), f32(b, s, g * h), f32(b, s, g * h)]
        case("gqa_prompt" + name, op, [*new, None, None, lengths(s, s, s), np.array(s, np.int32), *angles], outputs=3,
             known=(6,), dims={b: "b"}, **heads, **extra)
        packed = f32(b, s, (n + 2 * g) * h)
        case("gqa_packed" + name, op, [packed, None, None, None, None, lengths(s, s, s), np.array(s, np.int32), *angles],
             outputs=3, known=(6,), **heads, **extra)
        # One token more; the sequences have their own lengths; the cache grows or has room.
        for room, p in [("grown", 7), ("room", 12)]:
            past = [f32(b, g, p, h), f32(b, g, p, h)]
            step = [f32(b, 1, n * h), f32(b, 1, g * h), f32(b, 1, g * h)]
            total = np.array(8, np.int32)
            for known, how in [((6,), ""), ((), "_late")]:
                case(f"gqa_step_{room}{name}{how}", op, [*step, *past, lengths(8, 5, 7), total, *angles], outputs=3,
                     known=known, dims={b: "b", p: "p"} if not how else None, **heads, **extra)
        # Some tokens at once after a past.
        past = [f32(1, g, 4, h), f32(1, g, 4, h)]
        part = [f32(1, 3, n * h), f32(1, 3, g * h), f32(1, 3, g * h)]
        case("gqa_part" + name, op, [*part, *past, lengths(7), np.array(7, np.int32), *angles], outputs=3, known=(6,),
             **heads, **extra)
    step = [f32(b, 1, n * h), f32(b, 1, g * h), f32(b, 1, g * h), f32(b, g, 7, h), f32(b, g, 7, h)]
    late = [np.array([7, 4, 6], np.int32), np.array(8, np.int32)]
    case("gqa_smooth", op, [*step, *late], outputs=3, known=(6,), num_heads=n, kv_num_heads=g, smooth_softmax=1)
    case("gqa_sink", op, [*step, *late, None, None, None, None, f32(n)], outputs=3, known=(6,), num_heads=n, kv_num_heads=g)
    case("gqa_bias", op, [*step, np.array([7, 7, 7], np.int32), np.array(8, np.int32), None, None, None, f32(1, n, 1, 8)],
         outputs=3, known=(6,), num_heads=n, kv_num_heads=g)


def rotary():
    b, s, n, h = 2, 3, 4, 8
    dims = {b: "b", s: "s"}
    cos, sin = f32(10, h // 2), f32(10, h // 2)
    at = RNG.integers(0, 10, (b, s)).astype(np.int64)
    for i in (0, 1):
        case(f"rotary_3d_{i}", "RotaryEmbedding", [f32(b, s, n * h), at, cos, sin], interleaved=i, dims=dims)
        case(f"rotary_4d_{i}", "RotaryEmbedding", [f32(b, n, s, h), at, cos, sin], interleaved=i, dims=dims)
        case(f"rotary_offset_{i}", "RotaryEmbedding", [f32(b, s, n * h), np.array([2]), cos, sin], interleaved=i)
        case(f"rotary_partial_{i}", "RotaryEmbedding", [f32(b, s, n * h), at, cos[:, :2].copy(), sin[:, :2].copy()],
             interleaved=i, num_heads=n, rotary_embedding_dim=4)


def rest():
    x = f32(3, 5, 5)
    for k in (-1, 0, 2):
        for upper in (0, 1):
            case(f"trilu_{upper}_{k}", "Trilu", [x, np.array(k, np.int64)], upper=upper, dims={3: "b"})
    case("gather_nd", "GatherND", [f32(2, 3, 4), np.array([[0, 1], [1, 2]], np.int64)])
    case("expand_dims", "ExpandDims", [f32(2, 3), np.array([1], np.int32)], known=(1,))
    case("expand_dims_last", "ExpandDims", [f32(2, 3), np.array([-1], np.int32)], known=(1,))
    case("pad", "Pad", [f32(2, 3), np.array([0, 1, 2, 0], np.int64), np.array([0.5], np.float32)], known=(1,))
    case("pad_late", "Pad", [f32(2, 3), np.array([0, 1, 2, 0], np.int64)])
    case("pad_reflect", "Pad", [f32(4, 3), np.array([1, 1, 2, 0], np.int64)], known=(1,), mode="reflect")
    case("unique", "Unique", [np.array([2, 1, 1, 3, 4, 3, 2], np.float32)], outputs=3)
    case("range", "Range", [np.array(v, np.int64) for v in (2, 11, 3)])
    case("range_float", "Range", [np.array(v, np.float32) for v in (2, 5)], known=(0, 1))
    b, c, t, k = 2, 4, 5, 3
    for act in ("none", "silu"):
        case(f"causal_conv_{act}", "CausalConvWithState", [f32(b, c, t), f32(c, 1, k), f32(c), f32(b, c, k - 1)],
             outputs=2, activation=act)
    q, k, v = f32(2, 3, 16, scale=0.3), f32(2, 3, 8, scale=0.3), f32(2, 3, 8)
    for rule in ("linear", "gated", "delta", "gated_delta"):
        decay = -np.abs(f32(2, 3, 2)) if "gated" in rule else None
        beta = 1 / (1 + np.exp(f32(2, 3, 2))) if "delta" in rule else None
        case(f"linear_attention_{rule}", "LinearAttention", [q, k, v, f32(2, 2, 4, 4), decay, beta], outputs=2,
             q_num_heads=4, kv_num_heads=2, update_rule=rule)


def regions():
    """An operator of ONNX itself whose cases it has none of; no element is computed, so all are exact."""
    x = f32(3, 2, 9, 14)
    corners = RNG.integers(-8, 40, (7, 4)) / 2
    rois = np.concatenate([RNG.integers(0, 3, (7, 1)), corners], 1).astype(np.float32)
    dims = {3: "n", 9: "h", 14: "w", 7: "k"}
    for i, (shape, scale) in enumerate([((1, 1), 1.0), ((3, 2), 0.5), ((7, 7), 1.0), ((2, 5), 0.3)]):
        attrs = dict(pooled_shape=shape, spatial_scale=scale, domain="", rtol=0, atol=0)
        case(f"max_roi_pool_{i}", "MaxRoiPool", [x, rois], dims=dims, **attrs)
    case("max_roi_pool_none", "MaxRoiPool", [x, rois[:0]], pooled_shape=(2, 2), domain="", rtol=0, atol=0)


def main():
    global RNG
    p = argparse.ArgumentParser()
    p.add_argument("root", type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    RNG = np.random.default_rng(a.seed)
    shutil.rmtree(a.root, ignore_errors=True)
    for group in [activations, products, norms, attention, multi_head, group_query, rotary, rest,
                  *Quantised(case, RNG).groups(), *Blocks(case, RNG).groups(),
                  regions]:
        group()
    index, refused = {"onnx": f"runtime {ort.__version__}", "cases": {}}, []
    write(a.root, index, refused)
    (a.root / "index.json").write_text(json.dumps(index, indent=0))
    for r in refused:
        print("left out:", r)
    print(f"onnxruntime {ort.__version__}: {len(index['cases'])} cases")


main()
