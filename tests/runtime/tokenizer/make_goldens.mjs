// Writes tests/golden/tokenizer/{byte_level,byte_fallback,word_piece,unigram}.json: of each kind a small
// tokenizer.json, and what the reference implementation makes of nasty_texts.json with it.
//   NODE_MODULES=... make_goldens.mjs UNIGRAM.json OUT_FOLDER      called by make_goldens.sh
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";

const require = createRequire(path.join(process.env.NODE_MODULES, "x.js"));
const { Tokenizer } = require("tokenizers");
const here = path.dirname(new URL(import.meta.url).pathname);
const texts = JSON.parse(fs.readFileSync(path.join(here, "nasty_texts.json"), "utf8"));
const [unigram, out] = process.argv.slice(2);

function published(kind) {
  const file = path.join(out, "whole.tmp");
  execFileSync("node", [path.join(here, "compare_public.mjs"), "make", kind, file]);
  const json = JSON.parse(fs.readFileSync(file, "utf8"));
  fs.unlinkSync(file);
  return json;
}

// The file with no more tokens than these texts use, and those that they are merged from.
async function small(json) {
  const { vocab, merges } = json.model;
  const tokenizer = Tokenizer.fromString(JSON.stringify(json));
  const used = new Set(json.added_tokens.map((t) => t.content));
  const parts = new Map();
  for (const merge of merges ?? []) {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    const whole = pair.join("");
    parts.set(whole, [...(parts.get(whole) ?? []), pair]);
  }
  const take = (token) => {
    if (used.has(token)) return;
    used.add(token);
    for (const pair of parts.get(token) ?? []) pair.forEach(take);
  };
  for (const text of texts) (await tokenizer.encode(text)).getTokens().forEach(take);
  for (const token of Object.keys(vocab)) {
    if (/^<0x[0-9A-F]{2}>$/.test(token) || (merges && [...token].length === 1 && token.codePointAt(0) < 0x144)) take(token);
  }
  const names = Object.keys(vocab).filter((token) => used.has(token)).sort((a, b) => vocab[a] - vocab[b]);
  for (const { content } of json.added_tokens) if (!names.includes(content)) names.push(content);
  const ids = Object.fromEntries(names.map((token, id) => [token, id]));
  const inside = new Set(json.added_tokens.map((t) => t.content).filter((c) => !(c in vocab)));
  json.model.vocab = Object.fromEntries(Object.entries(ids).filter(([token]) => !inside.has(token)));
  if (merges) json.model.merges = merges.filter((m) => (typeof m === "string" ? m.split(" ") : m).every((p) => used.has(p)) && used.has(typeof m === "string" ? m.replace(" ", "") : m.join("")));
  for (const token of json.added_tokens) token.id = ids[token.content];
  for (const special of Object.values(json.post_processor?.special_tokens ?? {})) special.ids = special.tokens.map((t) => ids[t]);
  return json;
}

async function write(name, json) {
  const tokenizer = Tokenizer.fromString(JSON.stringify(json));
  const encodings = [];
  for (const text of texts) {
    const encoding = await tokenizer.encode(text);
    const ids = encoding.getIds();
    encodings.push({ ids, offsets: encoding.getOffsets().flat(), decoded: await tokenizer.decode(ids, true) });
  }
  const lines = encodings.map((e) => JSON.stringify(e)).join(",\n");
  fs.writeFileSync(path.join(out, `${name}.json`), `{"tokenizer":${JSON.stringify(json)},\n"encodings":[\n${lines}]}\n`);
}

await write("byte_level", await small(published("qwen3")));
await write("byte_fallback", await small(published("llama2")));
await write("word_piece", await small(published("bert")));
await write("unigram", JSON.parse(fs.readFileSync(unigram, "utf8")));
