#!/usr/bin/python3
"""Writes the seed corpora of the fuzzers: small inputs of every kind that each parser knows.

    make_seeds.py [FOLDER]      default: seeds beside this file

Deterministic, with Python's standard library alone; ONNX models are those of tests/golden/onnx,
JPEGs those of tests/golden/image.
"""
import base64
import gzip
import io
import json
import pathlib
import struct
import sys
import tarfile
import zipfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def png(width, height, colour, depth, rows, extra=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra +
            chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, dims, floats):
    return (b"".join(field(1, d) for d in dims) + field(2, 1) + field(8, name) +
            field(9, struct.pack(f"<{len(floats)}f", *floats)))


def value_info(name, dims, elem=1):
    shape = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, elem) + field(2, shape)))


def node(op, inputs, outputs, *attributes):
    return (b"".join(field(1, i) for i in inputs) + b"".join(field(2, o) for o in outputs) +
            field(4, op) + b"".join(field(5, a) for a in attributes))


def ints(name, numbers):
    return field(1, name) + b"".join(field(8, n) for n in numbers) + field(20, 7)


def integer(name, number):
    return field(1, name) + field(3, number) + field(20, 2)


def model(nodes, inputs, outputs, initializers=(), opset=17):
    graph = (b"".join(field(1, n) for n in nodes) + field(2, "g") +
             b"".join(field(5, i) for i in initializers) +
             b"".join(field(11, i) for i in inputs) + b"".join(field(12, o) for o in outputs))
    return field(1, 8) + field(7, graph) + field(8, field(2, opset))


def onnx_models():
    yield "matmul", model([node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])],
                          [value_info("x", ["batch", 2])], [value_info("y", ["batch", 2])],
                          [tensor("w", [2, 2], [1, 2, 3, 4])])
    yield "conv", model([node("Conv", ["x", "w"], ["h"], ints("pads", [1, 1, 1, 1])),
                         node("MaxPool", ["h"], ["p"], ints("kernel_shape", [2, 2])),
                         node("Flatten", ["p"], ["y"])],
                        [value_info("x", ["batch", 1, 4, 4])], [value_info("y", ["batch", 9])],
                        [tensor("w", [1, 1, 3, 3], [1] * 9)])
    yield "shapes", model([node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["c"]),
                           node("Transpose", ["x"], ["t"], ints("perm", [1, 0])),
                           node("Concat", ["c", "x"], ["k"], integer("axis", 1)),
                           node("Softmax", ["k"], ["y"])],
                          [value_info("x", ["batch", 3])], [value_info("y", ["batch", 6])])
    body = (field(1, node("Add", ["a", "i"], ["b"])) + field(11, value_info("n", [], 7)) +
            field(11, value_info("go", [], 9)) + field(11, value_info("a", [2])) +
            field(12, value_info("go", [], 9)) + field(12, value_info("b", [2])))
    yield "loop", model([node("Loop", ["n", "", "i"], ["y"],
                              field(1, "body") + field(6, body) + field(20, 5))],
                        [value_info("i", [2])], [value_info("y", [2])],
                        [field(2, 7) + field(8, "n") + field(9, struct.pack("<q", 3))])
    entries = {"location": "w.bin", "offset": "16", "length": "8"}
    outside = (field(1, 2) + field(2, 1) + field(8, "w") + field(14, 1) +
               b"".join(field(13, field(1, key) + field(2, value))
                        for key, value in entries.items()))
    yield "external", model([node("Add", ["x", "w"], ["y"])], [value_info("x", ["batch", 2])],
                            [value_info("y", ["batch", 2])], [outside])
    yield "reduce", model([node("ReduceMean", ["x"], ["m"], ints("axes", [2 ** 64 - 1])),
                           node("Sub", ["x", "m"], ["c"]), node("Erf", ["c"], ["e"]),
                           node("Clip", ["e", "l", "u"], ["k"]), node("TopK", ["k", "n"], ["y", ""])],
                          [value_info("x", [2, 5])], [value_info("y", [2, 3])],
                          [tensor("l", [], [-1]), tensor("u", [], [1]),
                           field(1, 1) + field(2, 7) + field(8, "n") +
                           field(9, struct.pack("<q", 3))])


