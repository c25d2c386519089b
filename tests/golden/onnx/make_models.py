#!/usr/bin/python3
"""Models as PyTorch exports them, with inputs and outputs, for tests and benches.

    make_models.py FOLDER [--large]

Writes FOLDER/<name>/model.onnx and test_data_set_0/{input,output}_N.pb as the public operator cases
do. The small ones are checked in beside this file (made with PyTorch 1.13 and onnx 1.12 of Debian
12: python3-torch, python3-onnx); --large makes those that bench/onnx_bench.cc times.
"""
import math
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import torch.nn as nn

warnings.filterwarnings("ignore")


def mlp(inputs, width, classes):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, classes))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                      nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet(nn.Module):
    def __init__(self, layers, width, classes, pool=True):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        blocks, inputs = [], width
        for stage, count in enumerate(layers):
            for index in range(count):
                outputs = width << stage
                blocks.append(Block(inputs, outputs, 2 if index == 0 and stage > 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn(self.conv(x))))
        return self.fc(torch.flatten(self.mean(self.blocks(x)), 1))


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def split(self, x):
        return x.view(x.size()[:-1] + (self.heads, x.size(-1) // self.heads)).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        q, k, v = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(
            torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(q.size(-1)) + mask, -1)
        mixed = torch.matmul(weights, v).permute(0, 2, 1, 3).contiguous()
        mixed = mixed.view(mixed.size()[:-2] + (x.size(-1),))
        x = self.norm1(x + self.output(mixed))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class Bert(nn.Module):
    def __init__(self, vocabulary, width, heads, layers, context, classes):
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.kind, self.norm = nn.Embedding(2, width), nn.LayerNorm(width, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(context).expand((1, -1)))
        self.layers = nn.ModuleList(
            [EncoderLayer(width, heads, 4 * width) for _ in range(layers)])
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, input_ids, attention_mask, token_type_ids):
        mask = attention_mask[:, None, None, :].to(torch.float32)
        mask = (1.0 - mask) * torch.finfo(torch.float32).min
        positions = self.position_ids[:, 0:input_ids.size(1)]
        x = self.norm(self.word(input_ids) + self.kind(token_type_ids) + self.position(positions))
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class Gpt(nn.Module):
    def __init__(self, vocabulary, width, heads, layers, context):
        super().__init__()
        self.heads = heads
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList([nn.ModuleDict({
            "norm1": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width),
            "output": nn.Linear(width, width), "norm2": nn.LayerNorm(width),
            "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})
            for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        causal = torch.tril(torch.ones(context, context, dtype=torch.bool))
        self.register_buffer("causal", causal.view(1, 1, context, context))

    def forward(self, input_ids):
        batch, length = input_ids.shape
        x = self.word(input_ids) + self.position(torch.arange(0, length, dtype=torch.long)[None])
        for layer in self.layers:
            q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2)
                       for part in layer["qkv"](layer["norm1"](x)).split(x.size(-1), 2))
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.causal[:, :, :length, :length] == 0, float("-inf"))
            mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).contiguous()
            x = x + layer["output"](mixed.view(batch, length, -1))
            u = layer["up"](layer["norm2"](x))
            u = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3)))
            x = x + layer["down"](u)
        return self.head(self.norm(x))


class RowProduct(nn.Module):
    """The Conv1D of transformers' GPT-2: all tokens of all texts are rows."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(0.2 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(0.2 * torch.randn(outputs))

    def forward(self, x):
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(x.size()[:-1] + (self.bias.size(0),))


class Gpt2(nn.Module):
    """Products as GPT-2 of transformers has them, and attention in the steps that newer exporters
    write for scaled_dot_product_attention: the batch and the heads are one axis while keys turn."""

    def __init__(self, vocabulary, width, heads, context):
        super().__init__()
        self.heads = heads
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = RowProduct(width, 3 * width), RowProduct(width, width)
        self.up, self.down = RowProduct(width, 4 * width), RowProduct(4 * width, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        causal = torch.tril(torch.ones(context, context, dtype=torch.bool))
        self.register_buffer("causal", causal.view(1, 1, context, context))

    def forward(self, input_ids):
        batch, length = input_ids.shape
        x = self.word(input_ids) + self.position(torch.arange(0, length, dtype=torch.long)[None])
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2)
                   for part in self.qkv(self.norm1(x)).split(x.size(-1), 2))
        turned = k.reshape(-1, k.size(-2), k.size(-1)).transpose(1, 2)
        turned = turned.reshape(k.size()[:-2] + (k.size(-1), k.size(-2)))
        scale = math.sqrt(1 / math.sqrt(k.size(-1)))
        scores = (q * scale) @ (turned * scale)
        scores = scores.masked_fill(self.causal[:, :, :length, :length] == 0, float("-inf"))
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).contiguous()
        x = x + self.output(mixed.view(batch, length, -1))
        x = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm(x))


class Library(nn.Module):
    """The library's own encoder layer, whose exported form joins the batch and the heads."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


class LibraryRows(nn.Module):
    """The library's encoder over a few vectors a row: [batch, 3, 8], or [3, batch, 8]."""

    def __init__(self, batch_first, **layer):
        super().__init__()
        self.batch = 0 if batch_first else 1
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=batch_first, **layer), 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1 - self.batch))


