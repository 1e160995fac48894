"""Peak memory and time of compiling a large sharded checkpoint.

    python3 checkpoint.py SILURE FOLDER [--gigabytes 20] [--precision int8]

Writes a Llama of about that size in bf16 as shards of 4 GB into FOLDER, compiles it and prints how many bytes
were read and written, the time and the peak of resident memory. Needs Linux. The shards have holes: every page
but one of 64 is not stored and reads as zeros, so FOLDER needs room for the engine alone.
"""

import argparse
import json
import os
import random
import struct
import time

HIDDEN, INNER, HEADS, GROUPS, VOCAB = 4096, 14336, 32, 8, 32000
SHARD = 4 << 30
PAGE = 4096


def tensors(layers):
    head = HIDDEN // HEADS
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (HIDDEN,)
        yield p + "post_attention_layernorm.weight", (HIDDEN,)
        yield p + "self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield p + "self_attn.k_proj.weight", (GROUPS * head, HIDDEN)
        yield p + "self_attn.v_proj.weight", (GROUPS * head, HIDDEN)
        yield p + "self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        yield p + "mlp.gate_proj.weight", (INNER, HIDDEN)
        yield p + "mlp.up_proj.weight", (INNER, HIDDEN)
        yield p + "mlp.down_proj.weight", (HIDDEN, INNER)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def size(shape):
    n = 2
    for d in shape:
        n *= d
    return n


def write_shard(path, named):
    header, at = {}, 0
    for name, shape in named:
        end = at + size(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(path)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        start = f.tell()
        f.truncate(start + at)
        for page in range(0, at, 64 * PAGE):
            # Numbers of magnitude 2^-7 to 2^-6, either sign.
            values = [0x3C00 | rng.getrandbits(7) | rng.getrandbits(1) << 15 for _ in range(256)]
            f.seek(start + page)
            f.write(struct.pack("<256H", *values)[: at - page])
    return at


def write(folder, gigabytes):
    os.makedirs(folder, exist_ok=True)
    per_layer = sum(size(s) for n, s in tensors(1) if ".layers." in n)
    rest = sum(size(s) for n, s in tensors(0))
    layers = max(1, round((gigabytes * 1e9 - rest) / per_layer))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "vocab_size": VOCAB,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "hidden_act": "silu",
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    shards, room = [[]], SHARD
    for t in tensors(layers):
        if size(t[1]) > room:
            shards.append([])
            room = SHARD
        shards[-1].append(t)
        room -= size(t[1])
    total, where = 0, {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        total += write_shard(os.path.join(folder, name), shard)
        where.update({t: name for t, _ in shard})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, f)
    return total, layers, len(shards)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("silure")
    p.add_argument("folder")
    p.add_argument("--gigabytes", type=float, default=20)
    p.add_argument("--precision", default="int8", help="as `silure compile` takes it; `stored` for none")
    a = p.parse_args()
    total, layers, shards = write(a.folder, a.gigabytes)
    engine = os.path.join(a.folder, "model.silure")
    command = [a.silure, "compile", a.folder, "-o", engine]
    if a.precision != "stored":
        command += ["--precision", a.precision]
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {os.waitstatus_to_exitcode(status)}")
    print(f"read     {total / 1e9:.1f} GB in {shards} shards, {layers} layers")
    print(f"written  {os.path.getsize(engine) / 1e9:.1f} GB, {a.precision}")
    print(f"time     {time.monotonic() - began:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of processor")
    print(f"peak     {usage.ru_maxrss / 2**20:.2f} GiB resident")
    os.remove(engine)


main()
