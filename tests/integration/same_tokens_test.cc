// Output is bit-identical whatever the batch, the chunks, the shards, the threads, the instruction
// set, preemption or migration: the F32 logits of every position are compared by hash, for every
// format of weights, on random ones and on the demo model.

#include "tests/integration/same_tokens.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

constexpr uint64_t kSeed = 20261122;
constexpr uint32_t kPromptMax = 40;

struct Case {
  const char* name;
  std::optional<RandomModel> random;  // Empty: the demo model.
  WeightChoice weights = WeightChoice::kAsStored;
};

void PrintTo(const Case& tested, std::ostream* out) { *out << tested.name; }

class SameTokens : public testing::TestWithParam<Case> {
 protected:
  SameTokens() : trace_(__FILE__, __LINE__, testing::Message() << "seed " << kSeed) {
    if (GetParam().random) {
      random_.emplace(*GetParam().random);
    }
  }

  std::string model_dir() const { return random_ ? random_->dir() : "models/demo"; }

  WeightChoice weights() const { return GetParam().weights; }

  // What the router takes for such a checkpoint.
  Dtype cache_dtype() const { return is_f32() ? Dtype::kF32 : Dtype::kBf16; }

  bool is_f32() const { return GetParam().random == RandomModel::kF32; }

  std::vector<GenerationRequest> Requests(uint32_t count) const {
    return RandomRequests(kSeed, count, kPromptMax,
                          ModelSpec::Load(model_dir()).value().vocab_size);
  }

  std::vector<TokenId> LongPrompt(uint32_t token_count) const {
    std::vector<TokenId> prompt =
        RandomRequests(kSeed + 1, 1, 1, ModelSpec::Load(model_dir()).value().vocab_size)[0].prompt;
    while (prompt.size() < token_count) {
      prompt.push_back((prompt.back() * 31 + 7) % 61);
    }
    return prompt;
  }

  RunShape Shape() const { return {.cache_dtype = cache_dtype()}; }

  // One shard, one thread, whole prompts, each request on its own.
  Traces Expected(const std::vector<GenerationRequest>& requests) const {
    return Expected(requests, cache_dtype());
  }

  Traces Expected(const std::vector<GenerationRequest>& requests, Dtype cache) const {
    InprocCluster cluster({.model_dir = model_dir(), .weights = weights()});
    return RunAlone(cluster, {.cache_dtype = cache}, requests);
  }

  std::optional<RandomCheckpoint> random_;
  testing::ScopedTrace trace_;
};

// Positions of a trace that were computed.
size_t ComputedCount(const Trace& trace) {
  return trace.logits_hashes.size() -
         static_cast<size_t>(std::ranges::count(trace.logits_hashes, 0U));
}

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
      InprocCluster cluster({.model_dir = model_dir(),
                             .shard_count = shards,
                             .threads = threads,
                             .weights = weights()});
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
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
  for (uint32_t size = 1; size <= 64; size += is_f32() || size < 9 ? 1 : 5) {
    SCOPED_TRACE(testing::Message() << "batch of " << size);
    ExpectSame(expected,
               RunTogether(cluster, Shape(), {requests.begin(), requests.begin() + size}));
    ASSERT_FALSE(HasFailure());
  }
}

TEST_P(SameTokens, ForEveryReplicaChoiceAndCacheBlockSize) {
  const std::vector<GenerationRequest> requests = Requests(16);
  const Traces expected = Expected(requests);
  InprocCluster cluster(
      {.model_dir = model_dir(), .shard_count = 3, .replica_count = 2, .weights = weights()});
  for (const uint32_t block_tokens : {8U, 64U}) {
    SCOPED_TRACE(testing::Message() << "cache blocks of " << block_tokens);
    ExpectSame(expected,
               RunTogether(cluster, {.block_tokens = block_tokens, .cache_dtype = cache_dtype()},
                           requests));
  }
}

TEST_P(SameTokens, ForEveryInstructionSetOfThisProcessor) {
  const std::vector<GenerationRequest> requests = Requests(random_ ? 8 : 4);
  const Traces expected = Expected(requests);
  for (const InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(testing::Message() << NameOf(set));
    InprocCluster cluster(
        {.model_dir = model_dir(), .shard_count = 2, .weights = weights(), .instruction_set = set});
    ExpectSame(expected, RunTogether(cluster, Shape(), requests));
  }
}

