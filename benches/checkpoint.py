"""Memory: compiling a large sharded checkpoint, and running a mixture of experts.

    python3 checkpoint.py SILURE FOLDER [--gigabytes 20] [--precision int8] [--experts 64 --lib libsilure_capi.so]

Writes a Llama of about that size in bf16 as shards of 4 GB into FOLDER, compiles it and prints how many bytes
were read and written, the time and the peak of resident memory. With `--experts` it is a Qwen3-MoE of which a token
takes 4 experts a layer; then one token runs, and the pages of the engine that are resident are compared with the
weights it needs. Needs Linux. The shards have holes: every page but one of 64 is not stored and reads as zeros, so
FOLDER needs room for the engine alone.
"""

import argparse
import ctypes
import json
import os
import random
import struct
import time

HIDDEN, INNER, HEADS, GROUPS, VOCAB = 4096, 14336, 32, 8, 32000
HEAD = HIDDEN // HEADS
EXPERT, CHOSEN = 1024, 4
SHARD = 4 << 30
PAGE = 4096


def tensors(layers, experts):
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (HIDDEN,)
        yield p + "post_attention_layernorm.weight", (HIDDEN,)
        yield p + "self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield p + "self_attn.k_proj.weight", (GROUPS * HEAD, HIDDEN)
        yield p + "self_attn.v_proj.weight", (GROUPS * HEAD, HIDDEN)
        yield p + "self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        if experts:
            yield p + "self_attn.q_norm.weight", (HEAD,)
            yield p + "self_attn.k_norm.weight", (HEAD,)
            yield p + "mlp.gate.weight", (experts, HIDDEN)
        for e in range(experts) or [None]:
            at, inner = (p + "mlp.", INNER) if e is None else (f"{p}mlp.experts.{e}.", EXPERT)
            yield at + "gate_proj.weight", (inner, HIDDEN)
            yield at + "up_proj.weight", (inner, HIDDEN)
            yield at + "down_proj.weight", (HIDDEN, inner)
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


def write(folder, gigabytes, experts):
    os.makedirs(folder, exist_ok=True)
    per_layer = sum(size(s) for n, s in tensors(1, experts) if ".layers." in n)
    rest = sum(size(s) for n, s in tensors(0, experts))
    layers = max(1, round((gigabytes * 1e9 - rest) / per_layer))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "vocab_size": VOCAB,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "hidden_act": "silu",
    }
    if experts:
        config |= {
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": HEAD,
            "num_experts": experts, "num_experts_per_tok": CHOSEN, "moe_intermediate_size": EXPERT,
            "norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1,
        }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    shards, room = [[]], SHARD
    for t in tensors(layers, experts):
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


def resident():
    """Bytes of this process that are pages of files."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("RssFile"))


def one_token(engine, lib, layers, experts):
    """Runs one token and says how much of the engine's weights was needed, and how much became resident."""
    from peers.decoder import Silure

    # Its own pages do not count.
    ctypes.CDLL(lib)
    before = resident()
    Silure(engine, lib, 2).step([17], 0, 64, VOCAB)
    came = resident() - before
    routed = layers * experts * 3 * EXPERT * HIDDEN * 2
    table = VOCAB * HIDDEN * 2
    needed = os.path.getsize(engine) - table - routed + routed * CHOSEN // experts
    print(f"needed   {needed / 1e6:.0f} MB of {os.path.getsize(engine) / 1e6:.0f} MB: {CHOSEN} experts of {experts}")
    print(f"resident {came / 1e6:.0f} MB, {came / needed:.2f} of it")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("silure")
    p.add_argument("folder")
    p.add_argument("--gigabytes", type=float, default=20)
    p.add_argument("--precision", default="int8", help="as `silure compile` takes it; `stored` for none")
    p.add_argument("--experts", type=int, default=0)
    p.add_argument("--lib", default="target/debug/libsilure_capi.so")
    a = p.parse_args()
    if a.experts and a.precision != "stored":
        p.error("--experts goes with --precision stored, whose sizes are known here")
    total, layers, shards = write(a.folder, a.gigabytes, a.experts)
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
    if a.experts:
        one_token(engine, a.lib, layers, a.experts)
    os.remove(engine)


main()
