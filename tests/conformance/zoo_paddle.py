"""Models of PaddlePaddle by paddle2onnx, for zoo.py. Needs paddlepaddle and paddle2onnx."""
import os
import shutil

import numpy as np

OPSETS = [11, 17]


def models(paddle):
    """name -> (layer, inputs as arrays, axes that are free in each)."""
    nn, fn = paddle.nn, paddle.nn.functional
    paddle.seed(0)
    r = np.random.default_rng(0)

    def f(*shape):
        return r.standard_normal(shape).astype(np.float32)

    class Block(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2D(3, 8, 3, padding=1, bias_attr=False), nn.BatchNorm2D(8)
            self.depth, self.point = nn.Conv2D(8, 8, 3, stride=2, padding=1, groups=8), nn.Conv2D(8, 8, 1)
            self.squeeze, self.expand = nn.Conv2D(8, 2, 1), nn.Conv2D(2, 8, 1)
            self.up, self.head = nn.Conv2DTranspose(8, 4, 2, stride=2), nn.Linear(8, 5)

        def forward(self, x):
            y = fn.hardswish(self.norm(self.conv(x)))
            z = self.point(fn.relu6(self.depth(y)))
            s = fn.adaptive_avg_pool2d(z, 1)
            z = z * fn.hardsigmoid(self.expand(fn.relu(self.squeeze(s))))
            return fn.softmax(self.head(z.mean([2, 3])), -1), fn.sigmoid(self.up(z)), fn.max_pool2d(y, 2, 2)

    class Resize(nn.Layer):
        def forward(self, x):
            return fn.interpolate(x, size=[9, 7], mode="bilinear"), fn.interpolate(x, size=[12, 12], mode="nearest")

    class Sequence(nn.Layer):
        """As a text recogniser's neck: columns as a sequence, two directions, a distribution each."""

        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 5, num_layers=2, direction="bidirect"), nn.Linear(10, 7)
            self.gru = nn.GRU(10, 4)

        def forward(self, x):
            y, _ = self.rnn(x.squeeze(2).transpose([0, 2, 1]))
            return fn.softmax(self.head(y), axis=2), self.gru(y)[0]

    class Attention(nn.Layer):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(12, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu")

        def forward(self, ids):
            return self.layer(self.embed(ids))

    class Shapes(nn.Layer):
        def forward(self, x):
            n, c, h, w = x.shape
            y = x.reshape([-1, c, h * w]).transpose([0, 2, 1])
            parts = paddle.split(x, 2, axis=1)
            return (y, paddle.concat(parts[::-1], 1), paddle.stack([x, -x], 1), x[:, :, 1:, ::2],
                    paddle.flip(x, [3]), paddle.tile(x, [1, 2, 1, 1]), fn.pixel_shuffle(x, 2))

    class Math(nn.Layer):
        def forward(self, x, y):
            top, at = paddle.topk(x, 2, axis=-1)
            return (paddle.matmul(x, y, transpose_y=True), paddle.clip(x, -0.5, 0.5), top, at, paddle.argmax(x, -1),
                    paddle.logsumexp(x, -1), fn.layer_norm(x, [5]), paddle.where(x > y, x, y), paddle.cumsum(x, 1),
                    fn.gelu(x) + fn.swish(y) + paddle.erf(x) + fn.mish(y) + fn.elu(x), paddle.sum(x, [0, 1], keepdim=True),
                    paddle.nonzero(x > 0), fn.one_hot(at, 5), paddle.gather(x, at[0, :, 0], axis=2))

    return {
        "block": (Block(), [f(2, 3, 8, 8)], [[0]]),
        "resize": (Resize(), [f(2, 3, 6, 6)], [[0]]),
        "sequence": (Sequence(), [f(2, 6, 1, 9)], [[0]]),
        "attention": (Attention(), [r.integers(0, 12, (2, 5))], [[0, 1]]),
        "shapes": (Shapes(), [f(2, 4, 6, 6)], [[0]]),
        "math": (Math(), [f(2, 3, 5), f(2, 3, 5)], [[0], [0]]),
    }


def add(zoo):
    try:
        import paddle
        import paddle2onnx  # noqa: F401
    except ImportError as e:
        print(f"not installed: {e}")
        return
    for name, (layer, inputs, free) in models(paddle).items():
        if not any(zoo.only in f"paddle2onnx_{opset}_{name}" for opset in OPSETS):
            continue
        layer.eval()
        names = [f"in{i}" for i in range(len(inputs))]
        specs = [paddle.static.InputSpec([None if d in axes else s for d, s in enumerate(x.shape)], str(x.dtype), n)
                 for n, x, axes in zip(names, inputs, free)]
        want = layer(*map(paddle.to_tensor, inputs))
        want = [t.numpy() for t in (want if isinstance(want, (tuple, list)) else [want])]
        for opset in OPSETS:
            def make(path, opset=opset):
                made = path.with_name("exported")
                child = os.fork()
                if child == 0:
                    # The exporter ends its process where it knows an operator's attribute of one type only.
                    paddle.onnx.export(layer, str(made), input_spec=specs, opset_version=opset)
                    os._exit(0)
                if os.waitpid(child, 0)[1] != 0:
                    raise RuntimeError("the exporter ended the process")
                shutil.move(made.with_suffix(".onnx"), path)
                return dict(zip(names, inputs)), want
            zoo.add(f"paddle2onnx_{opset}_{name}", make)