TEST_P(SameTokens, WithABf16Cache) {
  const std::vector<GenerationRequest> requests = Requests(16);
  const Traces expected = Expected(requests, Dtype::kBf16);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
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
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
  const uint32_t positions = 12 + requests[0].max_tokens;
  uint32_t preempted_count = 0;
  for (uint32_t position = 1; position < positions; ++position) {
    for (const bool prefix_cache : {false, true}) {
      SCOPED_TRACE(testing::Message() << "preempted after position " << position
                                      << (prefix_cache ? " with" : " without") << " prefix cache");
      // Chunks of one token: each step computes the next position of each sequence.
      const Traces traces =
          RunTogether(cluster,
                      {.chunk_tokens_max = 1,
                       .block_tokens = 8,
                       .cache_dtype = cache_dtype(),
                       .prefix_cache = prefix_cache},
                      requests, [&](EngineLoop& engine, uint32_t step_count) {
                        if (step_count == position && engine.Preempt(requests[0].id)) {
                          ++preempted_count;
                        }
                      });
      ExpectSame(expected, traces);
      ASSERT_FALSE(HasFailure());
    }
  }
  EXPECT_GE(preempted_count, 2 * (positions - 4));
}

TEST_P(SameTokens, WhenBlocksRunOut) {
  const std::vector<GenerationRequest> requests = Requests(16);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
  for (const uint32_t cache_blocks : {4U, 7U, 12U}) {
    for (const bool prefix_cache : {false, true}) {
      SCOPED_TRACE(testing::Message() << cache_blocks << " cache blocks"
                                      << (prefix_cache ? " with" : " without") << " prefix cache");
      ExpectSame(expected, RunTogether(cluster,
                                       {.chunk_tokens_max = 16,
                                        .cache_blocks = cache_blocks,
                                        .cache_dtype = cache_dtype(),
                                        .prefix_cache = prefix_cache},
                                       requests));
    }
  }
}

TEST_P(SameTokens, WhenABeginningIsInThePrefixCache) {
  std::vector<GenerationRequest> requests = Requests(12);
  const std::vector<TokenId> beginning = LongPrompt(50);
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<TokenId>& prompt = requests[i].prompt;
    prompt.insert(prompt.begin(), beginning.begin(),
                  beginning.begin() + static_cast<ptrdiff_t>(i * 17 % 51));
  }
  requests[7].prompt = requests[3].prompt;  // A whole prompt again.
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
  for (const uint32_t block_tokens : {8U, 16U}) {
    for (const uint32_t chunk : {7U, 512U}) {
      for (const uint32_t cache_blocks : {16U, 512U}) {
        SCOPED_TRACE(testing::Message() << "blocks of " << block_tokens << ", chunks of " << chunk
                                        << ", " << cache_blocks << " cache blocks");
        const RunShape shape{.chunk_tokens_max = chunk,
                             .cache_blocks = cache_blocks,
                             .block_tokens = block_tokens,
                             .cache_dtype = cache_dtype(),
                             .prefix_cache = true};
        const Traces in_turn = RunInTurn(cluster, shape, requests);
        ExpectSame(expected, in_turn);
        uint32_t hits = 0;
        for (const auto& [id, trace] : in_turn) {
          EXPECT_EQ(ComputedCount(trace) + trace.cached_prompt_tokens, trace.logits_hashes.size());
          hits += trace.cached_prompt_tokens;
        }
        EXPECT_GE(hits, cache_blocks == 512 ? 100U : 16U);
        ExpectSame(expected, RunTogether(cluster, shape, requests));
        ASSERT_FALSE(HasFailure());
      }
    }
  }
}

