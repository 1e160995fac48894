"""Writes cases/: config.json, the tensors a checkpoint has, logits and greedy tokens, of tiny models of every family.

    python3 tests/language/make.py [NAME …]     (with transformers >= 5.23, torch, numpy, safetensors)

Weights are those of weights.py, so none are kept. For each case the answers of transformers in f32 and of oracle.py in f64 are
written: case.json has the prompt, the greedy tokens and the largest difference of the two, logits.bin both tables of logits
as f32 [prompt, vocab], transformers' first.
"""

import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

import weights
from oracle import Encoder, Oracle

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT, TOKENS = 20, 64
SMALL = dict(vocab_size=160, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128, bos_token_id=1,
             eos_token_id=2, pad_token_id=None)
DENSE = dict(SMALL, num_key_value_heads=2, intermediate_size=80)
YARN = dict(type="yarn", factor=40, original_max_position_embeddings=64, beta_fast=32, beta_slow=1)
LATENT = dict(SMALL, hidden_size=64, num_key_value_heads=4, intermediate_size=96, moe_intermediate_size=24, num_hidden_layers=3,
              first_k_dense_replace=1, kv_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12, max_position_embeddings=2560)
CASES = {
    "llama": ("LlamaForCausalLM", dict(DENSE, model_type="llama", rope_theta=10000.0)),
    "llama-linear": ("LlamaForCausalLM", dict(DENSE, model_type="llama", attention_bias=True, mlp_bias=True, rope_theta=10000,
                     rope_scaling=dict(type="linear", factor=4))),
    "llama-dynamic": ("LlamaForCausalLM", dict(DENSE, model_type="llama", max_position_embeddings=48, rope_theta=10000.0,
                      rope_scaling=dict(rope_type="dynamic", factor=2.0))),
    "llama3": ("LlamaForCausalLM", dict(DENSE, model_type="llama", tie_word_embeddings=True, rope_parameters=dict(rope_type="llama3",
               rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))),
    "llama-yarn": ("LlamaForCausalLM", dict(DENSE, model_type="llama", rope_theta=10000.0, max_position_embeddings=256,
                   rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64))),
    "mistral": ("MistralForCausalLM", dict(DENSE, model_type="mistral", head_dim=16, sliding_window=9, rope_theta=10000.0)),
    "qwen2": ("Qwen2ForCausalLM", dict(DENSE, model_type="qwen2", tie_word_embeddings=True, rope_theta=1000000.0, use_sliding_window=True,
              sliding_window=7, max_window_layers=1)),
    "qwen2-bf16": ("Qwen2ForCausalLM", dict(DENSE, model_type="qwen2", rope_theta=1000000.0, use_sliding_window=False, sliding_window=None)),
    "qwen3": ("Qwen3ForCausalLM", dict(DENSE, model_type="qwen3", head_dim=20, rope_theta=1000000)),
    "mixtral": ("MixtralForCausalLM", dict(DENSE, model_type="mixtral", num_local_experts=6, num_experts_per_tok=2, sliding_window=None,
                rope_theta=1000000.0)),
    "qwen3-moe": ("Qwen3MoeForCausalLM", dict(DENSE, model_type="qwen3_moe", head_dim=16, num_experts=8, num_experts_per_tok=3,
                  moe_intermediate_size=40, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[0], rope_theta=1000000.0,
                  use_sliding_window=False, sliding_window=None)),
    "deepseek-v2-lite": ("DeepseekV2ForCausalLM", dict(LATENT, model_type="deepseek_v2", q_lora_rank=None, n_routed_experts=8, n_shared_experts=2,
                         num_experts_per_tok=3, n_group=None, topk_group=None, topk_method="greedy", norm_topk_prob=False,
                         routed_scaling_factor=1.0, scoring_func="softmax", rope_theta=10000, rope_scaling=dict(YARN, mscale=0.707, mscale_all_dim=0.707))),
    "deepseek-v2": ("DeepseekV2ForCausalLM", dict(LATENT, model_type="deepseek_v2", q_lora_rank=40, n_routed_experts=8, n_shared_experts=2,
                    num_experts_per_tok=3, n_group=4, topk_group=2, topk_method="group_limited_greedy", norm_topk_prob=False,
                    routed_scaling_factor=16.0, scoring_func="softmax", rope_theta=10000, rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=1.0))),
    "deepseek-v3": ("DeepseekV3ForCausalLM", dict(LATENT, model_type="deepseek_v3", q_lora_rank=40, n_routed_experts=16, n_shared_experts=1,
                    num_experts_per_tok=4, n_group=4, topk_group=2, topk_method="noaux_tc", norm_topk_prob=True, routed_scaling_factor=2.5,
                    scoring_func="sigmoid", rope_theta=10000, rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=1.0), num_nextn_predict_layers=1)),
    "deepseek-v3-fp8": ("DeepseekV3ForCausalLM", dict(LATENT, model_type="deepseek_v3", hidden_size=160, intermediate_size=144, q_lora_rank=136,
                        kv_lora_rank=24, num_hidden_layers=2, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=2, topk_group=1,
                        topk_method="noaux_tc", norm_topk_prob=True, routed_scaling_factor=2.5, scoring_func="sigmoid", rope_theta=10000,
                        rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=1.0))),
}
CASES["llama-dynamic-long"] = CASES["llama-dynamic"]
# Tokens of the prompt, where it has to be longer than what the model was trained for.
LONG = {"llama-dynamic-long": 60}
FP8 = {"deepseek-v3-fp8": "F32", "deepseek-v3-ue8m0": "F8_E8M0"}
CASES["deepseek-v3-ue8m0"] = CASES["deepseek-v3-fp8"]
ENCODER = dict(vocab_size=120, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, hidden_act="gelu",
               max_position_embeddings=40)
