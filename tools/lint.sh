#!/usr/bin/env bash
# House rules, formatting and generated documents. `tools/lint.sh --tidy` also runs clang-tidy on changed sources.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 tools/tidy.py
python3 tools/gen_docs.py --check
mapfile -t sources < <(git ls-files --cached --others --exclude-standard '*.h' '*.cc')
.venv/bin/clang-format --dry-run --Werror "${sources[@]}"
echo "format: ${#sources[@]} sources as .clang-format wants them"
if [ "${1:-}" = --tidy ]; then
  base=${2:-HEAD}
  mapfile -t changed < <(git diff --name-only --diff-filter=d "$base" -- '*.cc')
  if ((${#changed[@]})); then .venv/bin/clang-tidy -p build --quiet "${changed[@]}"; fi
fi
