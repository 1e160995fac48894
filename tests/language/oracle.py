"""A second oracle: language models in f64 numpy, written from the published descriptions of the families, not from any
implementation. Run by hand: `python3 tests/language/oracle.py` compares it with the goldens; make.py stores what it says beside
the answers of transformers.
"""

import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


class Rope:
    """Frequencies and factors of rotary positions."""

    def __init__(self, c, size, theta):
        p = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
        self.kind = p.get("rope_type", p.get("type", "default"))
        self.base = p.get("rope_theta", c.get("rope_theta", theta))
        self.size, self.p, self.amplitude, self.score = size, p, 1.0, 1.0
        self.trained = c["max_position_embeddings"]
        self.original = p.get("original_max_position_embeddings") or self.trained

    def inverse(self, length):
        i, d, p = np.arange(0, self.size, 2), self.size, self.p
        inv = self.base ** (-i / d)
        if self.kind == "linear":
            return inv / p["factor"]
        if self.kind == "dynamic":
            n = max(length, self.trained)
            base = self.base * (p["factor"] * n / self.trained - (p["factor"] - 1)) ** (d / (d - 2))
            return base ** (-i / d)
        if self.kind == "llama3":
            wave = 2 * math.pi / inv
            smooth = (self.original / wave - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
            smooth = np.clip(smooth, 0, 1)
            return (1 - smooth) * inv / p["factor"] + smooth * inv
        if self.kind == "yarn":
            f = p["factor"]
            m = lambda k: 1.0 if f <= 1 else 0.1 * k * math.log(f) + 1
            one, all_ = p.get("mscale"), p.get("mscale_all_dim")
            self.amplitude = m(one) / m(all_) if one and all_ else m(1)
            self.score = m(all_) ** 2 if all_ else 1.0
            turn = lambda beta: d * math.log(self.original / (beta * 2 * math.pi)) / (2 * math.log(self.base))
            low = max(math.floor(turn(p.get("beta_fast", 32))), 0)
            high = min(math.ceil(turn(p.get("beta_slow", 1))), d - 1)
            ramp = np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)
            return inv / f * ramp + inv * (1 - ramp)
        assert self.kind == "default", self.kind
        return inv

    def turn(self, x, at, pairs):
        """x [n, heads, size] at positions: complex numbers of neighbours or of halves."""
        angle = np.outer(at, self.inverse(len(at)))[:, None, :]
        z = np.exp(1j * angle) * self.amplitude
        if pairs:
            y = (x[..., 0::2] + 1j * x[..., 1::2]) * z
            return np.stack([y.real, y.imag], -1).reshape(x.shape)
        h = x.shape[-1] // 2
        y = (x[..., :h] + 1j * x[..., h:]) * z
        return np.concatenate([y.real, y.imag], -1)


