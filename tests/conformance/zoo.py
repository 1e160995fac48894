"""Writes small models made by real exporters, with the frameworks' own outputs, in the form of export.py.

    python zoo.py DIR [--only TEXT]

Needs torch (its TorchScript and dynamo exporters are both tried, with fixed and with dynamic sizes; tiny
models of transformers if that is there), scikit-learn with skl2onnx, TensorFlow with tf2onnx, Keras with
what its own exporter wants, PaddlePaddle with paddle2onnx; what is not installed is said and left out. Weights are random; nothing is downloaded.
"""
import argparse
import json
import pathlib
import shutil
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper

import zoo_keras
import zoo_paddle
import zoo_tensorflow

warnings.simplefilter("ignore")


WAYS = ["script", "script_dynamic", "dynamo", "dynamo_dynamic"]


class Zoo:
    def __init__(self, root, only):
        self.root, self.only = root, only
        self.index, self.failures = {"onnx": "exporters", "cases": {}}, []

    def add(self, name, make, rtol=1e-3, atol=1e-5):
        """`make(path)` writes a model and gives its inputs by name and its outputs in order."""
        if self.only not in name:
            return
        folder = self.root / "cases" / name
        (folder / "set0").mkdir(parents=True)
        try:
            feeds, outputs = make(folder / "model.onnx")
            model = onnx.load(folder / "model.onnx", load_external_data=False)
            inits = {t.name for t in model.graph.initializer}
            inputs = [i.name for i in model.graph.input if i.name not in inits]
            feeds = [feeds[n] for n in inputs]
        except Exception as e:  # noqa: BLE001: an exporter's own trouble
            shutil.rmtree(folder)
            self.failures.append(f"{name}: {type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''}")
            return
        types = {"inputs": [], "outputs": []}
        for kind, values in [("in", feeds), ("out", outputs)]:
            for i, v in enumerate(values):
                v = np.asarray(v)
                if v.dtype.kind in "OSU":
                    v, t = v.astype(str), "STRING"
                else:
                    t = TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(v.dtype))
                np.save(folder / "set0" / f"{kind}_{i}.npy", v)
                types[kind + "puts"].append(["tensor", t])
        self.index["cases"][name] = {"kind": "zoo", "rtol": rtol, "atol": atol, "sets": [types]}


