// Output is bit-identical whatever the batch, the chunks, the shards, the threads, the instruction
// set, preemption or migration: the F32 logits of every position are compared by hash, on random
// weights and on the demo model.

#include "tests/integration/same_tokens.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

constexpr uint64_t kSeed = 20261122;
constexpr uint32_t kPromptMax = 40;

enum class Model { kRandom, kDemo };

class SameTokens : public testing::TestWithParam<Model> {
 protected:
  SameTokens() : trace_(__FILE__, __LINE__, testing::Message() << "seed " << kSeed) {
    if (GetParam() == Model::kRandom) {
      random_.emplace();
    }
  }

  std::string model_dir() const { return random_ ? random_->dir() : "models/demo"; }

  // What the router takes for such a checkpoint.
  Dtype cache_dtype() const { return random_ ? Dtype::kF32 : Dtype::kBf16; }

  std::vector<GenerationRequest> Requests(uint32_t count) const {
    return RandomRequests(kSeed, count, kPromptMax,
                          ModelSpec::Load(model_dir()).value().vocab_size);
  }

  RunShape Shape() const { return {.cache_dtype = cache_dtype()}; }

  // One shard, one thread, whole prompts, each request on its own.
  Traces Expected(const std::vector<GenerationRequest>& requests) const {
    return Expected(requests, cache_dtype());
  }

  Traces Expected(const std::vector<GenerationRequest>& requests, Dtype cache) const {
    InprocCluster cluster({.model_dir = model_dir()});
    return RunAlone(cluster, {.cache_dtype = cache}, requests);
  }

  std::optional<TinyCheckpoint> random_;
  testing::ScopedTrace trace_;
};

TEST_P(SameTokens, TracesHoldEveryPositionAndDifferBetweenRequests) {
  const std::vector<GenerationRequest> requests = Requests(4);
  const Traces traces = Expected(requests);
  for (const GenerationRequest& request : requests) {
    const Trace& trace = traces.at(request.id);
    EXPECT_EQ(trace.tokens.size(), request.max_tokens);
    EXPECT_EQ(trace.logits_hashes.size(), request.prompt.size() + request.max_tokens - 1);
  }
  EXPECT_FALSE(traces.at(RequestId(1)) == traces.at(RequestId(2)));
}

TEST_P(SameTokens, ForAnyShardsThreadsChunksAndMicroBatches) {
  const std::vector<GenerationRequest> requests = Requests(32);
  const Traces expected = Expected(requests);
  for (const uint32_t shards : {1U, 2U, 4U}) {
    for (const uint32_t threads : {1U, 2U}) {
      InprocCluster cluster({.model_dir = model_dir(), .shard_count = shards, .threads = threads});
      for (const uint32_t chunk : {16U, 512U}) {
        for (const uint32_t micro_batches : {1U, 2U}) {
          SCOPED_TRACE(testing::Message()
                       << shards << " shards, " << threads << " threads, chunks of " << chunk
                       << ", " << micro_batches << " micro-batches");
          const RunShape shape{.chunk_tokens_max = chunk,
                               .micro_batches = micro_batches,
                               .cache_dtype = cache_dtype()};
          ExpectSame(expected, RunTogether(cluster, shape, requests));
          ASSERT_FALSE(HasFailure());
        }
      }
      ExpectSame(expected, RunAlone(cluster, {.chunk_tokens_max = 16, .cache_dtype = cache_dtype()},
                                    {requests.begin(), requests.begin() + 4}));
    }
  }
}

TEST_P(SameTokens, ForEveryBatchSizeTo64) {
  const std::vector<GenerationRequest> requests = Requests(64);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2});
  for (uint32_t size = 1; size <= 64; ++size) {
    SCOPED_TRACE(testing::Message() << "batch of " << size);
    ExpectSame(expected,
               RunTogether(cluster, Shape(), {requests.begin(), requests.begin() + size}));
    ASSERT_FALSE(HasFailure());
  }
}

TEST_P(SameTokens, ForEveryReplicaChoiceAndCacheBlockSize) {
  const std::vector<GenerationRequest> requests = Requests(16);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 3, .replica_count = 2});
  for (const uint32_t block_tokens : {8U, 64U}) {
    SCOPED_TRACE(testing::Message() << "cache blocks of " << block_tokens);
    ExpectSame(expected,
               RunTogether(cluster, {.block_tokens = block_tokens, .cache_dtype = cache_dtype()},
                           requests));
  }
}