TOKENIZERS = {
    "bpe": {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "c": 4},
                      "merges": ["a b"]},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True,
                              "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel"},
            "added_tokens": [{"id": 5, "content": "<s>", "special": True, "single_word": False,
                              "lstrip": False, "rstrip": False, "normalized": False}]},
    "wordpiece": {"model": {"type": "WordPiece", "unk_token": "[UNK]",
                            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                            "vocab": {"[UNK]": 0, "hello": 1, "##lo": 2, "world": 3, "[CLS]": 4,
                                      "[SEP]": 5}},
                  "normalizer": {"type": "BertNormalizer", "clean_text": True,
                                 "handle_chinese_chars": True, "strip_accents": None,
                                 "lowercase": True},
                  "pre_tokenizer": {"type": "BertPreTokenizer"},
                  "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 5],
                                     "cls": ["[CLS]", 4]},
                  "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    "unigram": {"model": {"type": "Unigram", "unk_id": 0,
                          "vocab": [["<unk>", 0.0], ["\u2581", -1.0], ["a", -2.0], ["ab", -2.5]]},
                "normalizer": {"type": "Sequence", "normalizers": [
                    {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"},
                                       "content": " "}]},
                "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                                  "add_prefix_space": True}},
    "split": {"model": {"type": "BPE", "vocab": {"x": 0}, "merges": []},
              "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                  {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\d"}, "behavior": "Isolated",
                   "invert": False}, {"type": "Digits", "individual_digits": True}]}},
}

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m.content | trim }}"
              "{% endfor %}{% if add_generation_prompt %}x{% endif %}",
    "loops": "{%- set ns = namespace(n=0) -%}{% for a, b in x[3].items() if b is iterable %}"
             "{{ loop.index0 ~ a }}{% set ns.n = ns.n + 1 %}{% else %}{{ raise_exception('e') }}"
             "{% endfor %}{{ ns.n // 2 * 3 % 5 - 1 }}{{ x[1:][::2] | tojson }}",
    "tests": "{% if messages[0].role == 'system' and not n > 5 or 'a' in 'abc' %}"
             "{{ messages | length }}{% elif y is defined %}{{ y or none }}{% endif %}"
             "{{ ['a', {'b': 1}] | last }}{{ 'A' if true else 'B' }}{# comment #}",
}

SPECS = {
    "train": "kind: train\nname: digits\ndataset: {uri: 'file:///d.csv', label: t}\n"
             "model: {arch: mlp, hidden: [128, 64], activation: relu, dropout: 0.1}\n"
             "optimizer: {name: adamw, lr: 1e-3}\nschedule: {name: cosine, warmup_steps: 5}\n"
             "resources: {min_workers: 1, max_workers: 4}\nelastic: {logical_shards: 4}\n"
             "restart: {max: 5, backoff: 1s, log_policies: [{pattern: 'a+', action: fail_job}]}\n"
             "labels: {team: a}\ndeadline: 2h\n",
    "tune": "kind: tune\ndataset: digits@3\nmodel: {hidden: [8]}\n"
            "search: {algorithm: asha, metric: validation/accuracy, trials: 4, space: "
            "{optimizer.lr: {loguniform: [1e-4, 1e-1]}, batch_size: {choice: [16, 32]}}}\n",
    "distill": json.dumps({"kind": "distill", "dataset": {"name": "d"}, "teacher": "t@1",
                           "temperature": 2, "alpha": 0.5, "model": {"arch": "mlp"}}),
    "deploy": json.dumps({"name": "live", "model": "digits@prod", "replicas": 2,
                          "max_wait": "2ms", "timeout": "10s"}),
    "reference": "digits@main",
}

TABLES = {
    "numbers.csv": "a,b,target\n1,2.5,x\n-3e4,,y\nnan,inf,z\n",
    "quotes.csv": 'a;"b ""c""";d\r\n"x;\ny";1;2\r\n',
    "tabs.csv": "\ufeffa\tb\n1\t2\n",
    "rows.jsonl": '{"a": 1, "b": "x", "c": null}\n{"a": 2.5, "b": "\\u00e9", "c": true}\n',
}

MANIFESTS = {
    "model": json.dumps({
        "format_version": 1, "model_spec_json": "{}", "loss": "cross_entropy", "precision": "f32",
        "feature_names": ["a"], "mean": [0.5], "scale": [1.0], "label_name": "t",
        "classes": ["x", "y"], "weights": "0" * 64, "weights_sha256": "0" * 64, "parameters": 4,
        "metrics": {"test/accuracy": 1.0}, "job_id": "j1", "dataset": "1" * 64,
        "dataset_name": "d", "teacher": "", "steps": 10}),
    "dataset": json.dumps({
        "format_version": 1, "name": "d", "rows": 3, "source": "0" * 64, "table": "1" * 64,
        "columns": [{"name": "a", "kind": "number", "missing": 0, "classes": []}]}),
    "pool_key": json.dumps({"server_public": "a" * 40, "worker_public": "b" * 40,
                            "worker_secret": "c" * 40}),
}