class LibraryWeights(nn.Module):
    """The library's attention, of which the weights are used too, averaged over the heads."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y, weights = self.attention(x, x, x, need_weights=True)
        return self.head(y.mean(1)) + weights[:, 0, :3]


class LibraryTexts(nn.Module):
    """The library's encoder over texts with padding."""

    def __init__(self):
        super().__init__()
        self.word, self.position = nn.Embedding(20, 8), nn.Embedding(10, 8)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True,
                                       activation="gelu"), 1)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids, key_padding_mask):
        x = self.word(input_ids) + self.position(torch.arange(input_ids.size(1)))
        x = self.encoder(x, src_key_padding_mask=key_padding_mask)
        kept = (1 - key_padding_mask.to(torch.float32))[:, :, None]
        return self.head((x * kept).sum(1) / kept.sum(1))


class LibraryGpt(nn.Module):
    """The library's encoder with a causal mask as a language model; inside, the batch is second."""

    def __init__(self):
        super().__init__()
        self.word, self.position = nn.Embedding(20, 8), nn.Embedding(10, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12), 1)
        self.head = nn.Linear(8, 20)

    def forward(self, input_ids):
        length = input_ids.size(1)
        x = self.word(input_ids) + self.position(torch.arange(length))
        hidden = torch.triu(torch.full((length, length), float("-inf")), 1)
        return self.head(self.encoder(x.transpose(0, 1), hidden).transpose(0, 1))


def save(folder, name, model, arguments, inputs, axes, opset=14, train=False):
    case = pathlib.Path(folder) / name
    data = case / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    model.train(train)
    if isinstance(model, (LibraryRows, LibraryWeights, LibraryTexts, LibraryGpt)):
        with torch.no_grad():  # new norms and biases are all the same, and leave as one
            for weight in model.parameters():
                if weight.dim() < 2:
                    weight.add_(0.1 * torch.randn(weight.shape))
    for module in model.modules():  # running statistics that matter
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    mode = torch.onnx.TrainingMode.TRAINING if train else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(model, arguments, str(case / "model.onnx"), input_names=inputs,
                      output_names=["logits"], dynamic_axes=axes, opset_version=opset,
                      training=mode)
    with torch.no_grad():
        wanted = model(*arguments)
    for i, argument in enumerate(arguments):
        proto = onnx.numpy_helper.from_array(argument.numpy(), inputs[i])
        (data / f"input_{i}.pb").write_bytes(proto.SerializeToString())
    proto = onnx.numpy_helper.from_array(wanted.numpy(), "logits")
    (data / "output_0.pb").write_bytes(proto.SerializeToString())
    print(name, tuple(wanted.shape))


def main():
    folder, large = sys.argv[1], "--large" in sys.argv
    torch.manual_seed(0)
    batch, both = {0: "batch"}, {0: "batch", 1: "sequence"}
    text = ["input_ids", "attention_mask", "token_type_ids"]
    text_axes = {name: both for name in text} | {"logits": batch}
    if large:
        ids = torch.randint(0, 1000, (16, 128))
        tokens = (ids, torch.ones_like(ids), torch.zeros_like(ids))
        save(folder, "mlp", mlp(784, 1024, 10), (torch.randn(16, 784),), ["x"],
             {"x": batch, "logits": batch})
        save(folder, "resnet", ResNet((2, 2, 2, 2), 64, 10, pool=False), (torch.randn(16, 3, 32, 32),),
             ["pixels"], {"pixels": batch, "logits": batch})
        save(folder, "bert", Bert(1000, 256, 4, 4, 128, 3), tokens, text, text_axes)
        return
    ids = torch.randint(0, 20, (2, 6))
    kept = torch.ones_like(ids)
    kept[1, 4:] = 0
    tokens = (ids, kept, torch.randint(0, 2, (2, 6)))
    save(folder, "mlp", mlp(5, 8, 3), (torch.randn(3, 5),), ["x"], {"x": batch, "logits": batch})
    save(folder, "resnet", ResNet((1, 1), 4, 3), (torch.randn(2, 3, 12, 12),), ["pixels"],
         {"pixels": batch, "logits": batch})
    save(folder, "bert", Bert(20, 8, 2, 1, 10, 3), tokens, text, text_axes)
    save(folder, "bert_opset17", Bert(20, 8, 2, 1, 10, 3), tokens, text, text_axes, 17)
    save(folder, "gpt", Gpt(20, 8, 2, 1, 10), (ids,), ["input_ids"],
         {"input_ids": both, "logits": both})
    save(folder, "library_encoder", Library(), (torch.randn(2, 4, 16),), ["x"],
         {"x": both, "logits": batch})
    save(folder, "fixed_batch", mlp(4, 6, 2), (torch.randn(1, 4),), ["x"], {})
    save(folder, "gpt2", Gpt2(20, 8, 2, 10), (ids,), ["input_ids"],
         {"input_ids": both, "logits": both}, 17)
    rows = torch.randn(2, 3, 8)
    axes = {"x": batch, "logits": batch}
    save(folder, "library_rows", LibraryRows(True), (rows,), ["x"], axes, 17, train=True)
    save(folder, "library_columns", LibraryRows(False, activation="gelu"), (rows.transpose(0, 1),),
         ["x"], {"x": {1: "batch"}, "logits": batch}, 12)
    save(folder, "library_weights", LibraryWeights(), (rows,), ["x"], axes, 17)
    save(folder, "library_texts", LibraryTexts(), (ids, kept == 0),
         ["input_ids", "key_padding_mask"],
         {"input_ids": both, "key_padding_mask": both, "logits": batch}, 17)
    save(folder, "library_gpt", LibraryGpt(), (ids,), ["input_ids"],
         {"input_ids": both, "logits": both}, 17)


if __name__ == "__main__":
    main()
