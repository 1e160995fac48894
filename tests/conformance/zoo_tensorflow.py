"""Models of TensorFlow and Keras by tf2onnx, for zoo.py. Needs tensorflow and tf2onnx."""
import os

import numpy as np

OPSETS = [13, 18]


def models(tf):
    """name -> (function of tensors, inputs as arrays, axes that are free in each)."""
    keras, layers = tf.keras, tf.keras.layers
    keras.utils.set_random_seed(0)
    r = np.random.default_rng(0)

    def f(*shape):
        return r.standard_normal(shape).astype(np.float32)

    def net(*stack):
        model = keras.Sequential(list(stack))
        return lambda x: model(x, training=False)

    class Attention(tf.Module):
        def __init__(self):
            super().__init__()
            self.attend = layers.MultiHeadAttention(2, 4)
            self.norm = layers.LayerNormalization()

        def __call__(self, x):
            return self.norm(x + self.attend(x, x, use_causal_mask=True))

    def residual():
        x = keras.Input((8, 8, 3))
        a = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        a = layers.ReLU(6.0)(layers.BatchNormalization()(a))
        b = layers.DepthwiseConv2D(3, strides=2, padding="same")(a)
        b = layers.Conv2D(8, 1, activation="swish")(b)
        c = layers.MaxPooling2D(2)(a)
        y = layers.Concatenate()([layers.Add()([b, c]), c])
        model = keras.Model(x, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(y)))
        return lambda v: model(v, training=False)

    def slices(x):
        return (x[:, ::2, 1:-1], x[..., tf.newaxis, -1], tf.reverse(x, [1]), tf.strided_slice(x, [0, 3, 0], [2, 0, 4], [1, -1, 2]),
                tf.pad(x, [[0, 0], [1, 2], [0, 1]], mode="REFLECT"), tf.roll(x, 1, axis=1))

    def indices(ids, x):
        table = tf.constant(f(9, 4))
        e = tf.gather(table, ids)
        top, at = tf.math.top_k(e, 2)
        return (e, top, at, tf.one_hot(ids, 9), tf.boolean_mask(x, x > 0), tf.where(x > 0), tf.argmax(x, 1),
                tf.cumsum(x, 1, exclusive=True, reverse=True))

    def maths(x, y):
        return (tf.einsum("bij,bkj->bik", x, y), tf.math.reduce_logsumexp(x, -1), tf.math.floormod(x, 0.7), tf.nn.gelu(x, approximate=True),
                tf.math.reduce_std(x, 1), tf.linalg.band_part(x @ tf.transpose(y, [0, 2, 1]), -1, 0), tf.math.erf(x),
                tf.nn.softplus(x) + tf.nn.selu(y) + tf.math.rsqrt(abs(x) + 1.0), tf.clip_by_value(x, -0.5, 0.5),
                tf.math.l2_normalize(x, -1), tf.cast(abs(x) * 3.0, tf.int32) // 2, tf.sign(x) * tf.round(y * 2.0))

    def images(x):
        return (tf.image.resize(x, [7, 9]), tf.image.resize(x, [3, 4], method="nearest"),
                tf.image.resize(x, [12, 12], method="bicubic"), tf.nn.depth_to_space(x, 2), tf.nn.space_to_depth(x, 2),
                tf.nn.avg_pool2d(x, 3, 2, "SAME"), tf.nn.max_pool2d(x, 3, 2, "VALID"))

    def loop(x, n):
        def step(i, v):
            return i + 1, tf.tanh(v * 1.5 + tf.cast(i, tf.float32))
        return tf.while_loop(lambda i, v: i < n, step, [tf.constant(0), x])[1]

    def branch(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)

    def ragged(x):
        parts = tf.split(x, [1, 2, 2], axis=1)
        stacked = tf.stack([parts[1], parts[2]], 0)
        return tf.unstack(stacked, axis=0) + [tf.tile(x, [1, 2]), tf.repeat(x, 2, axis=1), tf.meshgrid(x[0], x[1])[0]]

    return {
        "residual": (residual(), [f(2, 8, 8, 3)], [[0]]),
        "separable": (net(layers.SeparableConv2D(6, 3), layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
                          layers.LeakyReLU(), layers.UpSampling2D(2), layers.ZeroPadding2D(1)), [f(2, 6, 6, 4)], [[0]]),
        "conv1d": (net(layers.Conv1D(6, 3, padding="causal", dilation_rate=2), layers.PReLU(), layers.AveragePooling1D(2)),
                   [f(2, 12, 3)], [[0]]),
        "lstm": (net(layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.LSTM(3)), [f(2, 6, 5)], [[0]]),
        "gru": (net(layers.GRU(4, return_sequences=True), layers.GRU(3, reset_after=False)), [f(2, 6, 5)], [[0]]),
        "attention": (Attention(), [f(2, 5, 8)], [[0]]),
        "slices": (slices, [f(2, 5, 4)], [[0]]),
        "indices": (indices, [r.integers(0, 9, (2, 3)).astype(np.int32), f(2, 5)], [[0], [0]]),
        "maths": (maths, [f(2, 3, 5), f(2, 3, 5)], [[0], [0]]),
        "images": (images, [f(2, 6, 6, 4)], [[0]]),
        "loop": (loop, [f(2, 4), np.array(3, np.int32)], [[0], []]),
        "branch": (branch, [f(3, 4)], [[0]]),
        "lists": (ragged, [f(2, 5)], [[]]),
    }


def add(zoo):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
        import tf2onnx
    except ImportError as e:
        print(f"not installed: {e}")
        return
    for name, (function, inputs, free) in models(tf).items():
        if not any(zoo.only in f"tf2onnx_{opset}_{name}" for opset in OPSETS):
            continue
        names = [f"in{i}" for i in range(len(inputs))]
        specs = [tf.TensorSpec([None if d in axes else s for d, s in enumerate(x.shape)], x.dtype, name=n)
                 for n, x, axes in zip(names, inputs, free)]
        traced = tf.function(function, input_signature=specs)
        want = [t.numpy() for t in tf.nest.flatten(traced(*map(tf.constant, inputs)))]
        for opset in OPSETS:
            def make(path, opset=opset):
                tf2onnx.convert.from_function(traced, input_signature=specs, opset=opset, output_path=str(path))
                return dict(zip(names, inputs)), want
            zoo.add(f"tf2onnx_{opset}_{name}", make)