class Oracle:
    """Logits of every token of one sequence; `absorbed` is the other form of latent attention."""

    def __init__(self, config, weights, absorbed=True):
        self.c, self.absorbed = config, absorbed
        self.w = {k: v.astype(np.float64) for k, v in weights.items()}
        self.kind, self.eps = config["model_type"], config.get("rms_norm_eps", 1e-5 if config["model_type"] == "mixtral" else 1e-6)

    def lin(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def logits(self, tokens):
        c, w = self.c, self.w
        x = w["model.embed_tokens.weight"][tokens]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            h = rms(x, w[p + "input_layernorm.weight"], self.eps)
            x = x + (self.latent(p, h) if "kv_lora_rank" in c else self.heads(p, h, i))
            x = x + self.mlp(p, rms(x, w[p + "post_attention_layernorm.weight"], self.eps), i)
        x = rms(x, w["model.norm.weight"], self.eps)
        return x @ w["model.embed_tokens.weight" if c.get("tie_word_embeddings") else "lm_head.weight"].T

    def seen(self, n, window):
        i, j = np.arange(n)[:, None], np.arange(n)[None]
        return (j <= i) & ((i - j < window) if window else True)

    def heads(self, p, h, layer):
        c, n, a = self.c, len(h), p + "self_attn."
        heads, kv = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
        d = c.get("head_dim") or c["hidden_size"] // heads
        q, k, v = (self.lin(h, a + s + "_proj").reshape(n, -1, d) for s in "qkv")
        if a + "q_norm.weight" in self.w:
            q, k = rms(q, self.w[a + "q_norm.weight"], self.eps), rms(k, self.w[a + "k_norm.weight"], self.eps)
        rope = Rope(c, d, 1e6 if self.kind == "mixtral" else 1e4)
        q, k = (rope.turn(t, np.arange(n), False) for t in (q, k))
        window = c.get("sliding_window") or 0
        if self.kind in ("qwen2", "qwen3"):
            window = window if c.get("use_sliding_window") and layer >= c.get("max_window_layers", 28) else 0
        if self.kind == "qwen3_moe":
            window = window if c.get("use_sliding_window") else 0
        seen, out = self.seen(n, window), []
        for i in range(heads):
            g = i // (heads // kv)
            s = np.where(seen, q[:, i] @ k[:, g].T / math.sqrt(d), -np.inf)
            out.append(softmax(s) @ v[:, g])
        return self.lin(np.concatenate(out, 1), a + "o_proj")

    def latent(self, p, h):
        c, n, a = self.c, len(h), p + "self_attn."
        heads, plain, turned = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"]
        rank, value = c["kv_lora_rank"], c["v_head_dim"]
        if c.get("q_lora_rank"):
            q = self.lin(rms(self.lin(h, a + "q_a_proj"), self.w[a + "q_a_layernorm.weight"], 1e-6), a + "q_b_proj")
        else:
            q = self.lin(h, a + "q_proj")
        q = q.reshape(n, heads, plain + turned)
        kv = self.lin(h, a + "kv_a_proj_with_mqa")
        lat, key = rms(kv[:, :rank], self.w[a + "kv_a_layernorm.weight"], 1e-6), kv[:, rank:]
        rope = Rope(c, turned, 1e4)
        at = np.arange(n)
        q_pe, k_pe = rope.turn(q[..., plain:], at, True), rope.turn(key[:, None], at, True)[:, 0]
        scale = (plain + turned) ** -0.5 * rope.score
        up = self.w[a + "kv_b_proj.weight"].reshape(heads, plain + value, rank)
        seen, out = self.seen(n, 0), []
        for i in range(heads):
            uk, uv = up[i, :plain], up[i, plain:]
            if self.absorbed:
                s = (q[:, i, :plain] @ uk) @ lat.T + q_pe[:, i] @ k_pe.T
                out.append(softmax(np.where(seen, s * scale, -np.inf)) @ lat @ uv.T)
            else:
                k = np.concatenate([lat @ uk.T, k_pe], 1)
                s = np.concatenate([q[:, i, :plain], q_pe[:, i]], 1) @ k.T
                out.append(softmax(np.where(seen, s * scale, -np.inf)) @ (lat @ uv.T))
        return self.lin(np.concatenate(out, 1), a + "o_proj")

    def gated(self, x, p, names=("gate_proj", "up_proj", "down_proj")):
        g, u, d = (p + s for s in names)
        return self.lin(silu(self.lin(x, g)) * self.lin(x, u), d)

    def mlp(self, p, x, layer):
        c = self.c
        if self.kind == "mixtral":
            return self.experts(x, softmax(x @ self.w[p + "block_sparse_moe.gate.weight"].T), p + "block_sparse_moe.experts.",
                                c["num_experts_per_tok"], True, 1.0, ("w1", "w3", "w2"))
        p += "mlp."
        if p + "gate.weight" not in self.w:
            return self.gated(x, p)
        s = x @ self.w[p + "gate.weight"].T
        if self.kind == "deepseek_v3":
            y = self.sigmoid(x, s, p)
        elif self.kind == "deepseek_v2":
            y = self.grouped(x, softmax(s), p)
        else:
            y = self.experts(x, softmax(s), p + "experts.", c["num_experts_per_tok"], c.get("norm_topk_prob"))
        return y + self.gated(x, p + "shared_experts.") if c.get("n_shared_experts") else y

    def sigmoid(self, x, s, p):
        c = self.c
        s = 1 / (1 + np.exp(-s))
        pick = s + self.w[p + "gate.e_score_correction_bias"]
        groups = pick.reshape(len(x), c["n_group"], -1)
        best = np.sort(groups, -1)[..., -2:].sum(-1)
        pick = self.keep(pick, best, c["topk_group"], -np.inf)
        return self.experts(x, s, p + "experts.", c["num_experts_per_tok"], c["norm_topk_prob"], c["routed_scaling_factor"], pick=pick)

    def grouped(self, x, s, p):
        c = self.c
        pick = s
        if c["topk_method"] == "group_limited_greedy":
            best = s.reshape(len(x), c["n_group"], -1).max(-1)
            pick = self.keep(s, best, c["topk_group"], 0.0)
        return self.experts(x, s, p + "experts.", c["num_experts_per_tok"], False, c["routed_scaling_factor"], pick=pick)

    def keep(self, s, best, count, other):
        out = np.full_like(s, other)
        size = s.shape[1] // best.shape[1]
        for row in range(len(s)):
            for g in np.argsort(-best[row], kind="stable")[:count]:
                out[row, g * size : (g + 1) * size] = s[row, g * size : (g + 1) * size]
        return out

    def experts(self, x, s, p, count, renorm, factor=1.0, names=("gate_proj", "up_proj", "down_proj"), pick=None):
        pick, y = s if pick is None else pick, np.zeros_like(x)
        for row in range(len(x)):
            chosen = np.argsort(-pick[row], kind="stable")[:count]
            weights = s[row, chosen] / (s[row, chosen].sum() if renorm else 1)
            for e, weight in zip(chosen, weights * factor):
                y[row] += weight * self.gated(x[row], f"{p}{e}.", names)
        return y


class Encoder:
    """BERT and RoBERTa: features of every token and of the pooled first one, sequence by sequence."""

    def __init__(self, config, weights):
        self.c, self.w = config, {k: v.astype(np.float64) for k, v in weights.items()}

    def lin(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["layer_norm_eps"]) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def run(self, ids, mask, types):
        c, w, at = self.c, self.w, np.arange(len(ids))
        if c["model_type"] == "roberta":
            real = ids != c["pad_token_id"]
            at = np.cumsum(real) * real + c["pad_token_id"]
        e = "embeddings."
        x = w[e + "word_embeddings.weight"][ids] + w[e + "token_type_embeddings.weight"][types] + w[e + "position_embeddings.weight"][at]
        x = self.norm(x, e + "LayerNorm")
        heads = c["num_attention_heads"]
        for i in range(c["num_hidden_layers"]):
            p = f"encoder.layer.{i}."
            q, k, v = (self.lin(x, p + "attention.self." + s).reshape(len(ids), heads, -1) for s in ("query", "key", "value"))
            out = []
            for h in range(heads):
                s = q[:, h] @ k[:, h].T / math.sqrt(q.shape[2])
                out.append(softmax(np.where(mask[None] != 0, s, -np.inf)) @ v[:, h])
            y = self.lin(np.concatenate(out, 1), p + "attention.output.dense")
            x = self.norm(x + y, p + "attention.output.LayerNorm")
            y = self.lin(x, p + "intermediate.dense")
            y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
            x = self.norm(x + self.lin(y, p + "output.dense"), p + "output.LayerNorm")
        return x, np.tanh(self.lin(x[:1], "pooler.dense"))


def main():
    """Compares both tables of every case with what is computed here from its config.json and its weights."""
    import json
    import pathlib

    import weights

    for folder in sorted(pathlib.Path(__file__).parent.glob("cases/*")):
        config, case = (json.loads((folder / f"{f}.json").read_text()) for f in ("config", "case"))
        w = weights.values(case["tensors"])
        table = np.fromfile(folder / "logits.bin", "<f4").astype(np.float64)
        if "rows" in case:
            ids, mask, types = (np.array(case[k]).reshape(2, -1) for k in ("prompt", "mask", "types"))
            all_ = [Encoder(config, w).run(*row) for row in zip(ids, mask, types)]
            y = np.concatenate([a[0] for a in all_] + [a[1] for a in all_])
        else:
            y = Oracle(config, w).logits(case["prompt"])
        theirs, ours = table.reshape(2, *y.shape)
        print(f"{folder.name}: transformers off by {np.abs(theirs - y).max():.2e}, table off by {np.abs(ours - y).max():.2e}")
        assert np.abs(ours - y).max() < 1e-6 and abs(np.abs(theirs - y).max() - case["error"]) < 1e-6, folder.name


if __name__ == "__main__":
    main()
