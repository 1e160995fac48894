"""Small models to start fuzzing from: python fuzz/seeds.py FOLDER writes FOLDER/gguf and FOLDER/safetensors.

Llamas of one layer: GGUF files with rows of floats or of blocks, with and without a tokenizer; files of weights
for the configuration of fuzz_targets/safetensors.rs, behind 16 bits that say how many zeros follow.
"""
import json
import pathlib
import struct
import sys

LAYER = "blk.0."


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def value(key, kind, data):
    return text(key) + struct.pack("<I", kind) + data


def words(key, all):
    return value(key, 9, struct.pack("<IQ", 8, len(all)) + b"".join(map(text, all)))


def gguf(hidden, inner, vocab, kind, extra=(), version=3):
    """`kind`: the number of the matrices' type, elements of a block, bytes of a block."""
    number = lambda key, n: value(key, 4, struct.pack("<I", n))
    real = lambda key, v: value(key, 6, struct.pack("<f", v))
    values = [value("general.architecture", 8, text("llama")), number("llama.embedding_length", hidden),
              number("llama.block_count", 1), number("llama.feed_forward_length", inner), number("llama.context_length", 64),
              number("llama.attention.head_count", 2), number("llama.attention.head_count_kv", 1),
              real("llama.attention.layer_norm_rms_epsilon", 1e-5), real("llama.rope.freq_base", 10000.0), *extra]
    shapes = {"token_embd": (vocab, hidden), "output_norm": (hidden,), LAYER + "attn_norm": (hidden,), LAYER + "attn_q": (hidden, hidden),
              LAYER + "attn_k": (hidden // 2, hidden), LAYER + "attn_v": (hidden // 2, hidden), LAYER + "attn_output": (hidden, hidden),
              LAYER + "ffn_norm": (hidden,), LAYER + "ffn_gate": (inner, hidden), LAYER + "ffn_up": (inner, hidden),
              LAYER + "ffn_down": (hidden, inner)}
    heads, data = b"", b""
    for name, shape in shapes.items():
        matrix = len(shape) > 1
        number_, block, size = kind if matrix else (0, 1, 4)
        count = shape[0] * (shape[1] if matrix else 1)
        data += b"\0" * (-len(data) % 32)
        heads += text(name + ".weight") + struct.pack("<I", len(shape))
        heads += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", number_, len(data))
        data += bytes(i % 61 for i in range(count // block * size))
    head = b"GGUF" + struct.pack("<IQQ", version, len(shapes), len(values)) + b"".join(values) + heads
    return head + b"\0" * (-len(head) % 32) + data


TOKENIZER = [value("tokenizer.ggml.model", 8, text("gpt2")), value("tokenizer.ggml.pre", 8, text("qwen2")),
             words("tokenizer.ggml.tokens", ["a", "b", "ab", "<|end|>"]), words("tokenizer.ggml.merges", ["a b"]),
             value("tokenizer.ggml.token_type", 9, struct.pack("<IQ4i", 5, 4, 1, 1, 1, 3)),
             value("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 3)),
             value("tokenizer.chat_template", 8, text("{{ messages }}"))]
PIECES = [value("tokenizer.ggml.model", 8, text("llama")), words("tokenizer.ggml.tokens", ["<unk>", "a", "b", "ab"]),
          value("tokenizer.ggml.scores", 9, struct.pack("<IQ4f", 6, 4, 0, -1, -2, -3)),
          value("tokenizer.ggml.token_type", 9, struct.pack("<IQ4i", 5, 4, 2, 1, 1, 1))]


def safetensors(dtype, width, order=1, spare="", metadata=False):
    """A file whose tensors are of one type; without its elements, which are zeros."""
    layer = "model.layers.0."
    shapes = {"model.embed_tokens": (4, 4), "model.norm": (4,), layer + "input_layernorm": (4,), layer + "post_attention_layernorm": (4,),
              **{layer + f"self_attn.{p}_proj": (4, 4) for p in "qkvo"}, **{layer + f"mlp.{p}_proj": (4, 4) for p in ("gate", "up", "down")}}
    header, at = {"__metadata__": {"format": "pt"}} if metadata else {}, 0
    for name, shape in list(shapes.items())[::order]:
        size = width * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name + ".weight"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header, separators=(",", ":")) + spare
    return struct.pack("<HQ", at, len(head)) + head.encode()


def main():
    root = pathlib.Path(sys.argv[1])
    files = {
        "gguf/f32": gguf(4, 4, 4, (0, 1, 4)),
        "gguf/f16-tokens": gguf(4, 4, 4, (1, 1, 2), TOKENIZER),
        "gguf/bf16-pieces": gguf(4, 4, 4, (30, 1, 2), PIECES),
        "gguf/version2": gguf(4, 8, 3, (0, 1, 4), version=2),
        "gguf/q8_0": gguf(32, 32, 2, (8, 32, 34)),
        "gguf/q4_0": gguf(32, 32, 2, (2, 32, 18)),
        "gguf/q4_1": gguf(32, 32, 2, (3, 32, 20)),
        "safetensors/f32": safetensors("F32", 4),
        "safetensors/f16": safetensors("F16", 2, -1),
        "safetensors/bf16": safetensors("BF16", 2, spare="  "),
        "safetensors/metadata": safetensors("F32", 4, metadata=True),
        "safetensors/f8": safetensors("F8_E4M3", 1),
    }
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


main()