CHAT = [{"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "tool_calls": [{"name": "f"}]}]


def checkpoints():
    """A manifest's line and one object of slices, as SerializeSlices writes it; and of version 1."""
    about = {"format": "lepton.checkpoint", "job_id": "j", "step": 3, "seed": 1, "metrics": {"loss": 0.5}}
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    for name, version, owner, tensors, data in (
            ("slices", 2, "j/3/1/0", {"w@0/3": [0, 12], "b@0/1": [12, 16]}, {"slices": ["SLICE"]}),
            ("whole", 1, "j/3/1", {"w": [0, 16]}, {"data": "SLICE"})):
        header = {"__metadata__": {"lepton.checkpoint": owner}} | {
            k: {"dtype": "F32", "shape": [(v[1] - v[0]) // 4], "data_offsets": v} for k, v in tensors.items()}
        yield name, (json.dumps(about | {"version": version} | data).encode() + b"\n" +
                     safetensors(header, numbers))


def charsmap():
    """The normaliser of the golden, with a vocabulary of its own."""
    golden = json.loads((ROOT / "tests/golden/tokenizer/unigram.json").read_text())["tokenizer"]
    return json.dumps(TOKENIZERS["unigram"] | {"normalizer": golden["normalizer"]}).encode()


def frames():
    message = field(1, 7) + field(2, "text")
    yield "one", struct.pack("<I", len(message)) + message
    yield "two", (struct.pack("<I", 0) + struct.pack("<I", len(message)) + message)
    yield "long", struct.pack("<I", 2 ** 31) + b"x"


def model_archives():
    def tar(files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return out.getvalue()[:3072]  # the zeros at the end are longer than the rest
    tensor = {"a.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    yield "two", tar({"config.json": b"{}", "model.safetensors": safetensors(tensor, b"1234")})
    yield "empty", tar({})


def model_folders():
    """Configs of the goldens, with a tensor each; one with an index."""
    between = b"\n----\n"
    for name in ("bert-texts", "gpt2-lm", "llama3-lm", "llama-yarn-lm", "mistral-longrope-lm",
                 "qwen3-lm", "resnet-basic", "vit-images"):
        config = (ROOT / "tests/golden/huggingface" / name / "config.json").read_bytes()
        tensor = {"a.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        yield name, between.join([config, safetensors(tensor, b"1234")])
    index = {"weight_map": {"a.weight": "model.safetensors"}}
    sizes = {"size": {"shortest_edge": 8}, "image_mean": [0, 0, 0], "image_std": 1}
    yield "pictures", between.join([config, b"", b"", json.dumps(sizes).encode()])
    yield "index", between.join([config, b"", json.dumps(index).encode()])
    bert = (ROOT / "tests/golden/huggingface/bert-texts/config.json").read_bytes()
    modules = [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind}
               for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"),
                                                 ("2_Normalize", "Normalize")])]
    pooling = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False,
               "pooling_mode_mean_tokens": True}
    yield "sentences", between.join(
        [bert, safetensors(tensor, b"1234"), b"", b""] +
        [json.dumps(part).encode() for part in
         (modules, pooling, {"max_seq_length": 8, "do_lower_case": False},
          {"similarity_fn_name": "cosine"}, {"model_max_length": 16})])


def dataset_imports():
    """The formats by their places in DatasetFormats()."""
    def files(opened):
        out = io.BytesIO()
        with opened(out) as archive:
            for path in ("cats/1.png", "dogs/2.png"):
                data = png(3, 2, 0, 8, [b"\1\2\3", b"\4\5\6"])
                if isinstance(archive, zipfile.ZipFile):
                    archive.writestr(zipfile.ZipInfo(path), data)
                else:
                    entry = tarfile.TarInfo(path)
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        return out.getvalue()
    yield "csv", b"\1" + TABLES["numbers.csv"].encode()
    yield "jsonl", b"\2" + TABLES["rows.jsonl"].encode()
    yield "text", b"\3A text.\n\nAnother, of caf\xc3\xa9s.\n"
    yield "tokens", b"\4" + struct.pack("<8H", *range(8))
    tar = files(lambda out: tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT))
    yield "tar", b"\5" + tar[:3072]
    yield "tar_gz", b"\5" + gzip.compress(tar, 9, mtime=0)
    yield "zip", b"\5" + files(lambda out: zipfile.ZipFile(out, "w"))
    yield "auto", b"\0" + TABLES["tabs.csv"].encode()


def image_index():
    parts = {"ends": ("I64", struct.pack("<2q", 400, 1000)),
             "labels": ("I32", struct.pack("<2i", 0, 2)),
             "widths": ("I32", struct.pack("<2i", 3, 4)),
             "heights": ("I32", struct.pack("<2i", 2, 5)),
             "path_ends": ("I64", struct.pack("<2q", 3, 7)),
             "paths": ("U8", b"a/1bb/2")}
    sizes = {"I64": 8, "I32": 4, "U8": 1}
    header, data = {}, b""
    for name, (dtype, part) in parts.items():
        header[name] = {"dtype": dtype, "shape": [len(part) // sizes[dtype]],
                        "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    return safetensors(header, data)


def inference_requests():
    def json_body(value):
        return b"\0" + json.dumps(value).encode()
    yield "rows", json_body({"rows": [{"width": 1.5, "height": None, "weight": 2}]})
    yield "value", json_body({"rows": [{"width": 1.5}]})
    picture = base64.b64encode(png(2, 2, 0, 8, [b"\1\2", b"\3\4"])).decode()
    yield "picture", json_body({"rows": [{"image": picture}]})
    yield "tensor", json_body({
        "id": "1", "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32",
                               "data": [1, 2, 3, 4, None, 6]}],
        "outputs": [{"name": "label"}, {"name": "probabilities"}]})
    yield "pixels", json_body({"inputs": [{"name": "pixels", "shape": [1, 1, 2, 2],
                                           "datatype": "FP64", "data": [[[[0, 1], [0.5, 1]]]]}]})
    head = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32",
                                   "parameters": {"binary_data_size": 12}}],
                       "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]})
    head += " " * (1 - len(head) % 2)  # an odd first byte says how much is JSON
    yield "binary", bytes([len(head)]) + head.encode() + struct.pack("<3f", 1, 2, 3)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "seeds"
    seeds = {
        "onnx_model": dict(onnx_models()),
        "onnx_tensor": {"raw": b"\0" + tensor("t", [2], [1, 2]),
                        "sequence": b"\1" + field(3, tensor("t", [1], [1])),
                        "optional": b"\2" + field(2, 1) + field(3, tensor("t", [1], [1]))},
        "model_archive": dict(model_archives()),
        "model_folder": dict(model_folders()),
        "safetensors": {
            "two": safetensors({"__metadata__": {"format": "pt"},
                                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                                "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [8, 12]}},
                               b"x" * 12),
            "empty": safetensors({})},
        "tokenizer": {k: json.dumps(v).encode() for k, v in TOKENIZERS.items()} | {
            "charsmap": charsmap()},
        "dataset_import": dict(dataset_imports()),
        "image_index": {"two": image_index()},
        "tuning_table": {"shm": b"shm 2 8192 shared_one_shot\nshm 2 max shared_pair\n",
                         "tcp": b"tcp 2 16 tree\ntcp 2 max owner\ntcp 4 max halving\n"},
        "inference_request": dict(inference_requests()),
        "checkpoint": dict(checkpoints()),
        "chat": {"list": json.dumps(CHAT).encode(), "object": json.dumps({"messages": CHAT}).encode()},
        "chat_template": {k: v.encode() for k, v in TEMPLATES.items()} | {
            "messages": json.dumps({"messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "", "tool_calls": [{"f": [1]}]}]}).encode()},
        "job_spec": {k: v.encode() for k, v in SPECS.items()},
        "table": {k: v.encode() for k, v in TABLES.items()},
        "manifest": {k: v.encode() for k, v in MANIFESTS.items()},
        "wire_frames": dict(frames()),
        "http_target": {"job": b"/v1/jobs/j1:cancel?a=b%20c&d", "file":
                        b"/v1/models/a%2Fb/versions/3/files/x", "url": b"https://h:7600/lepton"},
        "image": {"grey": png(3, 2, 0, 8, [b"\1\2\3", b"\4\5\6"]),
                  "colour": png(2, 1, 2, 8, [b"\1\2\3\4\5\6"]),
                  "alpha": png(1, 1, 6, 8, [b"\1\2\3\4"]),
                  "bits": png(8, 1, 0, 1, [b"\xaa"]),
                  **{case["name"].removesuffix(".jpg") + "_jpeg": base64.b64decode(case["file"])
                     for case in json.loads((ROOT / "tests/golden/image/cases.json").read_text())
                     if case["name"].endswith(".jpg")}},
    }
    for target, inputs in seeds.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (folder / target / name).write_bytes(data)
    # Beside those: whole models of the exporters.
    for name in ("mlp", "bert", "gpt"):
        source = ROOT / "tests/golden/onnx" / name / "model.onnx"
        (folder / "onnx_model" / ("exported_" + name)).write_bytes(source.read_bytes())
    (folder / "onnx_parts").mkdir(exist_ok=True)
    for name in ("mlp", "resnet", "gpt"):
        source = ROOT / "tests/golden/onnx" / name / "model.onnx"
        (folder / "onnx_parts" / name).write_bytes(source.read_bytes())


if __name__ == "__main__":
    main()
