"""Goldens of tokenizers, chat templates and sampling, from Python's tokenizers and transformers.

    python3 tests/language/text.py

writes tests/language/text/*.json. Needs tokenizers, transformers and torch; the goldens are committed, so
nothing else does.
"""

import json
import os

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "text")
CORPUS = [
    "The river carries the boat, and the boat carries the river's name. The old ferryman counts 12345 coins.",
    "Où est le café ? Der Fluß fließt über die Brücke. Größe und Maß.",
    "机器学习模型在河边编译。 日本語のテキスト。",
    "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n",
    "We've said it's what they'll do; I'm sure you'd agree.",
]
TEXTS = CORPUS + [
    "",
    " ",
    "   leading and trailing   ",
    "tabs\tand\nlines\r\n\n\nmany",
    "👩‍👩‍👧 and 🇩🇪 and é́ (combining) ​zero width",
    "IT'S 1 22 333 4444 55555 666666",
    "<s> is <|end|> special <|end|>here",
    "unseen: ŧħŋ ԱԲԳ 𝔘𝔫𝔦",
    "a" * 70,
]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def byte_level(pattern):
    t = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(__import__("tokenizers").Regex(pattern), "isolated")
    t.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    t.train_from_iterator(CORPUS, trainer)
    t.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return t


def gpt2():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    return t


def sentencepiece():
    """BPE with byte fallback, as tokenizers of Llama 2 and Mistral are converted."""
    plain = Tokenizer(models.BPE(unk_token="<unk>"))
    plain.normalizer = normalizers.Replace(" ", "▁")
    octets = [f"<0x{i:02X}>" for i in range(256)]
    plain.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=440, special_tokens=["<unk>", "<s>", "</s>"] + octets)
    )
    state = json.loads(plain.to_str())
    state["model"]["byte_fallback"] = True
    state["model"]["fuse_unk"] = True
    state["added_tokens"] = state["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(state))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    t.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def unigram():
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>", "</s>"], unk_token="<unk>"))
    return t


def wordpiece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return t


def tokenizer_goldens():
    kinds = {
        "qwen": byte_level(QWEN),
        "llama3": byte_level(LLAMA3),
        "gpt2": gpt2(),
        "sentencepiece": sentencepiece(),
        "unigram": unigram(),
        "wordpiece": wordpiece(),
    }
    for name, t in kinds.items():
        cases = []
        for text in TEXTS:
            plain = t.encode(text, add_special_tokens=False).ids
            cases.append(
                {
                    "text": text,
                    "special": t.encode(text, add_special_tokens=True).ids,
                    "plain": plain,
                    "decoded": t.decode(plain, skip_special_tokens=True),
                }
            )
        yield name, {"tokenizer": json.loads(t.to_str()), "cases": cases}


TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "qwen": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and "
    "system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' "
    "+ content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "deepseek": "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = "
    "namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' "
    "and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}"
    "{%- endif %}{%- endfor -%}{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "lines": """
{% for m in messages %}
    {% if m.role == 'user' %}
  U: {{ m.content }}
    {%- else -%}
        A: {{ m | tojson }} {{ {'a': [1, 2.5, true, none], 'b': {}} | tojson(indent=4) }}
    {% endif %}
{# a comment #}
{% endfor %}
{{ messages | map(attribute='role') | join(',') }} {{ 'x' if messages|length > 2 else 'y' }}
""",
}
CONVERSATIONS = [
    [("user", "Hello, river! ")],
    [("system", "Be brief."), ("user", "  Why?  "), ("assistant", "<think>\nhm\n</think>\n\nBecause \"é\" <b>."), ("user", "And?")],
    [("system", "S"), ("user", "A")],
    [("assistant", "first"), ("user", "{{ not a template }}")],
]


def template_goldens():
    from transformers import PreTrainedTokenizerFast

    t = PreTrainedTokenizerFast(tokenizer_object=gpt2(), bos_token="<s>", eos_token="</s>")
    out = []
    for name, source in TEMPLATES.items():
        for c in CONVERSATIONS:
            messages = [{"role": r, "content": x} for r, x in c]
            for answer in (False, True):
                try:
                    want = t.apply_chat_template(
                        messages, chat_template=source, tokenize=False, add_generation_prompt=answer
                    )
                    key = "prompt"
                except Exception as e:  # what the template itself raises
                    want, key = str(e), "error"
                out.append({"name": name, "template": source, "messages": messages, "answer": answer, key: want})
    return out


SETTINGS = [
    dict(temperature=0.7),
    dict(top_k=5),
    dict(top_p=0.8),
    dict(min_p=0.1),
    dict(repetition_penalty=1.3),
    dict(temperature=1.5, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.1),
    dict(temperature=0.2, top_p=0.5),
    dict(top_k=1),
]


def sampling_goldens():
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    g = torch.Generator().manual_seed(5)
    out = []
    for s in SETTINGS:
        logits = torch.randn(1, 40, generator=g) * 2
        history = torch.randint(0, 40, (1, 12), generator=g)
        p = LogitsProcessorList()
        if "repetition_penalty" in s:
            p.append(RepetitionPenaltyLogitsProcessor(s["repetition_penalty"]))
        if "temperature" in s:
            p.append(TemperatureLogitsWarper(s["temperature"]))
        if "top_k" in s:
            p.append(TopKLogitsWarper(s["top_k"]))
        if "top_p" in s:
            p.append(TopPLogitsWarper(s["top_p"]))
        if "min_p" in s:
            p.append(MinPLogitsWarper(s["min_p"]))
        probabilities = p(history, logits.clone()).softmax(-1)[0].tolist()
        out.append({"settings": s, "logits": logits[0].tolist(), "history": history[0].tolist(), "p": probabilities})
    return out


def write(name, value):
    with open(os.path.join(HERE, f"{name}.json"), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def main():
    os.makedirs(HERE, exist_ok=True)
    for name, value in tokenizer_goldens():
        write(f"tokenizer_{name}", value)
    write("templates", template_goldens())
    write("sampling", sampling_goldens())
    print("transformers", transformers.__version__)


if __name__ == "__main__":
    main()
