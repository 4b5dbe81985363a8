#include "tests/integration/same_tokens.h"

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#include "gtest/gtest.h"

#include "libs/base/check.h"
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

// Keeps the hash of each position's logits and insists that a repeat gives the same. A position
// that was not computed has 0.
class HashRecorder {
 public:
  void operator()(const RowOrigin& row, std::span<const float> logits) {
    std::vector<uint64_t>& hashes = hashes_[row.request];
    const uint64_t hash = HashOf(logits);
    if (row.position >= hashes.size()) {
      hashes.resize(row.position + 1);
    }
    if (hashes[row.position] != 0) {
      EXPECT_EQ(hashes[row.position], hash)
          << "request " << row.request.value() << " position " << row.position << " computed again";
    }
    hashes[row.position] = hash;
  }

  std::vector<uint64_t> Take(RequestId id) { return std::move(hashes_[id]); }

 private:
  std::map<RequestId, std::vector<uint64_t>> hashes_;
};

EngineOptions OptionsOf(const RunShape& shape, HashRecorder& recorder) {
  EngineOptions options;
  options.scheduler = {.step_tokens_max = 1024,
                       .chunk_tokens_max = shape.chunk_tokens_max,
                       .block_tokens = shape.block_tokens,
                       .prefix_cache = shape.prefix_cache};
  options.split = {.micro_batches = shape.micro_batches, .rows_min = 2};
  options.cache_blocks = shape.cache_blocks;
  options.cache_dtype = shape.cache_dtype;
  options.logits_observer = std::ref(recorder);
  return options;
}

void Post(EngineLoop& engine, const GenerationRequest& request) {
  const absl::Status posted = engine.Post(request);
  EXPECT_TRUE(posted.ok()) << posted;
}

// What became of requests that have ended.
Traces TracesOf(InprocCluster& cluster, HashRecorder& recorder,
                const std::vector<GenerationRequest>& requests, bool prefix_cache) {
  Traces traces;
  for (const GenerationRequest& request : requests) {
    const RecordingSink::Record& record = cluster.sink().Of(request.id);
    EXPECT_EQ(record.ends.size(), 1U);
    Trace& trace = traces[request.id];
    for (const GenerationEnd& end : record.ends) {
      EXPECT_TRUE(end.status.ok()) << end.status;
      trace.cached_prompt_tokens = end.cached_prompt_tokens;
    }
    trace.tokens = record.ids();
    trace.logits_hashes = recorder.Take(request.id);
    if (!prefix_cache) {
      EXPECT_EQ(std::ranges::count(trace.logits_hashes, 0U), 0) << "a position was skipped";
    }
  }
  const EngineStatus status = cluster.engine().status();
  EXPECT_EQ(status.free_blocks, status.total_blocks);
  return traces;
}

TinyCheckpointOptions WrittenFor(RandomModel model) {
  TinyCheckpointOptions options;
  if (model != RandomModel::kF32) {
    options.spec.hidden_size = 144;
    options.spec.dense_intermediate_size = 136;
    options.spec.expert_intermediate_size = 40;
    options.spec.q_lora_rank = 40;
  }
  return options;
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(RandomModel model) : written_(WrittenFor(model)) {
  if (model == RandomModel::kRaggedFp8 || model == RandomModel::kRaggedFp8Ue8m0) {
    const Fp8Scales scales = model == RandomModel::kRaggedFp8 ? Fp8Scales::kF32 : Fp8Scales::kUe8m0;
    const absl::Status status =
        RewriteCheckpointAsFp8(written_.dir(), fp8_.emplace().path(), scales);
    SY_CHECK(status.ok());
  }
}

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
    Post(engine, request);
  }
  uint32_t step_count = 0;
  EXPECT_TRUE(cluster.RunUntil([&] {
    if (after_step) {
      after_step(engine, step_count++);
    }
    return engine.live_count() == 0;
  }));
  return TracesOf(cluster, recorder, requests, shape.prefix_cache);
}

Traces RunAlone(InprocCluster& cluster, const RunShape& shape,
                const std::vector<GenerationRequest>& requests) {
  Traces traces;
  for (const GenerationRequest& request : requests) {
    traces.merge(RunTogether(cluster, shape, {request}));
  }
  return traces;
}

Traces RunInTurn(InprocCluster& cluster, const RunShape& shape,
                 const std::vector<GenerationRequest>& requests) {
  HashRecorder recorder;
  EngineLoop& engine = cluster.StartEngine(OptionsOf(shape, recorder));
  for (const GenerationRequest& request : requests) {
    Post(engine, request);
    EXPECT_TRUE(cluster.RunUntilIdle());
  }
  return TracesOf(cluster, recorder, requests, shape.prefix_cache);
}

void ExpectSame(const Traces& expected, const Traces& actual) {
  for (const auto& [id, trace] : actual) {
    const auto found = expected.find(id);
    ASSERT_NE(found, expected.end());
    ASSERT_FALSE(trace.logits_hashes.empty());
    ASSERT_EQ(found->second.tokens, trace.tokens) << "request " << id.value();
    ASSERT_EQ(found->second.logits_hashes.size(), trace.logits_hashes.size());
    for (size_t position = 0; position < trace.logits_hashes.size(); ++position) {
      ASSERT_TRUE(trace.logits_hashes[position] == 0 ||
                  trace.logits_hashes[position] == found->second.logits_hashes[position])
          << "request " << id.value() << " position " << position;
    }
  }
}

}  // namespace switchyard
