#include "services/cli/help.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "services/cli/commands.h"

namespace switchyard {
namespace {

constexpr char kOverview[] =
    R"(switchyard serves mixture-of-experts models with attention and experts in separate processes

  switchyard up --model DIR     start a gateway, routers, expert shards and the autoscaler here
  switchyard status [--json]    what runs, where, and whether it is ready
  switchyard chat               talk to the model
  switchyard kill PROCESS       kill one process and see what happens to open streams
  switchyard inspect DIR        what a model directory holds
  switchyard convert DIR OUT    write its weights in another format
  switchyard manifest DIR       write or check the hashes of its files
  switchyard bench --model DIR  how fast this machine serves it, and where the time goes
  switchyard down               stop what 'up' started
  switchyard COMMAND --help     the options of a command
  switchyard --version

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not ready (status).
)";

struct CommandText {
  std::string_view command;
  const char* text;
};

constexpr CommandText kTexts[] = {
    {"up", R"(switchyard up --model DIR [options]: start everything on this machine

  --model DIR         Hugging Face directory (config.json, safetensors, tokenizer.json)
  --shards N          expert shards, 1 to 64 (2)
  --routers N         routers, 1 to 16 (1)
  --replicas N        copies of each expert on different shards, 1 to 16 (1)
  --port P            port of the API; 0 picks one (8080)
  --host H            address of the API (127.0.0.1); others than loopback need --api-keys
  --api-keys FILE     lines "name sha256:HEX"; requests need one of the keys
  --served-name NAME  name of the model in the API; may be given again (the directory's name)
  --threads N         compute threads of each router and shard (the cores, divided among the
                      routers; twice the cores, divided among the shards,
                      at most all cores each)
  --micro-batches N   1 or 2 (1)
  --step-tokens N     tokens per step at most
  --chunk-tokens N    tokens of one prompt chunk at most
  --cache-blocks N    blocks of the latent cache of each router
  --transport T       auto, tcp or shm between routers and shards (auto)
  --weights W         auto (as stored), bf16, int8 or int4 (auto)
  --state-dir DIR     logs, configuration, placement ($XDG_STATE_HOME/switchyard or
                      ~/.local/state/switchyard)
  --ready-seconds N   give up when not ready by then (600)
  --detach            return when ready, leave everything running

Without --detach it stays in the foreground; Ctrl-C stops everything in good order.
)"},
    {"down", R"(switchyard down [--state-dir DIR]: stop what 'up' started, gateway first

Open streams get up to 8 s to finish. Exit code 0 also when nothing ran.
)"},
    {"status", R"(switchyard status [--json] [--state-dir DIR]: what runs here

  --json   machine-readable; the form is in docs/cli.md. Exit code 3 when not ready.
)"},
    {"kill", R"(switchyard kill PROCESS [--state-dir DIR]: the chaos demo

Kills PROCESS (a name from 'switchyard status') with SIGKILL, waits until the supervisor has brought
it back and the API is ready again, and reports what happened to the requests that were open.
)"},
    {"chat",
     R"(switchyard chat [--url URL] [--api-key KEY] [--system TEXT] [--max-tokens N] [--state-dir DIR]

Reads lines, prints answers as they come; an empty line or Ctrl-D ends it. Without --url it talks to
the fleet of the state dir.
)"},
    {"bench",
     R"(switchyard bench --model DIR [options]: how fast this machine serves a model

Starts a fleet of its own, sends random prompts to its router, prints medians, and stops it.

  --batch LIST           requests at once in the decode cases ("1,8,32,128")
  --prompt-tokens N      of each of them (16)
  --generated-tokens N   of each of them (32)
  --prefill-tokens N     prompt of the prefill case; 0 leaves it out (512)
  --rounds N             of each case, after one that is not counted (3)
  --explain              where the time of a step goes
  --json                 one JSON object per case; progress goes to stderr
  --weights, --shards, --routers, --replicas, --threads, --micro-batches, --transport,
  --step-tokens, --chunk-tokens, --cache-blocks: as of 'up'
)"},
    {"inspect",
     R"(switchyard inspect DIR [options]: what a model directory holds

Architecture, parameters (total and active), formats by role, bytes per process, cache per token and
digest, from config.json and the headers of the weights.

  --shards N   expert shards the experts are divided among, 1 to 4096 (2)
  --weights W  what processes would keep the weights in: auto, bf16, int8 or int4 (auto)
  --json       machine-readable; the form is in docs/cli.md
)"},
    {"convert",
     R"(switchyard convert DIR OUT --weights W [options]: write weights in another format

Writes a model directory that serves the same tokens as DIR with 'up --weights W', but starts faster
and is smaller. OUT appears when all of it is written.

  --weights W  bf16, int8 or int4
  --threads N  threads that convert, 1 to 256 (the cores)
  --force      replace OUT when it is a model directory
)"},
    {"manifest",
     R"(switchyard manifest DIR [--check]: write or check the hashes of a model's files

Writes switchyard.manifest.json with size and SHA-256 of every file. Processes then take the model's
digest from it and refuse files that do not fit it.

  --check      read all files and compare them with the manifest that is there
)"}};

}  // namespace

bool AsksForHelp(const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(),
                     [](const std::string& word) { return word == "--help" || word == "-h"; });
}

int PrintHelp(const std::string& command) {
  const auto* found =
      std::find_if(std::begin(kTexts), std::end(kTexts),
                   [&command](const CommandText& each) { return each.command == command; });
  std::fputs(found == std::end(kTexts) ? kOverview : found->text, stdout);
  return kExitOk;
}

}  // namespace switchyard
