#!/usr/bin/env bash
# Everything that guards a promise, in parts; what each took is printed near the end. The closing lines are ctest's own.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"
jobs=${JOBS:-$(nproc)}
times=()
part() {  # part NAME COMMAND...
  local name=$1 begun=$SECONDS
  shift
  echo "== $name"
  "$@"
  times+=("$(printf '%-22s %4d s' "$name" $((SECONDS - begun)))")
}
quiet_ninja() {  # the last lines say it all when it fails
  local log
  log=$(mktemp)
  if ! ninja -j "$jobs" "$@" > "$log" 2>&1; then tail -n 60 "$log"; rm -f "$log"; return 1; fi
  tail -n 1 "$log"; rm -f "$log"
}
configure() { cmake --preset "$1" > /dev/null; }
build() { configure "$1" && quiet_ninja -C "$2"; }
sanitized() {  # sanitized PRESET [ctest arguments]
  local preset=$1
  shift
  ctest --test-dir "build/$preset" --no-tests=error --output-on-failure -j "$jobs" "$@"
}

part setup tools/setup.sh --tests
part lint tools/lint.sh
part build-release build release build
part build-asan build asan build/asan
part test-asan sanitized asan -LE 'integration|slow'
part build-tsan build tsan build/tsan
part test-tsan sanitized tsan -LE 'integration|slow'
part build-fuzz build fuzz build/fuzz
part test-fuzz sanitized fuzz -L fuzz
result=build/test-result.txt
begun=$SECONDS
status=0
ctest --test-dir build --no-tests=error --output-on-failure -j 1 > >(tee "$result") 2>&1 || status=$?
wait
times+=("$(printf '%-22s %4d s' test-release $((SECONDS - begun)))")
echo "== time per part"
printf '   %s\n' "${times[@]}"
sed -n '/tests passed/,$p' "$result"
exit "$status"