def torch_models(torch):
    """name -> (module, inputs, names of dynamic axes by input)."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(0)
    r = torch.randn

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Dropout(0.1), nn.Linear(16, 4))

        def forward(self, x):
            return F.log_softmax(self.net(x), -1)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
            self.b = nn.BatchNorm2d(8)
            self.c = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            x = F.relu(self.b(self.a(x)))
            x = x + F.hardswish(self.c(x))
            x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1)
            return self.fc(torch.flatten(x, 1))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
            self.up, self.c = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 1)

        def forward(self, x):
            a = F.silu(self.a(x))
            b = F.silu(self.b(F.avg_pool2d(a, 2)))
            y = torch.cat([a, self.up(b)], 1)
            y = F.interpolate(self.c(y), scale_factor=2, mode="bilinear", align_corners=False)
            return y, F.interpolate(y, size=(7, 9), mode="nearest")

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x):
            b, s, d = x.shape
            q, k, v = self.qkv(x).view(b, s, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(b, s, d))

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x, mask):
            y, w = self.attention(x, x, x, key_padding_mask=mask)
            return y, w

    class Rope(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8)
            self.norm = nn.RMSNorm(16)
            self.register_buffer("inv", 1.0 / 100 ** (torch.arange(0, 4, 2).float() / 4))

        def turn(self, x, cos, sin):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        def forward(self, x, past_k, past_v):
            b, s, _ = x.shape
            x = self.norm(x)
            p = past_k.shape[2]
            at = torch.arange(p, p + s, device=x.device)
            angle = torch.outer(at.float(), self.inv)
            angle = torch.cat([angle, angle], -1)
            cos, sin = angle.cos(), angle.sin()
            q = self.turn(self.q(x).view(b, s, 4, 4).transpose(1, 2), cos, sin)
            k = self.turn(self.k(x).view(b, s, 2, 4).transpose(1, 2), cos, sin)
            v = self.v(x).view(b, s, 2, 4).transpose(1, 2)
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
            kk, vv = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            t = k.shape[2]
            mask = torch.arange(t)[None, :] <= at[:, None]
            scores = (q @ kk.transpose(2, 3)) / 2.0
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
            y = scores.softmax(-1) @ vv
            return y.transpose(1, 2).reshape(b, s, 16), k, v

    class Lstm(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.gru = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True), nn.GRU(10, 4)

        def forward(self, x):
            y, (h, c) = self.rnn(x)
            z, _ = self.gru(y.transpose(0, 1))
            return y, h, c, z

    class Shapes(nn.Module):
        def forward(self, x):
            b, c, h, w = x.shape
            y = x.reshape(b, c, h * w).transpose(1, 2)
            y = F.pad(y, (1, 2), value=0.5)
            z = x[:, ::2, 1:, :-1].flip(-1)
            w = x.unfold(2, 2, 2).sum(-1)
            return y, z, w, x.mean((2, 3), keepdim=True).squeeze(-1), x.amax(1), torch.stack([x, -x], 1)

    class Index(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(12, 6)

        def forward(self, ids, x):
            e = self.table(ids)
            top, at = e.topk(3, -1)
            hot = F.one_hot(ids, 12).float()
            g = torch.gather(e, 2, at)
            s = torch.zeros_like(e).scatter(2, at, top)
            x = x.clone()
            x[:, 0] = 1.0
            return top, hot, g, s, x, torch.where(x > 0, x, x.cumsum(1)), e.argmax(-1), (ids > 3).nonzero()

    class Math(nn.Module):
        def forward(self, x, y):
            a = torch.einsum("bij,bkj->bik", x, y)
            b = torch.clamp(x, -0.5, 0.5) ** 2 + torch.rsqrt(x.abs() + 1) - torch.erf(x) * torch.log1p(x.abs())
            c = torch.std(x, -1) + torch.var(y, -1, unbiased=False)[:, :1] + torch.logsumexp(x, -1)
            d = torch.tril(a) + torch.triu(a, 1) * 2
            e = torch.remainder(x, 0.7) + torch.fmod(x, 0.3) + torch.floor(x / 0.9) + torch.atan2(x, x.abs() + 1)
            return a, b, c, d, e, F.normalize(x, dim=-1), torch.norm(y, p=2, dim=-1), x.abs().round().long() // 2

    class Norms(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.i = nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)
            self.p, self.n = nn.PReLU(4), nn.LayerNorm([4, 6, 6])

        def forward(self, x):
            y = self.p(self.g(x)) + self.i(x)
            y = self.n(y) + F.elu(x) + F.celu(x) + F.softplus(x) + F.mish(x) + F.hardsigmoid(x) + F.leaky_relu(x)
            return y, F.pixel_shuffle(x, 2), F.local_response_norm(x, 3), F.glu(x, 1), F.avg_pool2d(x, 3, 2, 1)

    class Grid(nn.Module):
        def forward(self, x, g):
            return F.grid_sample(x, g, align_corners=False), F.interpolate(x, scale_factor=1.5, mode="bicubic")

    class Conv1d(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(3, 6, 5, padding="same"), nn.ConvTranspose1d(6, 3, 4, 2, 1)
            self.w = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 3, 3, dilation=2, padding=2))

        def forward(self, x):
            return self.w(self.b(F.gelu(self.a(x), approximate="tanh")))

    class Spectra(nn.Module):
        """Speech: frames, powers, a mel filter bank."""

        def __init__(self):
            super().__init__()
            self.register_buffer("window", torch.hann_window(16))
            self.register_buffer("mel", torch.rand(9, 5))

        def forward(self, x):
            z = torch.stft(x, 16, 4, window=self.window, return_complex=False)
            return ((z**2).sum(-1).transpose(1, 2) @ self.mel).clamp(min=1e-5).log()

    class Border(nn.Module):
        def forward(self, x, g):
            return F.grid_sample(x, g, mode="bicubic", padding_mode="border", align_corners=False)

    class Routed(nn.Module):
        """A mixture of experts: the best two of four for each token."""

        def __init__(self):
            super().__init__()
            self.gate, self.experts = nn.Linear(8, 4), nn.Parameter(r(4, 8, 8) * 0.3)

        def forward(self, x):
            p, i = self.gate(x).softmax(-1).topk(2, -1)
            y = torch.einsum("td,tkde->tke", x, self.experts[i])
            return (y * (p / p.sum(-1, keepdim=True))[..., None]).sum(1), F.one_hot(i, 4).sum((0, 1))

    class Boxes(nn.Module):
        """The head of a detector: anchors, decoded boxes, the ten best."""

        def __init__(self):
            super().__init__()
            self.body, self.score, self.box = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            f = F.relu(self.body(x))
            rows = lambda v: v.permute(0, 2, 3, 1).reshape(v.shape[0], -1, v.shape[1])
            y, x = torch.meshgrid(torch.arange(f.shape[2]), torch.arange(f.shape[3]), indexing="ij")
            centre, size = rows(self.box(f)).split(2, -1)
            centre = centre * 0.4 + torch.stack([x, y], -1).reshape(-1, 2)
            score, i = rows(self.score(f)).softmax(-1).max(-1)[0].topk(10, 1)
            boxes = torch.cat([centre - size.exp() / 2, centre + size.exp() / 2], -1)
            return boxes.gather(1, i[..., None].expand(-1, -1, 4)), score

    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, enable_nested_tensor=False)
    x4 = r(2, 4, 6, 6)
    ids = torch.randint(0, 12, (2, 5))
    return {
        "mlp": (Mlp(), (r(3, 8),), [{0: "batch"}]),
        "residual": (Residual(), (r(2, 3, 16, 16),), [{0: "batch", 2: "height", 3: "width"}]),
        "unet": (UNet(), (r(1, 2, 8, 8),), [{0: "batch"}]),
        "attention": (Attention(), (r(2, 5, 16),), [{0: "batch", 1: "seq"}]),
        "masked": (Masked(), (r(2, 5, 16), torch.tensor([[0, 0, 0, 1, 1], [0] * 5]).bool()), [{0: "batch"}] * 2),
        "encoder": (encoder, (r(2, 5, 16),), [{0: "batch", 1: "seq"}]),
        "rope": (Rope(), (r(2, 3, 16), r(2, 2, 4, 4), r(2, 2, 4, 4)),
                 [{0: "batch", 1: "seq"}, {0: "batch", 2: "past"}, {0: "batch", 2: "past"}]),
        "lstm": (Lstm(), (r(2, 5, 6),), [{0: "batch", 1: "seq"}]),
        "shapes": (Shapes(), (x4,), [{0: "batch", 2: "height", 3: "width"}]),
        "index": (Index(), (ids, r(2, 5)), [{0: "batch"}] * 2),
        "math": (Math(), (r(2, 3, 5), r(2, 3, 5)), [{0: "batch"}] * 2),
        "norms": (Norms(), (x4,), [{0: "batch"}]),
        "grid": (Grid(), (x4, r(2, 5, 5, 2).tanh()), [{0: "batch"}] * 2),
        "spectra": (Spectra(), (r(2, 64),), [{0: "batch"}]),
        "border": (Border(), (x4, r(2, 5, 5, 2)), [{0: "batch"}] * 2),
        "routed": (Routed(), (r(6, 8),), [{0: "tokens"}]),
        "boxes": (Boxes(), (r(1, 3, 16, 16),), [{}]),
        "conv1d": (Conv1d(), (r(2, 3, 20),), [{0: "batch", 2: "time"}]),
    }


def transformer_models(torch):
    """Tiny random models of the `transformers` package, if it is installed: name -> as torch_models."""
    try:
        import transformers as tf
    except ImportError:
        print("transformers is not installed")
        return {}
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
             "vocab_size": 40, "max_position_embeddings": 32}
    grouped = small | {"num_key_value_heads": 2, "head_dim": 4}

    class First(torch.nn.Module):
        """The first output of a model, whose inputs go by position."""

        def __init__(self, model, names, **options):
            super().__init__()
            self.model, self.names, self.options = model, names, options

        def forward(self, a, b=None):
            given = dict(zip(self.names, (a, b)))
            return self.model(**given, **self.options, return_dict=False)[0]

    ids, mask = torch.randint(0, 40, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    text = [{0: "batch", 1: "seq"}] * 2
    both = ["input_ids", "attention_mask"]
    eager = {"attn_implementation": "eager"}
    pixels = torch.randn(2, 3, 16, 16)
    t5 = tf.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, decoder_start_token_id=0)
    gpt2 = tf.GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=2, n_head=4)
    whisper = tf.WhisperConfig(vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
                               decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8,
                               max_source_positions=8, max_target_positions=8, pad_token_id=0, bos_token_id=0,
                               eos_token_id=0, decoder_start_token_id=0)
    vit = {"image_size": 16, "patch_size": 4} | {k: v for k, v in small.items() if k not in ("vocab_size",)}
    makers = {
        "bert": lambda a: First(tf.BertModel(tf.BertConfig(**small, **a)), both),
        "distilbert": lambda a: First(tf.DistilBertModel(tf.DistilBertConfig(vocab_size=40, dim=16, hidden_dim=24, n_layers=2,
                                                                             n_heads=4, max_position_embeddings=32, **a)), both),
        "roberta": lambda a: First(tf.RobertaModel(tf.RobertaConfig(**small, pad_token_id=1, **a)), both),
        "gpt2": lambda a: First(tf.GPT2LMHeadModel(gpt2), both, use_cache=False),
        "llama": lambda a: First(tf.LlamaForCausalLM(tf.LlamaConfig(**grouped, **a)), both, use_cache=False),
        "qwen2": lambda a: First(tf.Qwen2ForCausalLM(tf.Qwen2Config(**grouped, **a)), both, use_cache=False),
        "qwen3": lambda a: First(tf.Qwen3ForCausalLM(tf.Qwen3Config(**grouped, **a)), both, use_cache=False),
        "gemma2": lambda a: First(tf.Gemma2ForCausalLM(tf.Gemma2Config(**grouped, sliding_window=4, **a)), both,
                                  use_cache=False),
        "t5_encoder": lambda a: First(tf.T5EncoderModel(t5), both),
    }
    plain = {k: v for k, v in grouped.items() if k != "head_dim"}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

    def decoder(family, **sizes):
        config, model = getattr(tf, f"{family}Config"), getattr(tf, f"{family}ForCausalLM")
        return lambda a: First(model(config(**sizes, **a)), both, use_cache=False)

    def encoder(family, **sizes):
        return lambda a: First(getattr(tf, f"{family}Model")(getattr(tf, f"{family}Config")(**sizes, **a)), both)

    makers |= {
        "phi3": decoder("Phi3", **plain, **tokens),
        "gemma3": lambda a: First(tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**grouped, sliding_window=4, **a)), both,
                                  use_cache=False),
        "olmo2": decoder("Olmo2", **plain),
        "gpt_neox": decoder("GPTNeoX", **small),
        "gptj": decoder("GPTJ", n_positions=32, n_embd=16, n_layer=2, n_head=4, rotary_dim=2, vocab_size=40),
        "falcon": decoder("Falcon", hidden_size=16, num_hidden_layers=2, num_attention_heads=4, vocab_size=40),
        "albert": encoder("Albert", embedding_size=8, **small),
        "electra": encoder("Electra", embedding_size=8, **small),
        "mpnet": encoder("MPNet", **small),
        "modernbert": encoder("ModernBert", **small, pad_token_id=0, local_attention=4, global_attn_every_n_layers=2),
    }
    out = {}
    for name, make in makers.items():
        try:
            out[name] = (make(eager), (ids, mask), text)
        except AttributeError as e:
            print(f"transformers {tf.__version__}: {e}")
    out["llama_sdpa"] = (makers["llama"]({"attn_implementation": "sdpa"}), (ids, mask), text)
    out["vit"] = (First(tf.ViTModel(tf.ViTConfig(**vit, **eager)), ["pixel_values"]), (pixels,), [{0: "batch"}])
    bert = tf.DebertaV2Config(**small, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8)
    out["deberta_v2"] = (First(tf.DebertaV2Model(bert), both), (ids, mask), text)
    larger = torch.randn(2, 3, 32, 32)
    swin = tf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4)
    out["swin"] = (First(tf.SwinModel(swin), ["pixel_values"]), (larger,), [{0: "batch"}])
    convnext = tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
    out["convnext"] = (First(tf.ConvNextModel(convnext), ["pixel_values"]), (larger,), [{0: "batch"}])
    out["whisper_encoder"] = (First(tf.WhisperModel(whisper).encoder, ["input_features"]), (torch.randn(2, 8, 16),),
                              [{0: "batch"}])
    return out


def scripted_models(torch):
    """Modules whose control flow depends on values: only torch.jit.script keeps it."""
    nn = torch.nn

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, n: torch.Tensor):
            for _ in range(int(n)):
                x = torch.tanh(self.cell(x))
            return x

    class While(nn.Module):
        def forward(self, x: torch.Tensor):
            i = 0
            while bool(x.abs().sum() > 1.0):
                x = x * 0.5
                i += 1
            return x, torch.tensor(i)

    class Branch(nn.Module):
        def forward(self, x: torch.Tensor):
            if bool(x.sum() > 0):
                y = x * 2
            else:
                y = x - 1
            return y

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x: torch.Tensor):
            h = torch.zeros(x.shape[1], 4)
            out = torch.zeros(x.shape[0], x.shape[1], 4)
            for t in range(x.shape[0]):
                h = self.cell(x[t], h)
                out[t] = h
            return out, h

    class Lists(nn.Module):
        def forward(self, x: torch.Tensor):
            parts: list[torch.Tensor] = []
            for t in range(x.shape[0]):
                parts.append(x[t] * t)
            return torch.stack(parts)

    class Greedy(nn.Module):
        """A decoder that takes the likeliest token until all are unlikely."""

        def __init__(self):
            super().__init__()
            self.e, self.c, self.o = nn.Embedding(12, 8), nn.Linear(16, 8), nn.Linear(8, 12)

        def forward(self, h: torch.Tensor, n: torch.Tensor):
            ids, score, i = torch.zeros(h.shape[0], 1, dtype=torch.long), torch.zeros(h.shape[0]), 0
            while i < int(n) and bool(score.min() > -20.0):
                h = torch.tanh(self.c(torch.cat([self.e(ids[:, -1]), h], 1)))
                v, k = torch.log_softmax(self.o(h), -1).max(-1)
                ids, score, i = torch.cat([ids, k[:, None]], 1), score + v, i + 1
            return ids, score

    r = torch.randn
    return {
        "greedy": (Greedy(), (r(3, 8), torch.tensor(4)), [{0: "batch"}, {}]),
        "loop": (Loop(), (r(2, 4), torch.tensor(3)), [{0: "batch"}, {}]),
        "while": (While(), (r(3, 4),), [{0: "batch"}]),
        "branch": (Branch(), (r(3, 4),), [{0: "batch"}]),
        "steps": (Steps(), (r(5, 2, 3),), [{0: "time", 1: "batch"}]),
        "lists": (Lists(), (r(5, 2),), [{0: "time"}]),
    }


def add_torch(zoo):
    try:
        import torch
    except ImportError:
        print("torch is not installed")
        return
    torch.set_num_threads(1)
    plain = torch_models(torch) | transformer_models(torch)
    for scripted, models in [(False, plain), (True, scripted_models(torch))]:
        for name, (module, inputs, dynamic) in models.items():
            if zoo.only and not any(zoo.only in f"torch_{way}_{name}" for way in WAYS):
                continue
            module.eval()
            names = [f"in{i}" for i in range(len(inputs))]
            with torch.no_grad():
                want = module(*inputs)
            want = [t.numpy() for t in (want if isinstance(want, tuple) else (want,))]
            feeds = {n: t.numpy() for n, t in zip(names, inputs)}
            axes = {n: d for n, d in zip(names, dynamic) if d}
            ways = [("script", False), ("script_dynamic", True)]
            if not scripted:
                ways += [("dynamo", False), ("dynamo_dynamic", True)]
            for way, dyn in ways:
                def make(path, way=way, dyn=dyn):
                    options = {"input_names": names, "opset_version": 17}
                    target = torch.jit.script(module) if scripted else module
                    if way.startswith("script"):
                        options |= {"dynamo": False, "do_constant_folding": True}
                        if dyn:
                            options["dynamic_axes"] = axes
                    else:
                        options |= {"dynamo": True, "opset_version": 18, "verbose": False, "external_data": False}
                        if dyn:
                            options["dynamic_shapes"] = [
                                {a: torch.export.Dim.DYNAMIC for a in d} for d in dynamic]
                    torch.onnx.export(target, inputs, str(path), **options)
                    return feeds, want
                zoo.add(f"torch_{way}_{name}", make)


def add_sklearn(zoo):
    try:
        import skl2onnx
        import sklearn.cluster as cluster
        import sklearn.decomposition as decomposition
        import sklearn.ensemble as ensemble
        import sklearn.linear_model as linear
        import sklearn.naive_bayes as bayes
        import sklearn.neighbors as neighbors
        import sklearn.neural_network as network
        import sklearn.pipeline as pipeline
        import sklearn.preprocessing as prep
        import sklearn.svm as svm
        import sklearn.tree as tree
    except ImportError as e:
        print(f"not installed: {e}")
        return
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)).astype(np.float32)
    labels = (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.8)
    target = (x @ rng.standard_normal(5)).astype(np.float32)
    few = x[:7]
    classifiers = {
        "logistic": linear.LogisticRegression(), "sgd": linear.SGDClassifier(loss="log_loss"),
        "tree": tree.DecisionTreeClassifier(max_depth=4), "forest": ensemble.RandomForestClassifier(5, max_depth=3),
        "boosting": ensemble.GradientBoostingClassifier(n_estimators=5), "mlp": network.MLPClassifier((6,), max_iter=50),
        "svc": svm.SVC(probability=True), "linear_svc": svm.LinearSVC(), "bayes": bayes.GaussianNB(),
        "knn": neighbors.KNeighborsClassifier(3), "hist": ensemble.HistGradientBoostingClassifier(max_iter=4),
    }
    regressors = {
        "linear": linear.LinearRegression(), "ridge": linear.Ridge(), "tree": tree.DecisionTreeRegressor(max_depth=4),
        "forest": ensemble.RandomForestRegressor(5, max_depth=3), "mlp": network.MLPRegressor(hidden_layer_sizes=(6,), max_iter=50),
        "svr": svm.SVR(), "knn": neighbors.KNeighborsRegressor(3), "boosting": ensemble.GradientBoostingRegressor(n_estimators=5),
    }
    transforms = {
        "scaler": prep.StandardScaler(), "minmax": prep.MinMaxScaler(), "robust": prep.RobustScaler(),
        "normalizer": prep.Normalizer(), "poly": prep.PolynomialFeatures(2), "pca": decomposition.PCA(3),
        "binarizer": prep.Binarizer(), "maxabs": prep.MaxAbsScaler(), "bins": prep.KBinsDiscretizer(3, encode="ordinal"),
        "power": prep.PowerTransformer(), "pipeline": pipeline.make_pipeline(prep.StandardScaler(), decomposition.PCA(2)),
    }

    def add(kind, name, m, y):
        def make(path):
            m.fit(x, y)
            options = {id(m): {"zipmap": False}} if kind == "classifier" and hasattr(m, "predict_proba") else None
            o = skl2onnx.to_onnx(m, few, options=options, target_opset=17)
            path.write_bytes(o.SerializeToString())
            if kind == "classifier":
                out = [m.predict(few)]
                proba = hasattr(m, "predict_proba")
                out.append((m.predict_proba if proba else m.decision_function)(few).astype(np.float32))
                return {"X": few}, out
            if kind == "regressor":
                return {"X": few}, [m.predict(few).astype(np.float32).reshape(-1, 1)]
            if kind == "cluster":
                return {"X": few}, [m.predict(few).astype(np.int64), m.transform(few).astype(np.float32)]
            return {"X": few}, [m.transform(few).astype(np.float32)]
        zoo.add(f"sklearn_{kind}_{name}", make, rtol=1e-3, atol=1e-4)

    for name, m in classifiers.items():
        add("classifier", name, m, labels)
    for name, m in regressors.items():
        add("regressor", name, m, target)
    for name, m in transforms.items():
        add("transform", name, m, None)
    add("cluster", "kmeans", cluster.KMeans(3), None)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("root", type=pathlib.Path)
    p.add_argument("--only", default="")
    a = p.parse_args()
    shutil.rmtree(a.root, ignore_errors=True)
    zoo = Zoo(a.root, a.only)
    add_torch(zoo)
    add_sklearn(zoo)
    zoo_tensorflow.add(zoo)
    zoo_keras.add(zoo)
    zoo_paddle.add(zoo)
    (a.root / "index.json").write_text(json.dumps(zoo.index, indent=0))
    for f in zoo.failures:
        print("not exported:", f)
    print(f"{len(zoo.index['cases'])} models")


main()
