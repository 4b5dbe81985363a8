#!/bin/sh
# Runs pytest here with the interpreter $1 against the programs in $2; 77, ctest's word for a skip, when
# there is no such interpreter.
if [ ! -x "$1" ]; then
  echo "SKIPPED: no $1; make it with: python3 -m venv .venv && .venv/bin/pip install -r tests/integration/requirements.txt"
  exit 77
fi
cd "$(dirname "$0")" || exit 1
exec env SY_BIN_DIR="$2" PYTHONDONTWRITEBYTECODE=1 "$1" -m pytest
