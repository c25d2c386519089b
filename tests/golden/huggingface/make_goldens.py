#!/usr/bin/env python3
"""Writes the model folders beside this file: tiny models with random weights in the form in which
public ones are exchanged, and what they answer, computed here in plain PyTorch from the families'
public definitions. Needs python3-torch; run it again only to add a family.

  tests/golden/huggingface/make_goldens.py [FOLDER]

A folder holds config.json and model.safetensors (or shards with an index), and expected.safetensors
with the inputs (tokens, mask, token_types or pixels) and the outputs:
  logits   per text, token or image     hidden   last hidden states     pooled   a row per text
"""
import json
import math
import pathlib
import shutil
import sys

import torch
import torch.nn.functional as F

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32",
          torch.int64: "I64", torch.bool: "BOOL"}


def raw(tensor):
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().tobytes()
    return tensor.numpy().tobytes()


def write_safetensors(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    # By falling size of an element, so that each tensor is aligned.
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        bytes_ = raw(tensors[name])
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_model(name, config, weights, expected, dtype=torch.float32, shards=1):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    stored = {n: (t.to(dtype) if t.is_floating_point() else t) for n, t in weights.items()}
    if shards == 1:
        write_safetensors(folder / "model.safetensors", stored)
    else:
        names, index = sorted(stored), {}
        for shard in range(shards):
            file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
            part = {n: stored[n] for n in names[shard::shards]}
            write_safetensors(folder / file, part)
            index.update({n: file for n in part})
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 0}, "weight_map": index}, indent=1) + "\n")
    write_safetensors(folder / "expected.safetensors", expected)


class Weights:
    """Random weights by name; rounded to `dtype`, as they are stored."""

    def __init__(self, seed, dtype=torch.float32):
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.tensors = {}

    def normal(self, name, *shape, scale=0.5, mean=0.0):
        if name not in self.tensors:
            value = mean + scale * torch.randn(*shape, generator=self.generator)
            self.tensors[name] = value.to(self.dtype).float()
        return self.tensors[name]

    def linear(self, name, x, out, bias=True):
        y = x @ self.normal(name + ".weight", out, x.shape[-1], scale=1 / math.sqrt(x.shape[-1])).T
        return y + self.normal(name + ".bias", out, scale=0.2) if bias else y

    def layer_norm(self, name, x, eps):
        n = x.shape[-1]
        return F.layer_norm(x, (n,), self.normal(name + ".weight", n, scale=0.2, mean=1.0),
                            self.normal(name + ".bias", n, scale=0.2), eps)

    def rms_norm(self, name, x, eps):
        gain = self.normal(name + ".weight", x.shape[-1], scale=0.2, mean=1.0)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def attention(q, k, v, heads, kv_heads, visible):
    """[batch, rows, heads * size]; visible: bool [batch, 1, queries, keys]."""
    def split(x, n):
        return x.view(x.shape[0], x.shape[1], n, -1).transpose(1, 2)
    q, k, v = split(q, heads), split(k, kv_heads), split(v, kv_heads)
    k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    y = torch.softmax(scores.masked_fill(~visible, -1e30), -1) @ v
    return y.transpose(1, 2).flatten(2)


