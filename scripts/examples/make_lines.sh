#!/usr/bin/env bash
# Lines of this repository with the language each is written in, as CSV on standard output: a small
# real table of texts.   make_lines.sh [lines of each language, default 600]
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${1:-600}
echo "line,language"
for kind in cpp:cc python:py prose:md shell:sh; do
  find cli collectives runtime scheduler storage worker tests scripts bench docs README.md \
    -name "*.${kind#*:}" | LC_ALL=C sort | xargs -d '\n' cat |
    awk -v language="${kind%%:*}" -v count="$count" '
      { gsub(/^[ \t]+|[ \t]+$/, "") }
      length($0) >= 12 && !seen[$0]++ && n < count {
        n++; gsub(/"/, "\"\""); print "\"" $0 "\"," language
      }'
done
