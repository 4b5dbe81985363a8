#!/usr/bin/env bash
# Installs what is missing: Debian packages, the pinned Rust crates, the Python environment of the tests.
# Safe to run again; does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done < tools/apt-packages.txt
if ((${#missing[@]})); then
  echo "setup: installing ${#missing[@]} Debian packages: ${missing[*]}"
  sudo=()
  if [ "$(id -u)" != 0 ]; then sudo=(sudo); fi
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

export PATH="$PATH:$HOME/.cargo/bin"
rust_wanted=1.82
rust_is_enough() {
  local found
  found=$(rustc --version 2>/dev/null | awk '{print $2}')
  [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$rust_wanted" "$found" | sort -V | head -n1)" = "$rust_wanted" ]
}
if ! rust_is_enough && ! command -v rustc > /dev/null; then
  echo "setup: installing Rust from Debian (rustc-web, cargo-web)"
  sudo=()
  if [ "$(id -u)" != 0 ]; then sudo=(sudo); fi
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web cargo-web > /dev/null || true
fi
if ! rust_is_enough; then
  echo "setup: Rust $rust_wanted or newer is needed (found: $(rustc --version 2>/dev/null || echo none)). This gets it:" >&2
  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal" >&2
  exit 1
fi
cargo fetch --quiet --locked --manifest-path libs/text/rust/Cargo.toml

if [ "${1:-}" = --tests ]; then
  stamp=.venv/requirements.sha256
  wanted=$(sha256sum tests/integration/requirements.txt tools/lint-requirements.txt | sha256sum)
  if [ ! -x .venv/bin/python ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "setup: Python environment of the tests in .venv"
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r tests/integration/requirements.txt \
      -r tools/lint-requirements.txt
    echo "$wanted" > "$stamp"
  fi
fi
echo "setup: complete"