def texts(seed, vocabulary, lengths):
    """Tokens padded with 0 at the end, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), max(lengths), dtype=torch.int32)
    mask = torch.zeros_like(tokens)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, vocabulary, (length,), generator=generator)
        mask[row, :length] = 1
    return tokens, mask


def causal(mask, window=0):
    s = mask.shape[1]
    i, j = torch.arange(s)[:, None], torch.arange(s)[None, :]
    seen = (j <= i) if window == 0 else (j <= i) & (j > i - window)
    return seen[None, None] & (mask != 0)[:, None, None, :]


def last_tokens(x, mask):
    return x[torch.arange(len(x)), mask.sum(1).long() - 1]


ACTIVATIONS = {
    "gelu": F.gelu, "relu": F.relu, "silu": F.silu,
    "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
LABELS = {"id2label": {"0": "low", "1": "middle", "2": "high"},
          "label2id": {"low": 0, "middle": 1, "high": 2}}


# -- BERT and DistilBERT

BERT = {"model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 10,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
        "pad_token_id": 0, "position_embedding_type": "absolute", "use_cache": True,
        "transformers_version": "4.40.0", "torch_dtype": "float32"}


def bert(w, c, tokens, mask, types, prefix="bert."):
    n, eps = c["hidden_size"], c["layer_norm_eps"]
    e = prefix + "embeddings."
    x = w.normal(e + "word_embeddings.weight", c["vocab_size"], n)[tokens.long()]
    x = x + w.normal(e + "position_embeddings.weight", c["max_position_embeddings"], n)[
        : tokens.shape[1]]
    x = x + w.normal(e + "token_type_embeddings.weight", c["type_vocab_size"], n)[types.long()]
    x = w.layer_norm(e + "LayerNorm", x, eps)
    visible = (mask != 0)[:, None, None, :].expand(-1, 1, tokens.shape[1], -1)
    heads = c["num_attention_heads"]
    for i in range(c["num_hidden_layers"]):
        p = f"{prefix}encoder.layer.{i}."
        q, k, v = (w.linear(f"{p}attention.self.{m}", x, n) for m in ("query", "key", "value"))
        y = w.linear(p + "attention.output.dense", attention(q, k, v, heads, heads, visible), n)
        x = w.layer_norm(p + "attention.output.LayerNorm", x + y, eps)
        y = ACTIVATIONS[c["hidden_act"]](w.linear(p + "intermediate.dense", x,
                                                  c["intermediate_size"]))
        x = w.layer_norm(p + "output.LayerNorm", x + w.linear(p + "output.dense", y, n), eps)
    return x


def bert_pooler(w, x, prefix="bert."):
    return torch.tanh(w.linear(prefix + "pooler.dense", x[:, 0], x.shape[-1]))


def make_bert():
    tokens, mask = texts(1, 30, [7, 4, 9])
    types = ((torch.arange(9)[None] >= 3) & (mask != 0)).int()
    inputs = {"tokens": tokens, "mask": mask, "token_types": types}

    w = Weights(11)
    hidden = bert(w, BERT, tokens, mask, types)
    logits = w.linear("classifier", bert_pooler(w, hidden), 3)
    write_model("bert-texts", BERT | LABELS | {"architectures": ["BertForSequenceClassification"]},
                w.tensors, inputs | {"logits": logits})

    w = Weights(12)
    hidden = bert(w, BERT, tokens, mask, types)
    write_model("bert-tokens", BERT | LABELS | {"architectures": ["BertForTokenClassification"]},
                w.tensors, inputs | {"logits": w.linear("classifier", hidden, 3)})

    # A base model: no prefix; the names of norms and the buffer of old files.
    w = Weights(13)
    config = BERT | {"architectures": ["BertModel"], "hidden_act": "relu"}
    hidden = bert(w, config, tokens, mask, types, prefix="")
    pooled = bert_pooler(w, hidden, prefix="")
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias",
                                                                    "LayerNorm.beta"): t
           for n, t in w.tensors.items()}
    old["embeddings.position_ids"] = torch.arange(10)[None]
    write_model("bert-base", config, old, inputs | {"hidden": hidden, "pooled": pooled})

    # A body below a head that is not used.
    w = Weights(14)
    hidden = bert(w, BERT, tokens, mask, types)
    w.linear("cls.predictions.transform.dense", hidden, 8)
    w.normal("cls.predictions.bias", 30)
    write_model("bert-masked", BERT | {"architectures": ["BertForMaskedLM"]}, w.tensors,
                inputs | {"hidden": hidden})


def sentence_transformer(name, tokens, pooling, normalize=True, **more):
    """Writes the modules behind a body into its folder."""
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    modules = [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i > 0 else "",
                "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    files = {"modules.json": modules, "1_Pooling/config.json": pooling,
             "sentence_bert_config.json": {"max_seq_length": tokens, "do_lower_case": False}} | more
    (OUT / name / "1_Pooling").mkdir()
    for file, content in files.items():
        (OUT / name / file).write_text(json.dumps(content, indent=1) + "\n")


def make_sentences():
    tokens, mask = texts(5, 30, [7, 1, 9])
    # As MiniLM comes: the pooler is there, but not used.
    w = Weights(15)
    config = BERT | {"architectures": ["BertModel"]}
    hidden = bert(w, config, tokens, mask, torch.zeros_like(tokens), prefix="")
    bert_pooler(w, hidden, prefix="")
    kept = mask[:, :, None].float()
    pooled = (hidden * kept).sum(1) / kept.sum(1)
    write_model("bert-sentences", config, w.tensors,
                {"tokens": tokens, "mask": mask, "token_types": torch.zeros_like(tokens),
                 "pooled": pooled / pooled.norm(dim=1, keepdim=True)})
    sentence_transformer("bert-sentences", 8,
                         {"word_embedding_dimension": 8, "pooling_mode_cls_token": False,
                          "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
                          "pooling_mode_mean_sqrt_len_tokens": False},
                         **{"config_sentence_transformers.json": {
                             "prompts": {}, "default_prompt_name": None,
                             "similarity_fn_name": "cosine"}})

    # A language model of which the last token's state is taken.
    w = Weights(16)
    config = LLAMA | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 6,
                      "rms_norm_eps": 1e-6, "use_sliding_window": False, "sliding_window": None,
                      "max_window_layers": 2, "tie_word_embeddings": True}
    hidden = llama(w, config, tokens, mask, prefix="")
    write_model("qwen3-sentences", config, w.tensors,
                {"tokens": tokens, "mask": mask, "pooled": last_tokens(hidden, mask)})
    # As newer versions write it: without a limit.
    sentence_transformer("qwen3-sentences", 32,
                         {"embedding_dimension": 8, "pooling_mode": "lasttoken"}, normalize=False,
                         **{"sentence_bert_config.json": {
                             "transformer_task": "feature-extraction",
                             "modality_config": {"text": {
                                 "method": "forward", "method_output_name": "last_hidden_state"}},
                             "module_output_name": "token_embeddings"}})


def make_distilbert():
    c = {"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"],
         "vocab_size": 30, "dim": 8, "n_layers": 2, "n_heads": 4, "hidden_dim": 12,
         "max_position_embeddings": 10, "activation": "gelu", "dropout": 0.1,
         "attention_dropout": 0.1, "seq_classif_dropout": 0.2, "qa_dropout": 0.1,
         "sinusoidal_pos_embds": False, "pad_token_id": 0} | LABELS
    tokens, mask = texts(2, 30, [5, 8])
    w, n, eps, e = Weights(21), 8, 1e-12, "distilbert.embeddings."
    x = w.normal(e + "word_embeddings.weight", 30, n)[tokens.long()]
    x = x + w.normal(e + "position_embeddings.weight", 10, n)[: tokens.shape[1]]
    x = w.layer_norm(e + "LayerNorm", x, eps)
    visible = (mask != 0)[:, None, None, :].expand(-1, 1, tokens.shape[1], -1)
    for i in range(2):
        p = f"distilbert.transformer.layer.{i}."
        q, k, v = (w.linear(f"{p}attention.{m}_lin", x, n) for m in "qkv")
        y = w.linear(p + "attention.out_lin", attention(q, k, v, 4, 4, visible), n)
        x = w.layer_norm(p + "sa_layer_norm", x + y, eps)
        y = F.gelu(w.linear(p + "ffn.lin1", x, 12))
        x = w.layer_norm(p + "output_layer_norm", x + w.linear(p + "ffn.lin2", y, n), eps)
    y = F.relu(w.linear("pre_classifier", x[:, 0], n))
    write_model("distilbert-texts", c, w.tensors,
                {"tokens": tokens, "mask": mask, "logits": w.linear("classifier", y, 3)})


# -- GPT-2

GPT2 = {"model_type": "gpt2", "vocab_size": 30, "n_embd": 8, "n_layer": 2, "n_head": 2,
        "n_positions": 12, "n_ctx": 12, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "summary_type": "cls_index", "summary_use_proj": True, "bos_token_id": 1,
        "eos_token_id": 1, "task_specific_params": {"text-generation": {"do_sample": True}}}


def gpt2(w, c, tokens, mask, prefix):
    n, eps = c["n_embd"], c["layer_norm_epsilon"]

    def conv1d(name, x, out):  # weights are [in, out]
        return x @ w.normal(name + ".weight", x.shape[-1], out, scale=1 / math.sqrt(x.shape[-1])) \
            + w.normal(name + ".bias", out, scale=0.2)

    x = w.normal(prefix + "wte.weight", c["vocab_size"], n)[tokens.long()]
    x = x + w.normal(prefix + "wpe.weight", c["n_positions"], n)[: tokens.shape[1]]
    for i in range(c["n_layer"]):
        p = f"{prefix}h.{i}."
        q, k, v = conv1d(p + "attn.c_attn", w.layer_norm(p + "ln_1", x, eps), 3 * n).split(n, -1)
        y = attention(q, k, v, c["n_head"], c["n_head"], causal(mask))
        x = x + conv1d(p + "attn.c_proj", y, n)
        inner = c.get("n_inner") or 4 * n
        y = ACTIVATIONS[c["activation_function"]](
            conv1d(p + "mlp.c_fc", w.layer_norm(p + "ln_2", x, eps), inner))
        x = x + conv1d(p + "mlp.c_proj", y, n)
    return w.layer_norm(prefix + "ln_f", x, eps)


def make_gpt2():
    tokens, mask = texts(3, 30, [11, 11])
    w = Weights(31)
    hidden = gpt2(w, GPT2, tokens, mask, "")
    logits = hidden @ w.tensors["wte.weight"].T
    for i in range(2):  # buffers of old files
        w.tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 12, 12).tril().bool()
        w.tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    write_model("gpt2-lm", GPT2 | {"architectures": ["GPT2LMHeadModel"]}, w.tensors,
                {"tokens": tokens, "logits": logits})

    tokens, mask = texts(4, 30, [6, 12, 1])
    config = GPT2 | LABELS | {"architectures": ["GPT2ForSequenceClassification"], "n_inner": 20,
                              "activation_function": "gelu", "pad_token_id": 0}
    w = Weights(32)
    hidden = gpt2(w, config, tokens, mask, "transformer.")
    logits = w.linear("score", last_tokens(hidden, mask), 3, bias=False)
    write_model("gpt2-texts", config, w.tensors, {"tokens": tokens, "mask": mask, "logits": logits})


# -- Llama, Mistral, Qwen

LLAMA = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 12, "max_position_embeddings": 64,
         "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
         "tie_word_embeddings": False, "attention_dropout": 0.0, "initializer_range": 0.02,
         "bos_token_id": 1, "eos_token_id": [2, 3], "use_cache": True}


def rope_of(c, size, length):
    """Radians per position of each pair, for a text of so many tokens, and what cosines and sines
    are multiplied with."""
    s = c.get("rope_parameters") or c.get("rope_scaling") or {}
    theta = s.get("rope_theta", c.get("rope_theta"))
    frequency = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    kind = s.get("rope_type", s.get("type", "default"))
    longest = c["max_position_embeddings"]
    old = c.get("original_max_position_embeddings",
                s.get("original_max_position_embeddings", longest))
    if kind == "linear":
        return frequency / s["factor"], 1.0
    if kind == "dynamic":  # another base for what is longer than the model's texts
        grown = s["factor"] * max(length, longest) / longest - (s["factor"] - 1)
        theta *= grown ** (size / (size - 2))
        return theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size), 1.0
    if kind == "longrope":  # Ding et al. 2024
        stretched = torch.tensor(s["long_factor" if length > old else "short_factor"])
        factor = s.get("factor", longest / old)
        magnitude = math.sqrt(1 + math.log(factor) / math.log(old)) if factor > 1 else 1.0
        return frequency / stretched.double(), s.get("attention_factor", magnitude)
    if kind == "yarn":  # Peng et al. 2023, section 3.2 on
        def pair_that_turns(times):  # within the old length; pairs before it turn more often
            return size * math.log(old / (times * 2 * math.pi)) / (2 * math.log(theta))
        first, last = (pair_that_turns(s.get(*b)) for b in (("beta_fast", 32), ("beta_slow", 1)))
        if s.get("truncate", True):
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        stretch = torch.clamp((torch.arange(size // 2, dtype=torch.float64) - first) /
                              (last - first if last != first else 0.001), 0, 1)

        def grown(scale):
            return 0.1 * scale * math.log(s["factor"]) + 1
        magnitude = grown(1)
        if "mscale" in s and "mscale_all_dim" in s:
            magnitude = grown(s["mscale"]) / grown(s["mscale_all_dim"])
        return (frequency / s["factor"] * stretch + frequency * (1 - stretch),
                s.get("attention_factor", magnitude))
    if kind != "llama3":
        return frequency, 1.0
    # Long waves are stretched, short ones stay, those between are blended.
    result = []
    for f in frequency.tolist():
        wave = 2 * math.pi / f
        if wave < old / s["high_freq_factor"]:
            result.append(f)
        elif wave > old / s["low_freq_factor"]:
            result.append(f / s["factor"])
        else:
            smooth = (old / wave - s["low_freq_factor"]) / (s["high_freq_factor"] -
                                                            s["low_freq_factor"])
            result.append((1 - smooth) * f / s["factor"] + smooth * f)
    return torch.tensor(result, dtype=torch.float64), 1.0


def rope(x, heads, frequencies, magnitude):
    b, s, _ = x.shape
    x = x.view(b, s, heads, -1)
    angles = torch.arange(s, dtype=torch.float64)[:, None] * frequencies
    cos, sin = (torch.cat([magnitude * f(angles)] * 2, -1).float()[None, :, None]
                for f in (torch.cos, torch.sin))
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).flatten(2)


def llama(w, c, tokens, mask, prefix="model."):
    kind, n = c["model_type"], c["hidden_size"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    size = c.get("head_dim") or n // heads
    turns = rope_of(c, size, tokens.shape[1])
    qkv_bias = kind == "qwen2" or c.get("attention_bias", False)
    x = w.normal(prefix + "embed_tokens.weight", c["vocab_size"], n)[tokens.long()]
    for i in range(c["num_hidden_layers"]):
        p = f"{prefix}layers.{i}."
        h = w.rms_norm(p + "input_layernorm", x, c["rms_norm_eps"])
        q = w.linear(p + "self_attn.q_proj", h, heads * size, qkv_bias)
        k = w.linear(p + "self_attn.k_proj", h, kv * size, qkv_bias)
        v = w.linear(p + "self_attn.v_proj", h, kv * size, qkv_bias)
        if kind == "qwen3":
            b, s, _ = h.shape
            q = w.rms_norm(p + "self_attn.q_norm", q.view(b, s, heads, size),
                           c["rms_norm_eps"]).flatten(2)
            k = w.rms_norm(p + "self_attn.k_norm", k.view(b, s, kv, size),
                           c["rms_norm_eps"]).flatten(2)
        window = c.get("sliding_window") or 0
        if kind.startswith("qwen") and not (c.get("use_sliding_window") and
                                            i >= c["max_window_layers"]):
            window = 0
        y = attention(rope(q, heads, *turns), rope(k, kv, *turns), v, heads, kv,
                      causal(mask, window))
        x = x + w.linear(p + "self_attn.o_proj", y, n, c.get("attention_bias", False))
        h = w.rms_norm(p + "post_attention_layernorm", x, c["rms_norm_eps"])
        bias = c.get("mlp_bias", False)
        gate = ACTIVATIONS[c["hidden_act"]](w.linear(p + "mlp.gate_proj", h,
                                                     c["intermediate_size"], bias))
        up = w.linear(p + "mlp.up_proj", h, c["intermediate_size"], bias)
        x = x + w.linear(p + "mlp.down_proj", gate * up, n, bias)
    return w.rms_norm(prefix + "norm", x, c["rms_norm_eps"])


def make_llamas():
    def language_model(name, seed, config, dtype=torch.float32, shards=1, length=9):
        tokens, mask = texts(seed, 30, [length] * 2)
        w = Weights(seed, dtype)
        hidden = llama(w, config, tokens, mask)
        if config["tie_word_embeddings"]:
            logits = hidden @ w.tensors["model.embed_tokens.weight"].T
        else:
            logits = w.linear("lm_head", hidden, 30, bias=False)
        write_model(name, config, w.tensors, {"tokens": tokens, "logits": logits}, dtype, shards)

    language_model("llama3-lm", 41, LLAMA | {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16",
        "rope_theta": 500.0, "pretraining_tp": 1,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 24}},
        torch.bfloat16, shards=2)
    language_model("llama-biases-lm", 42, LLAMA | {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 4,
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
        "rope_scaling": {"type": "linear", "factor": 2.5}}, torch.float16)
    language_model("mistral-lm", 43, LLAMA | {
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 3})
    language_model("qwen2-lm", 44, LLAMA | {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": True,
        "sliding_window": 4, "max_window_layers": 1})
    language_model("qwen3-lm", 45, LLAMA | {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 6,
        "attention_bias": False, "rms_norm_eps": 1e-6, "use_sliding_window": False,
        "sliding_window": None, "max_window_layers": 2})

    # Rotary positions for longer texts, with 8 pairs in a head.
    pairs = LLAMA | {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
                     "head_dim": 16}
    language_model("qwen3-yarn-lm", 47, pairs | {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rope_theta": 1000.0,
        "max_position_embeddings": 128, "use_sliding_window": False,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                         "original_max_position_embeddings": 32}}, length=40)
    yarn = pairs | {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 8.0,
                            "original_max_position_embeddings": 64, "beta_fast": 4, "beta_slow": 1,
                            "mscale": 1.2, "mscale_all_dim": 0.6, "truncate": False}}
    del yarn["rope_theta"]
    language_model("llama-yarn-lm", 48, yarn, length=40)
    factors = {"short_factor": [1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.25, 1.3],
               "long_factor": [1.0, 1.1, 1.5, 2, 3.5, 5.25, 8.0, 9.75]}
    longrope = pairs | {"model_type": "mistral", "architectures": ["MistralForCausalLM"],
                        "rope_theta": 100.0, "sliding_window": None}
    language_model("mistral-longrope-lm", 49, longrope | {
        "original_max_position_embeddings": 8,
        "rope_scaling": {"type": "longrope"} | factors}, length=40)
    language_model("mistral-longrope-short-lm", 50, longrope | {
        "rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 64,
                         "factor": 4.0} | factors}, length=40)
    language_model("qwen2-dynamic-lm", 51, pairs | {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 100.0,
        "use_sliding_window": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        length=40)

    config = LLAMA | LABELS | {"model_type": "llama", "pad_token_id": 0,
                               "architectures": ["LlamaForSequenceClassification"]}
    tokens, mask = texts(46, 30, [3, 8])
    w = Weights(46)
    hidden = llama(w, config, tokens, mask)
    logits = w.linear("score", last_tokens(hidden, mask), 3, bias=False)
    write_model("llama-texts", config, w.tensors,
                {"tokens": tokens, "mask": mask, "logits": logits})


# -- images

def images(seed, channels, size):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(seed))


def make_resnets():
    for block, widths in (("basic", [4, 6]), ("bottleneck", [8, 12])):
        c = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"],
             "num_channels": 3, "embedding_size": 4, "hidden_sizes": widths, "depths": [1, 2],
             "layer_type": block, "hidden_act": "relu", "downsample_in_first_stage": False,
             "out_features": None, "torch_dtype": "float32"} | LABELS
        w = Weights(51 if block == "basic" else 52)

        def conv_norm(name, x, out, kernel, stride, activation=True):
            fan = x.shape[1] * kernel * kernel
            weight = w.normal(name + ".convolution.weight", out, x.shape[1], kernel, kernel,
                              scale=math.sqrt(2 / fan))
            x = F.conv2d(x, weight, stride=stride, padding=kernel // 2)
            p = name + ".normalization."
            w.tensors[p + "num_batches_tracked"] = torch.tensor(7)
            variance = w.normal(p + "running_var", out, scale=0.2).abs() + 0.5
            w.tensors[p + "running_var"] = variance
            x = F.batch_norm(x, w.normal(p + "running_mean", out, scale=0.3), variance,
                             w.normal(p + "weight", out, scale=0.2, mean=1.0),
                             w.normal(p + "bias", out, scale=0.2), training=False, eps=1e-5)
            return F.relu(x) if activation else x

        pixels = images(51, 3, 24)
        x = conv_norm("resnet.embedder.embedder", pixels, 4, 7, 2)
        x = F.max_pool2d(x, 3, 2, 1)
        for s, (width, depth) in enumerate(zip(widths, c["depths"])):
            for i in range(depth):
                p = f"resnet.encoder.stages.{s}.layers.{i}."
                stride = 2 if s > 0 and i == 0 else 1
                residual = x
                if x.shape[1] != width or stride != 1:
                    residual = conv_norm(p + "shortcut", x, width, 1, stride, False)
                if block == "basic":
                    y = conv_norm(p + "layer.0", x, width, 3, stride)
                    y = conv_norm(p + "layer.1", y, width, 3, 1, False)
                else:
                    y = conv_norm(p + "layer.0", x, width // 4, 1, 1)
                    y = conv_norm(p + "layer.1", y, width // 4, 3, stride)
                    y = conv_norm(p + "layer.2", y, width, 1, 1, False)
                x = F.relu(y + residual)
        pooled = x.mean((2, 3))
        write_model(f"resnet-{block}", c, w.tensors,
                    {"pixels": pixels, "logits": w.linear("classifier.1", pooled, 3)})


def make_vits():
    c = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 12, "image_size": 8, "patch_size": 4, "num_channels": 3,
         "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True, "encoder_stride": 16,
         "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def vit(w, config, pixels, prefix):
        n, eps, bias = config["hidden_size"], config["layer_norm_eps"], config["qkv_bias"]
        e = prefix + "embeddings."
        x = F.conv2d(pixels, w.normal(e + "patch_embeddings.projection.weight", n, 3, 4, 4,
                                      scale=0.2),
                     w.normal(e + "patch_embeddings.projection.bias", n), stride=4)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([w.normal(e + "cls_token", 1, 1, n).expand(len(x), -1, -1), x], 1)
        x = x + w.normal(e + "position_embeddings", 1, x.shape[1], n)
        visible = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool)
        for i in range(config["num_hidden_layers"]):
            p = f"{prefix}encoder.layer.{i}."
            h = w.layer_norm(p + "layernorm_before", x, eps)
            q, k, v = (w.linear(f"{p}attention.attention.{m}", h, n, bias)
                       for m in ("query", "key", "value"))
            x = x + w.linear(p + "attention.output.dense", attention(q, k, v, 2, 2, visible), n)
            h = w.layer_norm(p + "layernorm_after", x, eps)
            x = x + w.linear(p + "output.dense", F.gelu(w.linear(p + "intermediate.dense", h, 12)), n)
        return w.layer_norm(prefix + "layernorm", x, eps)

    pixels = images(61, 3, 8)
    w = Weights(61)
    logits = w.linear("classifier", vit(w, c, pixels, "vit.")[:, 0], 3)
    write_model("vit-images", c | LABELS | {"architectures": ["ViTForImageClassification"]},
                w.tensors, {"pixels": pixels, "logits": logits})
    w = Weights(62)
    config = c | {"architectures": ["ViTModel"], "qkv_bias": False}
    hidden = vit(w, config, pixels, "")
    pooled = torch.tanh(w.linear("pooler.dense", hidden[:, 0], 8))
    write_model("vit-base", config, w.tensors, {"pixels": pixels, "pooled": pooled})


def main():
    with torch.no_grad():
        make_bert()
        make_distilbert()
        make_sentences()
        make_gpt2()
        make_llamas()
        make_resnets()
        make_vits()


if __name__ == "__main__":
    main()
