#!/usr/bin/python3
"""Hugging Face folders through the command line: a run fine-tunes one and leaves another, which is
evaluated, added to a registry, served, exported and refused when it is damaged."""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ROOT, ClusterTest, lepton, main  # noqa: E402

GOLDENS = ROOT / "tests/golden/huggingface"
ROWS = [("a good film", "yes"), ("the cat sat on the mat", "yes"), ("good dog", "yes"),
        ("the film sat", "yes"), ("a bad film", "no"), ("the dog ran", "no"), ("bad cat", "no"),
        ("dog ran on a bad mat", "no")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sat", "ran", "on", "mat",
         "good", "bad", "film", "a"]


def write_tokenizer(path):
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": word, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, word in enumerate(WORDS[:4])],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {word: i for i, word in enumerate(WORDS)}}}))


def make_inputs(folder, golden="bert-masked"):
    """A folder of a body with a tokenizer, and texts with labels."""
    shutil.copytree(GOLDENS / golden, folder / "body")
    write_tokenizer(folder / "body/tokenizer.json")
    lines = ["text,label"] + [f"{text},{label}" for text, label in ROWS * 10]
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")


def tune_spec(**fields):
    return {"kind": "train", "name": "tuned",
            "dataset": {"uri": "texts.csv", "text": "text", "label": "label", "context": 8},
            "model": {"hf": "body"}, "optimizer": {"name": "adamw", "lr": 0.01},
            "batch_size": 16, "steps": 60, **fields}


class Runs(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-hf."))
        make_inputs(self.folder)

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run_spec(self, spec, ok=True):
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(spec))
        done = lepton("run", path, "--workers", 2, cwd=self.folder)
        self.assertEqual(done.returncode == 0, ok, done.stdout + done.stderr)
        out = self.folder / "lepton-runs" / spec["name"]
        return out if ok else done.stderr

    def test_a_body_is_tuned_and_leaves_a_folder_that_says_the_same(self):
        out = self.run_spec(tune_spec())
        config = json.loads((out / "model/config.json").read_text())
        self.assertEqual(config["architectures"], ["BertForSequenceClassification"])
        self.assertEqual(set(config["label2id"]), {"yes", "no"})
        self.assertEqual((out / "model/tokenizer.json").read_bytes(),
                         (self.folder / "body/tokenizer.json").read_bytes())
        first = json.loads((out / "manifest.json").read_text())
        self.assertGreater(first["metrics"]["test/accuracy"], 0.9)
        shutil.copytree(out / "model", self.folder / "again")
        out = self.run_spec({**tune_spec(name="checked"), "kind": "evaluate",
                             "model": {"hf": "again"}})
        job = json.loads((out / "job.json").read_text())
        self.assertEqual(job["metrics"]["test/loss"], first["metrics"]["test/loss"])

    def test_a_damaged_folder_is_refused_before_anything_runs(self):
        config = json.loads((self.folder / "body/config.json").read_text())
        for key, value, says in (("hidden_size", 9, "hidden_size"),
                                 ("position_embedding_type", "relative_key",
                                  "position_embedding_type"),
                                 ("num_hidden_layers", 3, "encoder.layer.2")):
            (self.folder / "body/config.json").write_text(json.dumps({**config, key: value}))
            error = self.run_spec(tune_spec(), ok=False)
            self.assertIn("model.hf", error)
            if key != "hidden_size":
                self.assertIn(says, error)


    def test_a_sentence_model_gives_embeddings(self):
        shutil.copytree(GOLDENS / "bert-sentences", self.folder / "sentences")
        write_tokenizer(self.folder / "sentences/tokenizer.json")
        spec = {"kind": "batch", "name": "embedded", "model": {"hf": "sentences"},
                "dataset": {"uri": "texts.csv", "text": "text"}, "output": {"format": "jsonl"}}
        out = self.run_spec(spec)
        rows = [json.loads(line)["values"]
                for line in (out / "predictions.jsonl").read_text().splitlines()]
        self.assertEqual(len(rows), len(ROWS) * 10)
        self.assertEqual(rows[:len(ROWS)], rows[len(ROWS):2 * len(ROWS)])
        for row in rows:
            self.assertEqual(len(row), 8)
            self.assertAlmostEqual(sum(x * x for x in row), 1, places=6)
        modules = json.loads((self.folder / "sentences/modules.json").read_text())
        modules[2]["type"] = "sentence_transformers.models.Dense"
        (self.folder / "sentences/modules.json").write_text(json.dumps(modules))
        self.assertIn("modules.json: 2: type \"sentence_transformers.models.Dense\" is not supported",
                      self.run_spec(spec, ok=False))


