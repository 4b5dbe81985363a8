#include "tests/integration/same_tokens.h"

#include <bit>
#include <span>
#include <utility>

#include "gtest/gtest.h"

#include "libs/base/rng.h"

namespace switchyard {
namespace {

constexpr uint32_t kGeneratedTokens = 10;

// FNV-1a over whole words.
uint64_t HashOf(std::span<const float> values) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const float value : values) {
    hash = (hash ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3ULL;
  }
  return Mix64(hash);
}

// Keeps the hash of each position's logits and insists that a repeat gives the same.
class HashRecorder {
 public:
  void operator()(const RowOrigin& row, std::span<const float> logits) {
    std::vector<uint64_t>& hashes = hashes_[row.request];
    const uint64_t hash = HashOf(logits);
    if (row.position < hashes.size()) {
      EXPECT_EQ(hashes[row.position], hash)
          << "request " << row.request.value() << " position " << row.position << " computed again";
      return;
    }
    EXPECT_EQ(hashes.size(), row.position) << "a position was skipped";
    hashes.push_back(hash);
  }

  std::vector<uint64_t> Take(RequestId id) { return std::move(hashes_[id]); }

 private:
  std::map<RequestId, std::vector<uint64_t>> hashes_;
};

EngineOptions OptionsOf(const RunShape& shape, HashRecorder& recorder) {
  EngineOptions options;
  options.scheduler = {.step_tokens_max = 1024,
                       .chunk_tokens_max = shape.chunk_tokens_max,
                       .block_tokens = shape.block_tokens};
  options.split = {.micro_batches = shape.micro_batches};
  options.cache_blocks = shape.cache_blocks;
  options.cache_dtype = shape.cache_dtype;
  options.logits_observer = std::ref(recorder);
  return options;
}

}  // namespace

std::vector<GenerationRequest> RandomRequests(uint64_t seed, uint32_t count, uint32_t prompt_max,
                                              uint32_t vocab_size) {
  Rng rng(seed);
  std::vector<GenerationRequest> requests;
  for (uint32_t i = 0; i < count; ++i) {
    GenerationRequest request{.id = RequestId(i + 1), .max_tokens = kGeneratedTokens};
    request.prompt.resize(1 + rng.Below(prompt_max));
    for (TokenId& token : request.prompt) {
      token = static_cast<TokenId>(rng.Below(vocab_size));
    }
    request.sampling.temperature = i % 2 == 0 ? 0.0F : 1.0F;
    request.sampling.seed = rng.Next();
    requests.push_back(std::move(request));
  }
  return requests;
}

Traces RunTogether(InprocCluster& cluster, const RunShape& shape,
                   const std::vector<GenerationRequest>& requests, const AfterStep& after_step) {
  HashRecorder recorder;
  EngineLoop& engine = cluster.StartEngine(OptionsOf(shape, recorder));
  for (const GenerationRequest& request : requests) {
    const absl::Status posted = engine.Post(request);
    EXPECT_TRUE(posted.ok()) << posted;
  }
  uint32_t step_count = 0;
  EXPECT_TRUE(cluster.RunUntil([&] {
    if (after_step) {
      after_step(engine, step_count++);
    }
    return engine.live_count() == 0;
  }));
  Traces traces;
  for (const GenerationRequest& request : requests) {
    const RecordingSink::Record& record = cluster.sink().Of(request.id);
    EXPECT_EQ(record.ends.size(), 1U);
    for (const GenerationEnd& end : record.ends) {
      EXPECT_TRUE(end.status.ok()) << end.status;
    }
    traces[request.id] = {.tokens = record.ids(), .logits_hashes = recorder.Take(request.id)};
  }
  const EngineStatus status = engine.status();
  EXPECT_EQ(status.free_blocks, status.total_blocks);
  return traces;
}

Traces RunAlone(InprocCluster& cluster, const RunShape& shape,
                const std::vector<GenerationRequest>& requests) {
  Traces traces;
  for (const GenerationRequest& request : requests) {
    traces.merge(RunTogether(cluster, shape, {request}));
  }
  return traces;
}

void ExpectSame(const Traces& expected, const Traces& actual) {
  for (const auto& [id, trace] : actual) {
    const auto found = expected.find(id);
    ASSERT_NE(found, expected.end());
    ASSERT_FALSE(trace.logits_hashes.empty());
    ASSERT_EQ(found->second.tokens, trace.tokens) << "request " << id.value();
    ASSERT_EQ(found->second.logits_hashes, trace.logits_hashes) << "request " << id.value();
  }
}

}  // namespace switchyard