// A generated position is computed absorbed, one of a prompt expanded; their bits may differ, so
// they do not stand in for each other.
TEST_P(SameTokens, WhenAPromptRepeatsWhatWasGenerated) {
  std::vector<GenerationRequest> requests = Requests(4);
  requests[0].prompt = LongPrompt(21);
  requests[0].max_tokens = 30;
  const Traces first = Expected({requests[0]});
  const std::vector<TokenId>& generated = first.at(requests[0].id).tokens;
  requests[1] = requests[0];  // The answer as a part of the next prompt.
  requests[1].id = RequestId(2);
  requests[1].prompt.insert(requests[1].prompt.end(), generated.begin(), generated.end());
  requests[2] = requests[0];  // The stream moves here.
  requests[2].id = RequestId(3);
  requests[2].resumed.assign(generated.begin(), generated.begin() + 25);
  requests[3] = requests[1];  // That prompt again.
  requests[3].id = RequestId(4);
  const Traces expected = Expected(requests);
  const std::vector<uint64_t>& absorbed = expected.at(RequestId(1)).logits_hashes;
  const std::vector<uint64_t>& expanded = expected.at(RequestId(2)).logits_hashes;
  EXPECT_TRUE(std::equal(absorbed.begin(), absorbed.begin() + 21, expanded.begin()));
  if (is_f32()) {  // Rounding activations may hide what differs.
    EXPECT_FALSE(std::equal(absorbed.begin() + 21, absorbed.end(), expanded.begin() + 21));
  }
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
  const Traces actual = RunInTurn(
      cluster, {.block_tokens = 8, .cache_dtype = cache_dtype(), .prefix_cache = true}, requests);
  ExpectSame(expected, actual);
  EXPECT_EQ(actual.at(RequestId(1)).cached_prompt_tokens, 0U);
  EXPECT_EQ(actual.at(RequestId(2)).cached_prompt_tokens, 16U) << "the prompt's, not the answer's";
  EXPECT_EQ(actual.at(RequestId(3)).cached_prompt_tokens, 21U);
  EXPECT_EQ(ComputedCount(actual.at(RequestId(3))), 50U - 40U) << "also generated positions";
  EXPECT_EQ(actual.at(RequestId(4)).cached_prompt_tokens, 48U);
}

TEST_P(SameTokens, WhenAStreamMovesAtEveryToken) {
  std::vector<GenerationRequest> requests = Requests(2);
  const Traces expected = Expected(requests);
  InprocCluster cluster({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
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
  InprocCluster first({.model_dir = model_dir(), .shard_count = 2, .weights = weights()});
  InprocCluster second({.model_dir = model_dir(), .weights = weights(), .shards_of = &first});
  const auto middle = requests.begin() + 16;
  Traces of_second;
  std::thread other([&] { of_second = RunTogether(second, Shape(), {middle, requests.end()}); });
  const Traces of_first = RunTogether(first, Shape(), {requests.begin(), middle});
  other.join();
  ExpectSame(expected, of_first);
  ExpectSame(expected, of_second);
}

std::string NameOfCase(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Random, SameTokens,
                         testing::Values(Case{.name = "F32", .random = RandomModel::kF32}),
                         NameOfCase);
INSTANTIATE_TEST_SUITE_P(
    Formats, SameTokens,
    testing::Values(
        Case{.name = "Bf16", .random = RandomModel::kRagged, .weights = WeightChoice::kBf16},
        Case{.name = "Int8", .random = RandomModel::kRagged, .weights = WeightChoice::kInt8},
        Case{.name = "Int4", .random = RandomModel::kRagged, .weights = WeightChoice::kInt4},
        Case{.name = "F32AsInt8", .random = RandomModel::kF32, .weights = WeightChoice::kInt8},
        Case{.name = "Fp8", .random = RandomModel::kRaggedFp8},
        Case{.name = "Fp8Ue8m0", .random = RandomModel::kRaggedFp8Ue8m0},
        Case{.name = "Fp8AsInt4",
             .random = RandomModel::kRaggedFp8,
             .weights = WeightChoice::kInt4}),
    NameOfCase);
// kInt4 mixes: most in INT4; embedding, kv_b_proj, dense layers and head in INT8.
INSTANTIATE_TEST_SUITE_P(Demo, SameTokens,
                         testing::Values(Case{.name = "AsStored"},
                                         Case{.name = "Int4", .weights = WeightChoice::kInt4}),
                         NameOfCase);

}  // namespace
}  // namespace switchyard