ENCODERS = {
    "bert": ("BertModel", dict(ENCODER, model_type="bert", type_vocab_size=2, layer_norm_eps=1e-12, pad_token_id=0)),
    "roberta": ("RobertaModel", dict(ENCODER, model_type="roberta", type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)),
}


def tensors(name, config, auto=AutoModelForCausalLM):
    """Names, types and shapes of the checkpoint, as transformers publishes it."""
    model = auto.from_config(AutoConfig.for_model(**config))
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d)
        shapes = {k: list(v.shape) for k, v in load_file(f"{d}/model.safetensors").items()}
    out = []
    for k in sorted(shapes):
        dtype = "BF16" if "bf16" in name else "F32"
        if name in FP8 and k.endswith("proj.weight") or name in FP8 and "kv_a_proj" in k and k.endswith("weight"):
            dtype = "F8_E4M3"
            out.append([k + "_scale_inv", FP8[name], [-(-n // 128) for n in shapes[k]]])
        out.append([k, dtype, shapes[k]])
    return sorted(out)


def case(name):
    arch, config = CASES[name]
    config = {"architectures": [arch], **config}
    folder = f"{HERE}/cases/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    listed = tensors(name, {k: v for k, v in config.items() if k != "architectures"})
    w = weights.values(listed)
    with tempfile.TemporaryDirectory() as d:
        weights.save(f"{d}/model.safetensors", [(n, "F32", v.shape, v.tobytes()) for n, v in w.items()])
        json.dump(config, open(f"{d}/config.json", "w"))
        kw = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
        model = AutoModelForCausalLM.from_pretrained(d, **kw).eval()
    size = LONG.get(name, PROMPT)
    prompt = [int(x) for x in weights.bits(name + " prompt", size) % np.uint64(config["vocab_size"] - 3) + np.uint64(3)]
    with torch.no_grad():
        got = model(torch.tensor([prompt])).logits[0].numpy()
        out = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, eos_token_id=None,
                             return_dict_in_generate=True, output_logits=True)
    tokens = out.sequences[0, size:].tolist()
    top = torch.stack(out.logits)[:, 0].topk(2).values
    margin = float((top[:, 0] - top[:, 1]).min())
    truth = Oracle(config, w).logits(prompt)
    other = Oracle(config, w, absorbed=False).logits(prompt)
    whole = Oracle(config, w).logits(prompt + tokens)[size - 1 : -1].argmax(-1).tolist()
    error = float(np.abs(got - truth).max())
    print(f"{name}: logits {truth.std():.3f} std, transformers off by {error:.2e}, least margin {margin:.2e}, naive and absorbed "
          f"{np.abs(truth - other).max():.1e}, oracle's tokens {'equal' if whole == tokens else 'differ from ' + str([a == b for a, b in zip(whole, tokens)].index(False))}",
          flush=True)
    if name in FP8:
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    json.dump(config, open(f"{folder}/config.json", "w"), indent=1)
    about = {"made_with": f"transformers {transformers.__version__}", "prompt": prompt, "tokens": tokens, "error": error, "tensors": listed}
    with open(f"{folder}/case.json", "w") as f:
        rows = ",\n".join(json.dumps(t) for t in about.pop("tensors"))
        f.write(json.dumps(about)[:-1] + ', "tensors": [\n' + rows + "]}\n")
    np.concatenate([got, truth.astype(np.float32)]).astype("<f4").tofile(f"{folder}/logits.bin")


def encoder(name):
    """Two sequences, the second shorter: rows are the features of all tokens, then the pooled ones."""
    arch, config = ENCODERS[name]
    config = {"architectures": [arch], **config}
    folder = f"{HERE}/cases/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    listed = tensors(name, {k: v for k, v in config.items() if k != "architectures"}, AutoModel)
    w = weights.values(listed)
    with tempfile.TemporaryDirectory() as d:
        weights.save(f"{d}/model.safetensors", [(n, "F32", v.shape, v.tobytes()) for n, v in w.items()])
        json.dump(config, open(f"{d}/config.json", "w"))
        model = AutoModel.from_pretrained(d, dtype=torch.float32, attn_implementation="eager").eval()
    ids = (weights.bits(name + " ids", 2 * 12) % np.uint64(config["vocab_size"] - 4) + np.uint64(4)).astype(np.int64).reshape(2, 12)
    mask = np.ones_like(ids)
    ids[1, 8:], mask[1, 8:] = config["pad_token_id"], 0
    types = (weights.bits(name + " types", 24) % np.uint64(config["type_vocab_size"])).astype(np.int64).reshape(2, 12)
    with torch.no_grad():
        y = model(**{k: torch.tensor(v) for k, v in dict(input_ids=ids, attention_mask=mask, token_type_ids=types).items()})
    got = np.concatenate([y.last_hidden_state.numpy().reshape(24, -1), y.pooler_output.numpy()])
    truth = [Encoder(config, w).run(*row) for row in zip(ids, mask, types)]
    truth = np.concatenate([t[0] for t in truth] + [t[1] for t in truth])
    error = float(np.abs(got - truth).max())
    print(f"{name}: features {truth.std():.3f} std, transformers off by {error:.2e}", flush=True)
    json.dump(config, open(f"{folder}/config.json", "w"), indent=1)
    about = {"made_with": f"transformers {transformers.__version__}", "prompt": ids.ravel().tolist(), "tokens": [], "rows": len(got),
             "mask": mask.ravel().tolist(), "types": types.ravel().tolist(), "error": error}
    with open(f"{folder}/case.json", "w") as f:
        rows = ",\n".join(json.dumps(t) for t in listed)
        f.write(json.dumps(about)[:-1] + ', "tensors": [\n' + rows + "]}\n")
    np.concatenate([got, truth.astype(np.float32)]).astype("<f4").tofile(f"{folder}/logits.bin")


if __name__ == "__main__":
    for n in sys.argv[1:] or [*CASES, *ENCODERS]:
        (encoder if n in ENCODERS else case)(n)
