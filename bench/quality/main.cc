// Logits of a model on given tokens, and what its weights take. bench/quality/table.py runs it and
// compares the logits.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/quality/scored_text.h"
#include "bench/quality/weight_report.h"
#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/engine/engine_loop.h"
#include "libs/engine/testing/inproc_cluster.h"
#include "services/cli/arguments.h"

namespace switchyard {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr const char* kUsage =
    "switchyard-quality --model DIR --tokens FILE --out FILE [--weights auto|bf16|int8|int4]\n"
    "                   [--threads N]\n"
    "  Writes the logits of the scored positions as little-endian f32 [chunk][position][vocabulary]"
    "\n  and prints, as one line of JSON, what the weights take.\n"
    "  tokens  {\"chunks\": [[ids], ...], \"scored_from\", \"scored_count\", \"vocab_size\"}\n";

struct QualityOptions {
  std::string model_dir;
  std::string tokens_file;
  std::string out_file;
  WeightChoice weights = WeightChoice::kAsStored;
  uint32_t threads = 1;
};

absl::StatusOr<QualityOptions> ReadOptions(const std::vector<std::string>& words) {
  Arguments arguments(words, {});
  QualityOptions options{.model_dir = arguments.Text("model", ""),
                         .tokens_file = arguments.Text("tokens", ""),
                         .out_file = arguments.Text("out", "")};
  const std::string weights = arguments.Text("weights", "auto");
  options.threads = arguments.Number("threads", 1, 1, 256);
  SY_RETURN_IF_ERROR(arguments.Finish());
  SY_ASSIGN_OR_RETURN(options.weights, ParseWeightChoice(weights));
  if (options.model_dir.empty() || options.tokens_file.empty() || options.out_file.empty()) {
    return InvalidArgument("--model, --tokens and --out are required");
  }
  return options;
}

// As a router that is not told otherwise.
Dtype CacheDtype(const ModelSpec& spec) {
  return spec.weight_dtype == Dtype::kF32 ? Dtype::kF32 : Dtype::kBf16;
}

// Runs one chunk as a prompt; `logits` then holds its scored positions.
absl::Status RunChunk(InprocCluster& cluster, RequestId id, std::vector<TokenId> tokens) {
  SY_RETURN_IF_ERROR(
      cluster.engine().Post({.id = id, .prompt = std::move(tokens), .max_tokens = 1}));
  if (!cluster.RunUntilIdle()) {
    return DeadlineExceeded("a chunk takes too long");
  }
  const std::vector<GenerationEnd>& ends = cluster.sink().Of(id).ends;
  return ends.size() == 1 ? ends[0].status : Internal("a chunk ended {} times", ends.size());
}

absl::Status WriteLogits(const QualityOptions& options, const ScoredText& text,
                         InprocCluster& cluster) {
  const ModelSpec& spec = cluster.checkpoint().spec();
  if (spec.vocab_size != text.vocab_size) {
    return InvalidArgument("{}: a vocabulary of {}, the model has {}", options.tokens_file,
                           text.vocab_size, spec.vocab_size);
  }
  std::vector<float> logits(size_t{text.scored_count} * text.vocab_size);
  EngineOptions engine;
  engine.scheduler.prefix_cache = false;  // Every position is computed.
  engine.cache_dtype = CacheDtype(spec);
  engine.logits_observer = [&](const RowOrigin& row, std::span<const float> values) {
    if (row.position >= text.scored_from && row.position < text.scored_end()) {
      const size_t first = size_t{row.position - text.scored_from} * text.vocab_size;
      std::copy(values.begin(), values.end(), logits.begin() + static_cast<ptrdiff_t>(first));
    }
  };
  cluster.StartEngine(std::move(engine));
  SY_ASSIGN_OR_RETURN(OutputFile out, OutputFile::Create(options.out_file));
  for (size_t i = 0; i < text.chunks.size(); ++i) {
    SY_RETURN_IF_ERROR(RunChunk(cluster, RequestId(i + 1), text.chunks[i]));
    SY_RETURN_IF_ERROR(out.Append(std::as_bytes(std::span<const float>(logits))));
  }
  return out.Finish();
}

absl::Status Run(const QualityOptions& options) {
  SY_ASSIGN_OR_RETURN(const ScoredText text, ReadScoredText(options.tokens_file));
  SY_ASSIGN_OR_RETURN(const WeightReport report,
                      MeasureWeights(options.model_dir, options.weights, options.threads));
  InprocCluster cluster({.model_dir = options.model_dir,
                         .shard_count = 2,
                         .threads = options.threads,
                         .weights = options.weights});
  SY_RETURN_IF_ERROR(WriteLogits(options, text, cluster));
  const Dtype cache = CacheDtype(cluster.checkpoint().spec());
  std::printf("%s\n", report.ToJson(options.weights, NameOf(cache)).c_str());
  return absl::OkStatus();
}

int Main(const std::vector<std::string>& words) {
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    std::printf("%s", kUsage);
    return 0;
  }
  const absl::StatusOr<QualityOptions> options = ReadOptions(words);
  const absl::Status done = options.ok() ? Run(*options) : options.status();
  if (!done.ok()) {
    std::fprintf(stderr, "switchyard-quality: %s\n", MessageOf(done).c_str());
    return options.ok() ? kExitFailed : kExitUsage;
  }
  return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  return switchyard::Main(std::vector<std::string>(argv + 1, argv + argc));
}
