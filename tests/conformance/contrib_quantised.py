"""Cases of the operators of `com.microsoft` that quantisers write, for contrib.py.

Results of 8 bits are compared exactly, except where a case says why not with an `atol` of 1.
"""

import ml_dtypes
import numpy as np

F = np.float32
TYPES = {"u8": np.uint8, "i8": np.int8}


class Cases:
    """`case` writes a case; `rng` makes its inputs."""

    def __init__(self, case, rng):
        self.case, self.rng = case, rng

    def ints(self, t, *shape):
        info = np.iinfo(t)
        return self.rng.integers(info.min, info.max + 1, shape).astype(t)

    def f32(self, *shape, scale=1.0):
        return (self.rng.standard_normal(shape) * scale).astype(F)

    def scales(self, n, scale=0.02):
        return (self.rng.uniform(0.3, 1.7, n) * scale).astype(F)


class Quantised(Cases):
    """Tensors with one scale, or one for each channel."""

    def groups(self):
        return [
            self.elementwise,
            self.pools,
            self.convolutions,
            self.products,
            self.linear,
            self.attention,
            self.embed,
            self.lstm,
        ]

    def elementwise(self):
        for name, t in TYPES.items():
            z = [t(v) for v in ((3, 117, 128) if name == "u8" else (-5, 17, -128))]
            s = [F(v) for v in (0.0137, 0.0291, 0.0313)]
            a, b = self.ints(t, 2, 3, 40), self.ints(t, 2, 3, 40)
            dims = {2: "b", 40: "s"}
            known = (1, 2, 4, 5, 6, 7)
            for op, so in [("QLinearAdd", s[2]), ("QLinearMul", F(0.0171))]:
                p = op[1:].lower()
                self.case(f"{p}_{name}", op, [a, s[0], z[0], b, s[1], z[1], so, z[2]], known=known, dims=dims)
                self.case(f"{p}_{name}_late", op, [a, s[0], z[0], b, s[1], z[1], so, z[2]])
                self.case(f"{p}_{name}_no_zeros", op, [a, s[0], None, b, s[1], None, so], known=known)
                self.case(f"{p}_{name}_one_zero", op, [a, s[0], None, b, s[1], z[1], so, None], known=known)
                self.case(f"{p}_{name}_scalar", op, [a, s[0], z[0], t(77), s[1], z[1], so, z[2]], known=known)
                self.case(f"{p}_{name}_scalar_first", op, [t(9), s[0], z[0], b, s[1], z[1], so, z[2]], known=known)
                self.case(f"{p}_{name}_row", op, [a, s[0], z[0], b[0, 0], s[1], z[1], so, z[2]], known=known, dims=dims)
                self.case(
                    f"{p}_{name}_outer", op, [a[:, :, :1], s[0], z[0], b[:, :1], s[1], z[1], so, z[2]], known=known
                )
                self.case(f"{p}_{name}_rank_4", op, [a[None], s[0], z[0], b[None], s[1], z[1], so, z[2]], known=known)
                # Halves are exact here: they go to the even neighbour, with the zero point counted.
                half = [F(0.5), F(0.25), F(1.0)] if op == "QLinearAdd" else [F(0.5), F(0.5), F(2.0)]
                self.case(f"{p}_{name}_ties", op, [a, half[0], z[0], b, half[1], z[1], half[2], t(z[0])], known=known)
            known = (1, 2, 3, 4)
            for i, (sx, zx, sy, zy) in enumerate(
                [(0.047, z[0], 0.0039, z[2]), (0.1, None, 0.008, None), (0.02, z[1], 1 / 256, z[0])]
            ):
                self.case(
                    f"linear_sigmoid_{name}_{i}", "QLinearSigmoid", [a, F(sx), zx, F(sy), zy], known=known, dims=dims
                )
                self.case(
                    f"linear_leaky_relu_{name}_{i}",
                    "QLinearLeakyRelu",
                    [a, F(sx), zx, F(sy * 10), zy],
                    known=known,
                    alpha=[0.01, 0.3, 1.7][i],
                    dims=dims,
                )
            self.case(f"linear_sigmoid_{name}_late", "QLinearSigmoid", [a, F(0.047), z[0], F(0.0039), z[2]])
            x = self.ints(t, 3, 4, 7)
            zero = t(0) if name == "u8" else t(-128)
            for opset in (12, 13):
                for axis in (0, 1, -1):
                    self.case(
                        f"linear_softmax_{name}_{opset}_{axis}",
                        "QLinearSoftmax",
                        [x, F(0.031), z[1], F(1 / 255 if name == "i8" else 1 / 256), zero],
                        known=known,
                        opset=opset,
                        axis=axis,
                        dims={3: "b", 7: "s"},
                    )
            self.case(f"linear_softmax_{name}_late", "QLinearSoftmax", [x, F(0.1), z[1], F(0.0041), zero], opset=13)
            self.case(
                f"linear_softmax_{name}_steep",
                "QLinearSoftmax",
                [x, F(2.5), None, F(0.0041), zero],
                opset=13,
                known=known,
            )
            same = self.ints(t, 2, 5)
            same[0] = 9
            self.case(
                f"linear_softmax_{name}_equal",
                "QLinearSoftmax",
                [same, F(0.1), None, F(1 / 255), zero],
                opset=13,
                known=known,
            )
            y = [np.array(v) for v in (F(0.02), z[1])]
            parts = [
                self.ints(t, 2, 3),
                F(0.031),
                z[0],
                self.ints(t, 2, 5),
                F(0.02),
                z[1],
                self.ints(t, 2, 1),
                F(0.0071),
                z[2],
            ]
            for known in ((0, 1, 3, 4, 6, 7, 9, 10), ()):
                self.case(
                    f"linear_concat_{name}_{len(known)}",
                    "QLinearConcat",
                    [*y, *parts],
                    known=known,
                    axis=1,
                    dims={2: "b"},
                )
            self.case(
                f"linear_concat_{name}_last", "QLinearConcat", [*y, *parts], known=(0, 1, 3, 4, 6, 7, 9, 10), axis=-1
            )
            self.case(f"linear_concat_{name}_one", "QLinearConcat", [*y, *parts[:3]], known=(0, 1, 3, 4), axis=0)
            c = self.rng.integers(0, 2, (2, 3, 40)).astype(bool)
            for i, (sx, sy, so) in enumerate([(0.02, 0.03, 0.04), (0.02, 0.03, 0.02), (0.05, 0.01, 0.0137)]):
                self.case(
                    f"linear_where_{name}_{i}",
                    "QLinearWhere",
                    [c, a, F(sx), z[0], b, F(sy), z[1], F(so), z[0]],
                    known=(2, 3, 5, 6, 7, 8),
                    dims=dims,
                )
            self.case(
                f"linear_where_{name}_broadcast",
                "QLinearWhere",
                [c[:, :1], a[0, 0], F(0.02), z[0], b[:1, :, :1], F(0.03), z[1], F(0.04), z[2]],
                known=(2, 3, 5, 6, 7, 8),
            )

    def pools(self):
        for name, t in TYPES.items():
            zx, zy = (t(3), t(120)) if name == "u8" else (t(-7), t(11))
            p = [F(0.031), zx, F(0.0173), zy]
            known = (1, 2, 3, 4)
            x = self.ints(t, 2, 3, 7, 6)
            for i in (0, 1):
                self.case(
                    f"linear_global_pool_{name}_{i}",
                    "QLinearGlobalAveragePool",
                    [x, *p],
                    channels_last=i,
                    known=known,
                    dims={2: "b", 7: "h"},
                )
            self.case(f"linear_global_pool_{name}_1d", "QLinearGlobalAveragePool", [x[0], *p], known=known)
            self.case(f"linear_global_pool_{name}_late", "QLinearGlobalAveragePool", [x, *p])
            self.case(
                f"linear_global_pool_{name}_halves",
                "QLinearGlobalAveragePool",
                [self.ints(t, 8, 8, 2, 2), F(1), zx, F(1), zy],
                known=known,
            )
            for i, attrs in enumerate(
                [
                    {},
                    {"strides": [2, 2]},
                    {"pads": [1, 0, 1, 1]},
                    {"pads": [1, 1, 0, 1], "count_include_pad": 1},
                    {"strides": [2, 3], "ceil_mode": 1},
                    {"auto_pad": "SAME_UPPER", "strides": [2, 1]},
                    {"auto_pad": "SAME_LOWER"},
                ]
            ):
                self.case(
                    f"linear_average_pool_{name}_{i}",
                    "QLinearAveragePool",
                    [x, *p],
                    kernel_shape=[3, 2],
                    known=known,
                    dims={2: "b"},
                    **attrs,
                )
                self.case(
                    f"linear_average_pool_{name}_{i}_last",
                    "QLinearAveragePool",
                    [x, *p],
                    kernel_shape=[3, 2],
                    known=known,
                    channels_last=1,
                    dims={2: "b"},
                    **attrs,
                )
            self.case(
                f"linear_average_pool_{name}_no_zeros",
                "QLinearAveragePool",
                [x, p[0], None, p[2], None],
                kernel_shape=[2, 2],
                known=known,
            )
            self.case(f"linear_average_pool_{name}_1d", "QLinearAveragePool", [x[0], *p], kernel_shape=[2], known=known)
            self.case(
                f"linear_average_pool_{name}_3d",
                "QLinearAveragePool",
                [x[None], *p],
                kernel_shape=[2, 3, 2],
                known=known,
            )
            self.case(
                f"linear_average_pool_{name}_whole", "QLinearAveragePool", [x, *p], kernel_shape=[7, 6], known=known
            )
            self.case(
                f"linear_average_pool_{name}_ties",
                "QLinearAveragePool",
                [x, F(1), zx, F(1), zy],
                kernel_shape=[2, 2],
                known=known,
            )
            self.case(f"linear_average_pool_{name}_late", "QLinearAveragePool", [x, *p], kernel_shape=[2, 2])
            self.case(
                f"nhwc_max_pool_{name}",
                "NhwcMaxPool",
                [x],
                kernel_shape=[2, 3],
                strides=[2, 1],
                pads=[1, 1, 0, 1],
                dims={2: "b"},
            )
            self.case(
                f"nhwc_max_pool_{name}_ceil", "NhwcMaxPool", [x], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
            )
            for keep in (0, 1):
                self.case(
                    f"linear_reduce_mean_{name}_{keep}",
                    "QLinearReduceMean",
                    [x, *p],
                    axes=[1, -1],
                    keepdims=keep,
                    known=known,
                )

    def convolutions(self):
        for xn, tx in TYPES.items():
            for wn, tw in TYPES.items():
                x, w = self.ints(tx, 2, 4, 7, 6), self.ints(tw, 6, 4, 3, 3)
                zx, zy = (tx(3), tx(120)) if xn == "u8" else (tx(-7), tx(11))
                zw = tw(0) if wn == "i8" else tw(131)
                bias = self.rng.integers(-3000, 3000, 6).astype(np.int32)
                known = tuple(range(1, 9))
                name = f"linear_conv_{xn}{wn}"
                one = [F(0.011), zx, w, F(0.017), zw, F(0.23), zy]
                each = [F(0.011), zx, w, self.scales(6), np.full(6, zw), F(0.23), zy]
                for last in (0, 1):
                    xs = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
                    for kind, p in [("one", one), ("each", each)]:
                        self.case(
                            f"{name}_{kind}_{last}",
                            "QLinearConv",
                            [xs, *p, bias],
                            known=known,
                            channels_last=last,
                            dims={2: "b"},
                            pads=[1, 1, 1, 1],
                            strides=[2, 1],
                        )
                    self.case(f"{name}_plain_{last}", "QLinearConv", [xs, *one], known=known, channels_last=last)
                    p = list(each)
                    p[2] = np.ascontiguousarray(w[:, :2])
                    self.case(
                        f"{name}_group_{last}",
                        "QLinearConv",
                        [xs, *p, bias],
                        known=known,
                        channels_last=last,
                        group=2,
                        dilations=[2, 1],
                        auto_pad="SAME_UPPER",
                    )
        x = self.ints(np.uint8, 2, 4, 9)
        self.case(
            "linear_conv_1d",
            "QLinearConv",
            [x, F(0.011), np.uint8(3), self.ints(np.int8, 5, 4, 3), F(0.02), np.int8(0), F(0.2), np.uint8(7)],
            known=tuple(range(1, 8)),
            dims={9: "l"},
        )

    def products(self):
        for an, ta in TYPES.items():
            for bn, tb in TYPES.items():
                if (an, bn) == ("i8", "u8"):
                    continue
                name = f"{an}{bn}"
                za, zb = ta(5), tb(0) if bn == "i8" else tb(126)
                b = self.ints(tb, 8, 5)
                sb, zbs = self.scales(5), np.full(5, zb)
                bias = self.f32(5)
                for kind, p in [
                    ("one", (F(0.02), zb)),
                    ("each", (sb, zbs)),
                    ("no_zero", (F(0.02), None)),
                    ("each_no_zero", (sb, None)),
                ]:
                    for shape in [(8,), (3, 8), (2, 3, 8)]:
                        dims = {2: "b", 3: "s"} if len(shape) == 3 else None
                        self.case(
                            f"matmul_integer_to_float_{name}_{kind}_{len(shape)}",
                            "MatMulIntegerToFloat",
                            [self.ints(ta, *shape), b, F(0.013), p[0], za, p[1], bias],
                            known=(1, 3, 5, 6),
                            dims=dims,
                        )
                    if an == "u8":
                        for shape in [(3, 8), (2, 3, 8)]:
                            dims = {2: "b", 3: "s"} if len(shape) == 3 else None
                            self.case(
                                f"dynamic_quantize_matmul_{bn}_{kind}_{len(shape)}",
                                "DynamicQuantizeMatMul",
                                [self.f32(*shape), b, *p, bias],
                                known=(1, 2, 3, 4),
                                dims=dims,
                            )
                self.case(
                    f"matmul_integer_to_float_{name}_plain",
                    "MatMulIntegerToFloat",
                    [self.ints(ta, 3, 8), b, F(0.013), F(0.02)],
                )
                self.case(
                    f"matmul_integer_to_float_{name}_batch",
                    "MatMulIntegerToFloat",
                    [self.ints(ta, 2, 3, 8), self.ints(tb, 2, 8, 5), F(0.013), F(0.02), za, zb],
                )
                zy = ta(100) if an == "u8" else ta(-9)
                for kind, p in [("one", (F(0.02), zb)), ("each", (sb, zbs))]:
                    for t in range(4):
                        a = self.ints(ta, *((8, 3) if t & 1 else (3, 8)))
                        bb = np.ascontiguousarray(b.T) if t & 2 else b
                        c = [self.rng.integers(-900, 900, s).astype(np.int32) for s in [(5,), (3, 1), (3, 5), (1, 5)]][
                            t
                        ]
                        self.case(
                            f"qgemm_{name}_{kind}_{t}",
                            "QGemm",
                            [a, F(0.013), za, bb, *p, c, F(0.37), zy],
                            known=(1, 2, 3, 4, 5, 6, 7, 8),
                            transA=t & 1,
                            transB=t >> 1,
                            dims={3: "m"} if t == 2 else None,
                        )
                        self.case(
                            f"qgemm_{name}_{kind}_{t}_float",
                            "QGemm",
                            [a, F(0.013), za, bb, *p, c],
                            transA=t & 1,
                            transB=t >> 1,
                            alpha=0.7,
                        )
                    self.case(
                        f"qgemm_{name}_{kind}_no_c",
                        "QGemm",
                        [self.ints(ta, 3, 8), F(0.013), za, b, *p, None, F(0.37), zy],
                        alpha=1.3,
                        known=(1, 2, 3, 4, 5, 7, 8),
                    )
        self.case(
            "dynamic_quantize_matmul_zeros", "DynamicQuantizeMatMul", [np.zeros((2, 8), F), b, F(0.02)], known=(1, 2)
        )
        self.case(
            "dynamic_quantize_matmul_positive",
            "DynamicQuantizeMatMul",
            [np.abs(self.f32(2, 8)), b, F(0.02)],
            known=(1, 2),
        )

    def linear(self):
        x = self.f32(2, 5, 4, scale=20.0)
        for t in (np.uint8, np.int8, np.uint16, np.int16):
            name = np.dtype(t).name
            s, z = F(0.19), t(21)
            self.case(f"quantize_linear_{name}", "QuantizeLinear", [x, s, z], dims={2: "b"})
            self.case(
                f"quantize_linear_{name}_axis",
                "QuantizeLinear",
                [x, self.scales(5, 0.2), self.ints(t, 5)],
                axis=1,
                known=(1, 2),
            )
            q = self.ints(t, 2, 5, 4)
            self.case(f"dequantize_linear_{name}", "DequantizeLinear", [q, s, z], dims={2: "b"})
            self.case(
                f"dequantize_linear_{name}_axis",
                "DequantizeLinear",
                [q, self.scales(4), self.ints(t, 4)],
                axis=-1,
                known=(1, 2),
            )
            self.case(f"dequantize_linear_{name}_no_zero", "DequantizeLinear", [q, s], dims={2: "b"})
        self.case("quantize_linear_no_zero", "QuantizeLinear", [x, F(0.19)])
        self.case(
            "dequantize_linear_int32",
            "DequantizeLinear",
            [self.rng.integers(-9999, 9999, (3, 4)).astype(np.int32), F(0.01)],
        )
        for t in (ml_dtypes.int4, ml_dtypes.uint4):
            name = np.dtype(t).name
            q, z = self.rng.integers(0, 8, (5, 7)).astype(t), np.array(3).astype(t)
            self.case(f"dequantize_linear_{name}", "DequantizeLinear", [q, F(0.3), z], known=(0, 1, 2))
            self.case(
                f"dequantize_linear_{name}_axis",
                "DequantizeLinear",
                [q, self.scales(7), np.zeros(7, t)],
                axis=1,
                known=(0, 1, 2),
            )

    def attention(self):
        b, s, n, h, d = 2, 5, 3, 4, 7
        size = n * h
        x, bias = self.ints(np.uint8, b, s, d), self.f32(3 * size)
        raw = self.rng.integers(0, 2, (b, s)).astype(np.int32)
        raw[:, 0] = 1
        for name, t in TYPES.items():
            w, z = self.ints(t, d, 3 * size), t(0) if name == "i8" else t(129)
            known = (1, 2, 3, 4, 6, 7)
            each = (self.scales(3 * size, 0.003), np.full(3 * size, z))
            for kind, (ws, wz) in [("one", (F(0.003), z)), ("each", each), ("no_zero", (F(0.003), None))]:
                for mask_name, mask in [("none", None), ("raw", raw), ("length", np.array([3, 5], np.int32))]:
                    self.case(
                        f"qattention_{name}_{kind}_{mask_name}",
                        "QAttention",
                        [x, w, bias, F(0.02), ws, mask, np.uint8(121), wz],
                        num_heads=n,
                        known=known,
                        dims={b: "b", s: "s"},
                    )
            past = self.f32(2, b, n, 6, h)
            self.case(
                f"qattention_{name}_past",
                "QAttention",
                [x, w, bias, F(0.02), F(0.003), None, np.uint8(121), z, past],
                outputs=2,
                num_heads=n,
                unidirectional=1,
                known=known,
                dims={6: "p"},
            )
            self.case(
                f"qattention_{name}_causal",
                "QAttention",
                [x, w, bias, F(0.02), F(0.003)],
                num_heads=n,
                unidirectional=1,
                known=(1, 2, 3, 4),
            )

    def embed(self):
        ids = self.rng.integers(0, 11, (2, 3)).astype(np.int32)
        seg = self.rng.integers(0, 2, (2, 3)).astype(np.int32)
        mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
        for name, t in TYPES.items():
            tables = [self.ints(t, *s) for s in [(11, 8), (6, 8), (2, 8), (8,), (8,)]]
            scales = [F(v) for v in self.scales(5)]
            zeros = [t(v) for v in (3, 9, 0, 100, 7)]
            for m in (None, mask):
                inputs = [ids, seg, *tables, m, *scales, *zeros]
                self.case(
                    f"qembed_{name}_{m is not None}",
                    "QEmbedLayerNormalization",
                    inputs,
                    outputs=2,
                    dims={2: "b", 3: "s"},
                    known=(*range(2, 7), *range(8, 18)),
                )
            inputs = [ids, None, *tables, None, *scales, *zeros]
            for i in (4, 10, 15):
                inputs[i] = None
            self.case(
                f"qembed_{name}_no_segments",
                "QEmbedLayerNormalization",
                inputs,
                outputs=2,
                epsilon=1e-5,
                known=(*range(2, 7), *range(8, 18)),
            )

    def lstm(self):
        # A state that differs in its last bit may be quantised to the next number: one part in 255 of
        # the greatest state times a weight.
        loose = {"rtol": 1e-3, "atol": 4e-3}
        s, b, i, h = 5, 3, 6, 4
        for name, t in TYPES.items():
            for d, direction in [(1, "forward"), (1, "reverse"), (2, "bidirectional")]:
                w, r = self.ints(t, d, i, 4 * h), self.ints(t, d, h, 4 * h)
                z = t(0) if name == "i8" else t(128)
                one = [self.scales(d, 0.006), np.full(d, z), self.scales(d, 0.006), np.full(d, z)]
                each = [self.scales((d, 4 * h), 0.006), np.full((d, 4 * h), z)] * 2
                bias, states = self.f32(d, 8 * h), [self.f32(d, b, h), self.f32(d, b, h)]
                known = (1, 2, 3, 7, 8, 9, 10, 11)
                x = self.f32(s, b, i)
                for kind, q in [("one", one), ("each", each)]:
                    self.case(
                        f"dynamic_lstm_{name}_{direction}_{kind}",
                        "DynamicQuantizeLSTM",
                        [x, w, r, bias, None, *states, None, *q],
                        outputs=3,
                        direction=direction,
                        hidden_size=h,
                        known=known,
                        dims={s: "s", b: "b"},
                        **loose,
                    )
                self.case(
                    f"dynamic_lstm_{name}_{direction}_plain",
                    "DynamicQuantizeLSTM",
                    [x, w, r, None, None, None, None, None, *one],
                    outputs=3,
                    direction=direction,
                    hidden_size=h,
                    known=known,
                    **loose,
                )
                self.case(
                    f"dynamic_lstm_{name}_{direction}_peephole",
                    "DynamicQuantizeLSTM",
                    [x, w, r, bias, None, *states, self.f32(d, 3 * h), *one],
                    outputs=3,
                    direction=direction,
                    hidden_size=h,
                    clip=0.8,
                    known=known,
                    **loose,
                )
                self.case(
                    f"dynamic_lstm_{name}_{direction}_coupled",
                    "DynamicQuantizeLSTM",
                    [x, w, r, bias, None, None, None, None, *one],
                    outputs=[False, True, True],
                    direction=direction,
                    hidden_size=h,
                    input_forget=1,
                    activations=["Sigmoid", "Tanh", "Relu"] * d,
                    known=known,
                    **loose,
                )
