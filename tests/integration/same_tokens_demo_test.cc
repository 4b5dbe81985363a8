// The same comparison on the demo model that is in the repository.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tests/integration/same_tokens.h"

namespace switchyard {
namespace {

constexpr uint64_t kSeed = 7;
const char* const kModelDir = "models/demo";

struct DemoCase {
  uint32_t shard_count;
  uint32_t threads;
  uint32_t chunk_tokens_max;
  uint32_t micro_batches;
};

TEST(SameTokensDemo, ForAnyShardsThreadsChunksAndMicroBatches) {
  if (!std::filesystem::exists(std::string(kModelDir) + "/model.safetensors")) {
    GTEST_SKIP() << "SKIPPED: " << kModelDir << " is not there, the demo model was NOT checked";
  }
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  InprocCluster one({.model_dir = kModelDir});
  const std::vector<GenerationRequest> requests =
      RandomRequests(kSeed, 32, 24, one.checkpoint().spec().vocab_size);
  const Traces expected =
      RunAlone(one, {.cache_dtype = Dtype::kBf16}, {requests.begin(), requests.begin() + 8});
  const Traces together = RunTogether(one, {.cache_dtype = Dtype::kBf16}, requests);
  for (const auto& [id, trace] : expected) {
    EXPECT_TRUE(trace == together.at(id)) << "request " << id.value() << " in a batch of 32";
  }
  const std::vector<DemoCase> cases = {
      {1, 2, 16, 2}, {2, 1, 16, 1}, {2, 2, 512, 2}, {4, 1, 512, 2}, {4, 2, 16, 1}};
  for (const DemoCase& demo : cases) {
    SCOPED_TRACE(testing::Message()
                 << demo.shard_count << " shards, " << demo.threads << " threads, chunks of "
                 << demo.chunk_tokens_max << ", " << demo.micro_batches << " micro-batches");
    InprocCluster cluster(
        {.model_dir = kModelDir, .shard_count = demo.shard_count, .threads = demo.threads});
    ExpectSame(together, RunTogether(cluster,
                                     {.chunk_tokens_max = demo.chunk_tokens_max,
                                      .micro_batches = demo.micro_batches,
                                      .cache_dtype = Dtype::kBf16},
                                     requests));
  }
}

}  // namespace
}  // namespace switchyard