TEST_P(SameTokens, ForEveryInstructionSetOfThisProcessor) {
  const std::vector<GenerationRequest> requests = Requests(8);
  const Traces expected = Expected(requests);
  for (const InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(testing::Message() << NameOf(set));
    InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .instruction_set = set});
    ExpectSame(expected, RunTogether(cluster, Shape(), requests));
  }
}

TEST_P(SameTokens, WithABf16Cache) {
  const std::vector<GenerationRequest> requests = Requests(16);
  const Traces expected = Expected(requests, Dtype::kBf16);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2});
  for (const uint32_t chunk : {5U, 16U, 512U}) {
    SCOPED_TRACE(testing::Message() << "chunks of " << chunk);
    ExpectSame(
        expected,
        RunTogether(cluster,
                    {.chunk_tokens_max = chunk, .micro_batches = 2, .cache_dtype = Dtype::kBf16},
                    requests));
  }
}

TEST_P(SameTokens, WhenPreemptedAfterEveryPosition) {
  std::vector<GenerationRequest> requests = Requests(3);
  requests[0].prompt.resize(12, 5);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2});
  const uint32_t positions = 12 + requests[0].max_tokens;
  uint32_t preempted_count = 0;
  for (uint32_t position = 1; position < positions; ++position) {
    SCOPED_TRACE(testing::Message() << "preempted after position " << position);
    // Chunks of one token: each step computes the next position of each sequence.
    const Traces traces =
        RunTogether(cluster, {.chunk_tokens_max = 1, .cache_dtype = cache_dtype()}, requests,
                    [&](EngineLoop& engine, uint32_t step_count) {
                      if (step_count == position && engine.Preempt(requests[0].id)) {
                        ++preempted_count;
                      }
                    });
    ExpectSame(expected, traces);
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GE(preempted_count, positions - 4);
}

TEST_P(SameTokens, WhenBlocksRunOut) {
  const std::vector<GenerationRequest> requests = Requests(16);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2});
  for (const uint32_t cache_blocks : {4U, 7U, 12U}) {
    SCOPED_TRACE(testing::Message() << cache_blocks << " cache blocks");
    ExpectSame(expected, RunTogether(cluster,
                                     {.chunk_tokens_max = 16,
                                      .cache_blocks = cache_blocks,
                                      .cache_dtype = cache_dtype()},
                                     requests));
  }
}

TEST_P(SameTokens, WhenAStreamMovesAtEveryToken) {
  std::vector<GenerationRequest> requests = Requests(2);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2});
  for (size_t which = 0; which < requests.size(); ++which) {
    const Trace& whole = expected.at(requests[which].id);
    for (size_t split = 1; split < whole.tokens.size(); ++split) {
      SCOPED_TRACE(testing::Message() << "request " << which << " moved after " << split);
      GenerationRequest moved = requests[which];
      moved.resumed.assign(whole.tokens.begin(),
                           whole.tokens.begin() + static_cast<ptrdiff_t>(split));
      for (const uint32_t chunk : {16U, 512U}) {
        Traces traces = RunTogether(
            cluster, {.chunk_tokens_max = chunk, .cache_dtype = cache_dtype()}, {moved});
        std::vector<TokenId>& tokens = traces[moved.id].tokens;
        tokens.insert(tokens.begin(), moved.resumed.begin(), moved.resumed.end());
        ExpectSame(expected, traces);
        ASSERT_FALSE(HasFailure());
      }
    }
  }
}

TEST_P(SameTokens, FromTwoRoutersThatShareTheShards) {
  const std::vector<GenerationRequest> requests = Requests(32);
  const Traces expected = Expected(requests);
  InprocCluster first({.model_dir = model_dir(), .shard_count = 2});
  InprocCluster second({.model_dir = model_dir(), .shards_of = &first});
  const auto middle = requests.begin() + 16;
  Traces of_second;
  std::thread other([&] { of_second = RunTogether(second, Shape(), {middle, requests.end()}); });
  const Traces of_first = RunTogether(first, Shape(), {requests.begin(), middle});
  other.join();
  ExpectSame(expected, of_first);
  ExpectSame(expected, of_second);
}

INSTANTIATE_TEST_SUITE_P(Random, SameTokens, testing::Values(Model::kRandom));
INSTANTIATE_TEST_SUITE_P(Demo, SameTokens, testing::Values(Model::kDemo));

}  // namespace
}  // namespace switchyard