CHATS = [[{"role": "user", "content": "the cat sat"}],
         [{"role": "user", "content": "good dog"}, {"role": "assistant", "content": "a cat"},
          {"role": "user", "content": "on the mat"}]]
TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ '[SEP]' if message['role'] == 'user' else"
            " '[PAD]' }}{{ message['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}[PAD]{% endif %}")
PROMPTS = ["[CLS][SEP]the cat sat[PAD]", "[CLS][SEP]good dog[PAD]a cat[SEP]on the mat[PAD]"]


class Chats(unittest.TestCase):
    """Rows of messages are what the model's chat template makes of them."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-chat."))
        shutil.copytree(GOLDENS / "qwen2-lm", self.folder / "model")
        tokenizer = self.folder / "model/tokenizer.json"
        write_tokenizer(tokenizer)
        # Prompts written out get no further tokens, so that both are the same.
        tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "post_processor": None}))
        self.config = self.folder / "model/tokenizer_config.json"
        self.config.write_text(json.dumps({"chat_template": TEMPLATE, "bos_token": "[CLS]"}))
        (self.folder / "chats.jsonl").write_text("".join(
            json.dumps({"messages": chat, "body": {"messages": chat}}) + "\n" for chat in CHATS))
        (self.folder / "prompts.csv").write_text("\n".join(["text", *PROMPTS]) + "\n")

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, dataset, ok=True, **fields):
        spec = {"kind": "batch", "name": "asked", "model": {"hf": "model"}, "dataset": dataset,
                "output": {"format": "jsonl"}, "generate": {"max_tokens": 6}, **fields}
        (self.folder / "job.yaml").write_text(json.dumps(spec))
        done = lepton("run", "job.yaml", "--workers", 1, cwd=self.folder)
        self.assertEqual(done.returncode == 0, ok, done.stdout + done.stderr)
        if not ok:
            return done.stdout + done.stderr
        return (self.folder / "lepton-runs/asked/predictions.jsonl").read_text()

    def test_the_answers_are_those_of_the_prompts_written_out(self):
        wanted = self.ask({"uri": "prompts.csv", "text": "text"})
        self.assertEqual(len(wanted.splitlines()), 2)
        self.assertTrue(any(json.loads(line)["generated"] for line in wanted.splitlines()), wanted)
        # How likely a question is, nobody asks.
        answers = [json.loads(line) for line in wanted.splitlines()]
        self.assertEqual(set(answers[0]), {"row", "tokens", "loss", "perplexity", "generated"})
        wanted = "".join(json.dumps({"row": answer["row"], "generated": answer["generated"]},
                                    separators=(",", ":"), ensure_ascii=False) + "\n" for answer in answers)
        self.assertEqual(self.ask({"uri": "chats.jsonl", "messages": "messages"}), wanted)
        self.assertEqual(self.ask({"uri": "chats.jsonl", "messages": "body"}), wanted)
        # As JSON in a column of CSV, and by the file that newer folders have.
        cells = [json.dumps(chat).replace('"', '""') for chat in CHATS]
        (self.folder / "chats.csv").write_text("\n".join(["n,chat"] + [f'{i},"{c}"' for i, c in
                                                                      enumerate(cells)]) + "\n")
        self.config.write_text(json.dumps({"bos_token": {"content": "[CLS]"}}))
        (self.folder / "model/chat_template.jinja").write_text(TEMPLATE)
        self.assertEqual(self.ask({"uri": "chats.csv", "messages": "chat"}), wanted)

    def test_what_cannot_be_asked_says_why(self):
        chats = {"uri": "chats.jsonl", "messages": "messages"}
        self.assertIn("dataset.messages: no column \"chat\"", self.ask({**chats, "messages": "chat"}, False))
        self.assertIn("cannot go with dataset.text", self.ask({**chats, "text": "messages"}, False))
        self.assertIn("generate.max_tokens", self.ask(chats, False, generate={"max_tokens": 0}))
        self.assertIn("row 1: messages: 6 tokens, but the context is 4",
                      self.ask({**chats, "context": 4}, False))
        (self.folder / "chats.csv").write_text(
            'chat\n"[{""role"":""user"",""content"":""a cat""}]"\nhello\n')
        self.assertIn("row 2: messages: not JSON", self.ask({"uri": "chats.csv", "messages": "chat"}, False))
        self.config.write_text("{}")
        self.assertIn("dataset.messages: the model has no chat_template", self.ask(chats, False))


class Registry(ClusterTest):
    workers = 1

    def run_cli(self, *args, ok=True):
        done = lepton(*args, "--coordinator", self.cluster.url)
        self.assertEqual(done.returncode == 0, ok, done.stdout + done.stderr)
        return done.stdout if ok else done.stderr

    def test_folders_come_and_go(self):
        folder = self.cluster.folder
        make_inputs(folder, "bert-texts")
        self.run_cli("model", "add", "uploaded", folder / "body")
        self.run_cli("model", "add", "read", folder / "body", "--by-path")
        versions = [self.cluster.get(f"/v1/models/{name}/versions/1")
                    for name in ("uploaded", "read")]
        self.assertEqual(versions[0]["weights_sha256"], versions[1]["weights_sha256"])
        self.run_cli("model", "export", "uploaded@1", folder / "out")
        out = json.loads((folder / "out/config.json").read_text())
        self.assertEqual(out["id2label"], {"0": "low", "1": "middle", "2": "high"})
        self.run_cli("model", "add", "again", folder / "out")
        again = self.cluster.get("/v1/models/again/versions/1")
        self.assertEqual(again["weights_sha256"], versions[0]["weights_sha256"])
        self.run_cli("model", "pull", "again@1", folder / "pulled")
        for args in ((), ("--by-path",)):  # the very same version, whichever way it comes
            self.run_cli("model", "add", "back", folder / "pulled", *args)
            back = self.cluster.get("/v1/models/back/versions/1")
            self.assertEqual(back["manifest"], again["manifest"])
        self.cluster.deploy("live", "again@1", replicas=1)
        status, answer = self.cluster.call("POST", "/v1/deployments/live:predict",
                                           {"rows": [{"text": "a good film"}, {"text": "the cat"}]})
        self.assertEqual(status, 200, answer)
        for prediction in answer["predictions"]:
            self.assertIn(prediction["label"], ("low", "middle", "high"))
        (folder / "out/config.json").unlink()
        self.assertIn("config.json", self.run_cli("model", "add", "bad", folder / "out", ok=False))
        self.assertIn("config.json",
                      self.run_cli("model", "add", "bad", folder / "out", "--by-path", ok=False))
        self.assertIn("outside",
                      self.run_cli("model", "add", "bad", "/etc", "--by-path", ok=False))

    def test_sentence_models_say_the_same_whichever_way_they_come(self):
        folder = self.cluster.folder / "sentence-model"
        shutil.copytree(GOLDENS / "bert-sentences", folder)
        write_tokenizer(folder / "tokenizer.json")
        self.run_cli("model", "add", "sent-uploaded", folder)
        self.run_cli("model", "add", "sent-read", folder, "--by-path")
        out = self.cluster.folder / "sentences-out"
        self.run_cli("model", "export", "sent-uploaded@1", out)
        self.assertEqual(json.loads((out / "sentence_bert_config.json").read_text())["max_seq_length"], 8)
        self.run_cli("model", "add", "sent-again", out)
        answers = []
        for name in ("sent-uploaded", "sent-read", "sent-again"):
            self.cluster.deploy(name, name + "@1", replicas=1)
            status, answer = self.cluster.call("POST", f"/v1/deployments/{name}:predict",
                                               {"rows": [{"text": "a good film"}, {"text": "cat"}]})
            self.assertEqual(status, 200, answer)
            answers.append(answer["predictions"])
            self.run_cli("deploy", "rm", name)
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])
        self.assertAlmostEqual(sum(x * x for x in answers[0][0]["values"]), 1, places=6)


if __name__ == "__main__":
    main()
