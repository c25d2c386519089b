#!/usr/bin/python3
"""Called by compare_public.sh, with the public python3-sentencepiece:

    train OUT.json OUT.model       a Unigram model of a few thousand pieces of this repository's words,
                                   with SentencePiece's nmt_nfkc, and as a tokenizer.json
    small OUT.json OUT.model       of a few hundred, whose normaliser knows no other characters than
                                   those of nasty_texts.json
    lines FILE.model TEXTS.json    what SentencePiece makes of texts: {ids, tokens, offsets}
    compare TEXTS.json PUBLIC OURS such lines with ours

The reference, which we follow, does not make the same of all texts as SentencePiece:
- it looks a whole grapheme up among the normaliser's rules, and where that is none its first characters
  alone, so that a base with combining marks, and Korean letters, may lose or keep some;
- it finds special tokens that a text spells out, SentencePiece takes only what a caller gives as such;
- of splits of one score (the same pieces in another order) the two may take different ones.
"""
import base64
import json
import pathlib
import struct
import sys
import unicodedata

import sentencepiece

ROOT = pathlib.Path(__file__).resolve().parents[3]


def fields(message):
    """(number, value) of a protocol buffer's message; strings and messages as bytes."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if message[at - 1] < 128:
                return value, at
    at = 0
    while at < len(message):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        elif key & 7 == 2:
            size, at = varint(at)
            value, at = message[at:at + size], at + size
        else:
            size = 4 if key & 7 == 5 else 8
            value, at = message[at:at + size], at + size
        yield key >> 3, value


def tokenizer_json(model):
    """As transformers writes T5's, without its sentinels."""
    pieces, charsmap = [], b""
    for number, value in fields(model):
        if number == 1:
            piece = dict(fields(value))
            pieces.append([piece[1].decode(), struct.unpack("<f", piece[2])[0]])
        elif number == 3:
            charsmap = dict(fields(value))[2]
    names = [piece for piece, _ in pieces]
    special = [{"id": i, "content": names[i], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i in range(3)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled",
                 "precompiled_charsmap": base64.b64encode(charsmap).decode()},
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                              "split": True},
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                          {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                               "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                                        {"SpecialToken": {"id": "</s>", "type_id": 0}},
                                        {"Sequence": {"id": "B", "type_id": 0}},
                                        {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                               "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
            "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                        "split": True},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}}


def nasty():
    return json.loads((pathlib.Path(__file__).resolve().parent / "nasty_texts.json").read_text())


def fit(texts, out, model, **options):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=model.removesuffix(".model"),
        model_type="unigram", minloglevel=2, num_threads=2, **options)
    pathlib.Path(out).write_text(json.dumps(tokenizer_json(pathlib.Path(model).read_bytes())))


def train(out, model):
    texts = nasty()
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/**/*.md")]):
        if "build" not in page.relative_to(ROOT).parts:
            texts += page.read_text().splitlines()
    fit(texts, out, model, vocab_size=4000, character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc")


def small(out, model):
    text = "\n".join(nasty())
    sources = set(text) | {text[i:i + n] for n in (2, 3) for i in range(len(text))}
    rules = {}
    for source in sorted(sources):
        target = " " if source.isspace() else unicodedata.normalize("NFKC", source)
        if target != source and "\0" not in source and len(source) < 4:
            rules[source] = target
    for zero_width in "\u200b\u200c\u2060\ufeff\u00ad":
        rules[zero_width] = ""
    with open(model + ".tsv", "w") as file:
        for source, target in rules.items():
            hexes = [" ".join(f"{ord(c):X}" for c in side) for side in (source, target)]
            print(*hexes, sep="\t", file=file)
    fit(nasty() * 2, out, model, vocab_size=700, character_coverage=0.98,
        normalization_rule_tsv=model + ".tsv", hard_vocab_limit=False)


def lines(model, texts):
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    for text in json.loads(pathlib.Path(texts).read_text()):
        proto = processor.encode(text, out_type="immutable_proto")
        print(json.dumps({"ids": [piece.id for piece in proto.pieces],
                          "tokens": [piece.piece for piece in proto.pieces],
                          "offsets": [[piece.begin, piece.end] for piece in proto.pieces]}))


def is_other(text):
    """Whether the reference itself makes something else of a text."""
    return (any(unicodedata.category(c)[0] == "M" or 0x1100 <= ord(c) < 0x1200 or c in "\uff9e\uff9f"
                or c == "\u200d" for c in unicodedata.normalize("NFKD", text))
            or any(name in text for name in ("<unk>", "<s>", "</s>")))


def bare(word):
    return word.strip(" \u2581\n\t\r")


def compare(texts, theirs, own):
    bad = same = ids = 0
    for text, public, ours in zip(json.loads(pathlib.Path(texts).read_text()),
                                  pathlib.Path(theirs).read_text().strip().split("\n"),
                                  pathlib.Path(own).read_text().strip().split("\n"), strict=True):
        if is_other(text):
            continue
        public, ours = json.loads(public), json.loads(ours)
        if public["ids"] != ours["ids"][:-1] and sorted(public["ids"]) == sorted(ours["ids"][:-1]):
            continue
        same, ids = same + 1, ids + len(public["ids"])
        found = {"ids": ours["ids"][:-1] == public["ids"]}  # without </s>
        # SentencePiece gives the space before a word to it, and of one character that becomes
        # several all to the last piece.
        if found["ids"] and unicodedata.normalize("NFKC", text) == text:
            found["offsets"] = all(
                bare(text[a:b]) == bare(text[c:d]) or token == "\u2581"
                for (a, b), (c, d), token in zip(ours["offsets"], public["offsets"], ours["tokens"]))
        for field, right in found.items():
            if not right:
                bad += 1
                print(f"{text!r}: {field}: theirs {public[field]}, ours {ours[field]}")
    print(f"unigram (SentencePiece), {pathlib.Path(texts).stem}: {same} texts, {ids} ids, ids, offsets: "
          f"{bad} differences")
    sys.exit(1 if bad or not ids else 0)


if __name__ == "__main__":
    {"train": train, "small": small, "lines": lines, "compare": compare}[sys.argv[1]](*sys.argv[2:])
