"""Models of Keras by its own `Model.export(format="onnx")`, for zoo.py.

Needs keras and one of its backends with that backend's exporter: tensorflow with tf2onnx, torch, or jax
with jax2onnx. KERAS_BACKEND chooses; the others take another run, for a process has one.
"""
import os

import numpy as np
import onnx

# None: the default of the backend.
OPSETS = [None, 18]


def models(keras):
    """name -> (model, inputs as arrays)."""
    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(0)
    r = np.random.default_rng(0)

    def f(*shape):
        return r.standard_normal(shape).astype(np.float32)

    def net(shape, *stack, dtype="float32"):
        return keras.Sequential([keras.Input(shape, dtype=dtype), *stack])

    def trained(model):
        """Statistics of normalisations that are not those of a new layer."""
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                n = layer.moving_mean.shape
                layer.moving_mean.assign(r.normal(0, 0.5, n))
                layer.moving_variance.assign(r.uniform(0.3, 2, n))
                layer.gamma.assign(r.normal(1, 0.2, n))
        return model

    def dense():
        names = ["relu", "silu", "elu", "selu", "softplus", "tanh", "sigmoid", "hard_sigmoid", "mish", "softsign",
                 "leaky_relu", "relu6", "exponential", "hard_silu", "log_softmax", "squareplus", "softmax"]
        x = keras.Input((7,))
        y = layers.Dense(6)(x)
        return keras.Model(x, layers.Concatenate()([layers.Activation(a)(y) for a in names] + [gelu(y)]))

    def gelu(x):
        return keras.activations.gelu(x, approximate=True)

    def residual():
        x = keras.Input((16, 16, 3))
        a = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        a = layers.ReLU(6.0)(layers.BatchNormalization()(a))
        b = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(a)
        b = layers.Conv2D(8, 1, activation="swish")(b)
        c = layers.MaxPooling2D(2)(a)
        s = layers.GlobalAveragePooling2D(keepdims=True)(b)
        s = layers.Conv2D(8, 1, activation="hard_sigmoid")(s)
        y = layers.Concatenate()([layers.Add()([layers.Multiply()([b, s]), c]), c])
        y = layers.SeparableConv2D(6, 3, padding="same", activation="relu")(y)
        return trained(keras.Model(x, layers.Dense(4, activation="softmax")(layers.Flatten()(y))))

    def images():
        x = keras.Input((9, 7, 4))
        y = layers.Conv2D(6, 3, dilation_rate=2, padding="same")(x)
        z = layers.Conv2DTranspose(3, 4, strides=3, padding="valid")(y)
        z = layers.Cropping2D(((1, 2), (0, 3)))(layers.ZeroPadding2D(((0, 1), (2, 0)))(z))
        n = layers.UpSampling2D((2, 3))(layers.AveragePooling2D(3, strides=2, padding="same")(y))
        return keras.Model(x, [z, n, layers.GlobalMaxPooling2D()(y)])

    def resized():
        x = keras.Input((9, 7, 4), batch_size=2)
        return keras.Model(x, [layers.UpSampling2D(2, interpolation="bilinear")(x), layers.Resizing(5, 11)(x),
                               layers.Resizing(4, 14, interpolation="nearest")(x)])

    def volumes():
        x = keras.Input((4, 6, 6, 2))
        y = layers.Conv3D(4, 3, padding="same", activation="relu")(x)
        y = layers.MaxPooling3D((1, 2, 2))(y)
        return keras.Model(x, [layers.Conv3DTranspose(2, 2, strides=2)(y), layers.GlobalAveragePooling3D()(y)])

    def norms():
        x = keras.Input((6, 6, 8))
        return trained(keras.Model(x, [
            layers.BatchNormalization()(x), layers.LayerNormalization()(x), layers.GroupNormalization(4)(x), layers.UnitNormalization()(x), layers.RMSNormalization()(x),
            layers.SpectralNormalization(layers.Conv2D(3, 2))(x)]))

    def forward(layer):
        x = keras.Input((6, 5))
        return keras.Model(x, layer(3, return_state=True, return_sequences=True)(layer(4, return_sequences=True)(x)))

    def rnn(layer, **kind):
        x = keras.Input((6, 5))
        y = layers.Bidirectional(layer(4, return_sequences=True, **kind))(x)
        last = layer(3, return_state=True, go_backwards=True, **kind)(y)
        return keras.Model(x, [y, *last, layers.TimeDistributed(layers.Dense(2))(y)])

    def stateful_start():
        x, h, c = keras.Input((5, 3)), keras.Input((4,)), keras.Input((4,))
        return keras.Model([x, h, c], layers.LSTM(4, return_state=True, return_sequences=True)(x, initial_state=[h, c]))

    def masked():
        ids = keras.Input((7,), dtype="int32")
        y = layers.Embedding(9, 6, mask_zero=True)(ids)
        y = layers.Bidirectional(layers.GRU(5))(y)
        return keras.Model(ids, layers.Dense(2)(y))

    def encoder():
        ids, kinds = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
        x = layers.Add()([layers.Embedding(20, 16)(ids), layers.Embedding(3, 16)(kinds)])
        for causal in (False, True):
            a = layers.MultiHeadAttention(4, 4)(x, x, use_causal_mask=causal)
            x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, a]))
            m = layers.Dense(16)(layers.Dense(32, activation=gelu)(x))
            x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, m]))
        return keras.Model([ids, kinds], [x, layers.Dense(5)(layers.GlobalAveragePooling1D()(x))])

    def attentions():
        q, v = keras.Input((5, 8)), keras.Input((7, 8))
        g = layers.GroupQueryAttention(4, 4, 2)(q, v)
        return keras.Model([q, v], [layers.Attention(use_scale=True)([q, v]), layers.AdditiveAttention()([q, v]), g])

    def two_towers():
        a, b, n = keras.Input((12,), name="a"), keras.Input((3,), dtype="int32", name="b"), keras.Input((1,), name="n")
        shared = layers.Dense(4, activation="relu")
        e = layers.Flatten()(layers.Embedding(10, 4)(b))
        x = layers.Dot(1)([shared(a), shared(e)])
        m = [layers.Maximum, layers.Minimum, layers.Average, layers.Subtract]
        y = layers.Concatenate()([k()([shared(a), shared(e)]) for k in m])
        return keras.Model([a, b, n], {"score": layers.Dense(1, activation="sigmoid")(x + n), "mix": y})

    def shapes():
        x = keras.Input((4, 6))
        y = layers.Reshape((2, -1, 3))(layers.Permute((2, 1))(x))
        return keras.Model(x, [y, layers.RepeatVector(3)(layers.Flatten()(x)), layers.ZeroPadding1D(2)(x),
                               layers.Cropping1D(1)(x), layers.UpSampling1D(2)(x), ops.flip(x, 1), ops.roll(x, 2, 1),
                               ops.split(x, 3, -1)[1], ops.stack([x, -x], 1), ops.tile(x, [1, 2, 1]), x[:, ::2, -3:],
                               ops.pad(x, [[0, 0], [1, 1], [2, 0]]), ops.squeeze(ops.expand_dims(x, 1), 1)])

    def maths():
        x, y = keras.Input((3, 5)), keras.Input((3, 5))
        return keras.Model([x, y], [
            ops.einsum("bij,bkj->bik", x, y), ops.logsumexp(x, -1), ops.where(x > y, x, y), ops.cumsum(x, 1),
            ops.clip(x, -0.5, 0.5), ops.std(x, -1), ops.matmul(x, ops.transpose(y, (0, 2, 1))), ops.prod(x, 1),
            ops.erf(x) + ops.sign(y) * ops.floor(x * 3.0), ops.power(ops.abs(x) + 0.1, y), ops.mod(x, 0.7),
            ops.rsqrt(ops.abs(y) + 1.0), ops.isnan(x), ops.round(x * 2.0), ops.arctan(y)])

    def search():
        x = keras.Input((3, 5))
        top, at = ops.top_k(x, 2)
        return keras.Model(x, [top, at, ops.argmax(x, -1), ops.argmin(x, 1), ops.one_hot(at, 5),
                               ops.take(x, [3, 0, 3], axis=2), ops.sort(x, -1)])

    def rare():
        x, y = keras.Input((3, 5)), keras.Input((3, 5))
        return keras.Model([x, y], [
            layers.RMSNormalization()(x), ops.sinh(x), ops.log1p(ops.abs(x)), ops.expm1(x), ops.arctan2(x, y), ops.tril(x),
            ops.norm(x, axis=-1), ops.take_along_axis(x, ops.argsort(y), axis=2)])

    def adapters():
        x, c = keras.Input((6,)), keras.Input((3,), dtype="int32")
        n = layers.Normalization(mean=[0.1] * 6, variance=[2.0] * 6)(x)
        return keras.Model([x, c], [n, layers.CategoryEncoding(4, output_mode="multi_hot")(c), layers.Rescaling(0.5, 1.0)(x)])

    def buckets():
        x = keras.Input((6,))
        return keras.Model(x, layers.Discretization([-1.0, 0.0, 0.7])(x))

    ids = r.integers(1, 9, (2, 7)).astype(np.int32)
    ids[:, -2:] = 0
    tokens = r.integers(0, 20, (2, 6)).astype(np.int32)
    cells = {"lstm": layers.LSTM, "gru": layers.GRU, "simple_rnn": layers.SimpleRNN}
    return {
        "dense": (dense, [f(2, 7)]),
        "residual": (residual, [f(2, 16, 16, 3)]),
        "images": (images, [f(2, 9, 7, 4)]),
        "grouped": (lambda: net((6, 6, 4), layers.Conv2D(6, 3, groups=2), layers.LayerNormalization(axis=[1, 2])), [f(2, 6, 6, 4)]),
        "resized": (resized, [f(2, 9, 7, 4)]),
        "volumes": (volumes, [f(2, 4, 6, 6, 2)]),
        "conv1d": (lambda: net((12, 3), layers.Conv1D(6, 3, padding="causal", dilation_rate=2), layers.PReLU(),
                               layers.SeparableConv1D(4, 3), layers.DepthwiseConv1D(2), layers.AveragePooling1D(2),
                               layers.Conv1DTranspose(3, 3, strides=2)), [f(2, 12, 3)]),
        "norms": (norms, [f(2, 6, 6, 8)]),
        **{f"{n}_forward": (lambda layer=layer: forward(layer), [f(2, 6, 5)]) for n, layer in cells.items()},
        **{f"{n}_both": (lambda layer=layer: rnn(layer), [f(2, 6, 5)]) for n, layer in cells.items()},
        "gru_before": (lambda: rnn(layers.GRU, reset_after=False), [f(2, 6, 5)]),
        "conv_lstm": (lambda: net((4, 6, 6, 2), layers.ConvLSTM2D(3, 3, padding="same")), [f(2, 4, 6, 6, 2)]),
        "state": (stateful_start, [f(2, 5, 3), f(2, 4), f(2, 4)]),
        "masked": (masked, [ids]),
        "encoder": (encoder, [tokens, tokens % 3]),
        "attentions": (attentions, [f(2, 5, 8), f(2, 7, 8)]),
        "two_towers": (two_towers, [f(2, 12), r.integers(0, 10, (2, 3)).astype(np.int32), f(2, 1)]),
        "shapes": (shapes, [f(2, 4, 6)]),
        "maths": (maths, [f(2, 3, 5), f(2, 3, 5)]),
        "search": (search, [f(2, 3, 5)]),
        "rare": (rare, [f(2, 3, 5), f(2, 3, 5)]),
        "adapters": (adapters, [f(2, 6), r.integers(0, 4, (2, 3)).astype(np.int32)]),
        "buckets": (buckets, [f(2, 6)]),
        "mobilenet": (lambda: trained(keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None, classes=7)), [f(1, 64, 64, 3)]),
    }


def add(zoo):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
    except ImportError as e:
        print(f"not installed: {e}")
        return
    backend = keras.backend.backend()
    for name, (build, inputs) in models(keras).items():
        if not any(zoo.only in f"keras_{backend}_{opset or 'default'}_{name}" for opset in OPSETS):
            continue
        for opset in OPSETS:
            def make(path, opset=opset, build=build, inputs=inputs):
                model = build()
                want = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
                want = [keras.ops.convert_to_numpy(t) for t in keras.tree.flatten(want)]
                model.export(str(path), format="onnx", verbose=False, opset_version=opset)
                # A few operators are written as they are called in the framework, which is no model.
                onnx.checker.check_model(path, full_check=True)
                written = [i.name for i in onnx.load(path).graph.input]
                named = {t.name: x for t, x in zip(model.inputs, inputs)}
                return (named if set(written) == set(named) else dict(zip(written, inputs, strict=True))), want
            zoo.add(f"keras_{backend}_{opset or 'default'}_{name}", make)
