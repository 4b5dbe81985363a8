#!/usr/bin/env bash
# Starts the demo model as real processes, streams one completion, shows that its expert work was done by
# the shards, prints the URLs and leaves everything serving.
set -euo pipefail
cd "$(dirname "$0")/.."
state=build/run
port=${PORT:-8080}
if ! build/bin/switchyard status --state-dir "$state" > /dev/null 2>&1; then
  build/bin/switchyard down --state-dir "$state" > /dev/null 2>&1 || true
  build/bin/switchyard up --model models/demo --served-name demo --shards 2 --port "$port" \
    --state-dir "$state" --detach
fi
status=$(build/bin/switchyard status --state-dir "$state" --json)
api=$(python3 -c 'import json,sys; print(json.loads(sys.argv[1])["api"])' "$status")
echo
echo "a streamed completion of: def is_empty(self):"
curl -sN --fail-with-body "$api/v1/completions" -H 'Content-Type: application/json' -d '{"model": "demo", "stream": true,
  "prompt": "def is_empty(self):\n", "max_tokens": 48, "temperature": 0}' |
  python3 -uc '
import json, sys
done = False
for line in sys.stdin:
    done = done or line.startswith("data: [DONE]")
    if line.startswith("data: {"):
        event = json.loads(line[6:])
        if "error" in event:
            sys.exit("the stream failed: " + event["error"]["message"])
        for choice in event["choices"]:
            print(choice["text"], end="", flush=True)
print()
sys.exit(0 if done else "the stream did not end in good order")'
echo
python3 - "$status" <<'PYTHON'
import json, sys, urllib.request
status = json.loads(sys.argv[1])
for name, url in sorted(status["metrics"].items()):
    if name.startswith("expert-shard"):
        text = urllib.request.urlopen(url, timeout=5).read().decode()
        rows = sum(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if l.startswith("switchyard_shard_tokens_total"))
        print(f"{name} computed {int(rows)} expert rows")
print(f"\nserving: {status['api']}/v1   (model \"demo\")")
for name, url in sorted(status["metrics"].items()):
    print(f"metrics: {url}   ({name})")
PYTHON
echo "logs:    $state/logs"
echo "'make stop' stops it; 'build/bin/switchyard --help' says what else there is"
