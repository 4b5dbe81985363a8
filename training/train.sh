#!/bin/sh
# Retrains the demo model into models/demo. Extra options go to train.py (a later one wins).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
OMP_NUM_THREADS=1 exec "${PYTHON:-python3}" "$here/train.py" --out "$here/../models/demo" \
  --steps 823 "$@"
