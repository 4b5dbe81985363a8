// The same comparison with rows travelling over UCX, by TCP and by shared memory.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/transport/ucx_transport.h"
#include "tests/integration/same_tokens.h"

namespace switchyard {
namespace {

constexpr uint64_t kSeed = 99;

class SameTokensUcx : public testing::TestWithParam<UcxOptions::Mode> {};

struct Served {
  std::string model_dir;
  WeightChoice weights = WeightChoice::kAsStored;
  Dtype cache_dtype = Dtype::kBf16;
};

void ExpectAsInOneProcess(UcxOptions::Mode mode, const Served& served,
                          const std::vector<uint32_t>& shard_counts) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed << ", weights " << NameOf(served.weights));
  const std::vector<GenerationRequest> requests =
      RandomRequests(kSeed, 16, 40, ModelSpec::Load(served.model_dir).value().vocab_size);
  Traces expected;
  {
    InprocCluster cluster({.model_dir = served.model_dir, .weights = served.weights});
    expected = RunAlone(cluster, {.cache_dtype = served.cache_dtype}, requests);
  }
  for (const uint32_t shards : shard_counts) {
    SCOPED_TRACE(testing::Message() << shards << " shards");
    InprocCluster cluster({.model_dir = served.model_dir,
                           .shard_count = shards,
                           .weights = served.weights,
                           .make_transport =
                               [mode](const std::string& /*name*/) {
                                 return CreateUcxTransport({.mode = mode}, TransportLimits{});
                               },
                           .listen_address = "127.0.0.1:0"});
    for (const uint32_t micro_batches : {1U, 2U}) {
      const RunShape shape{.chunk_tokens_max = 16,
                           .micro_batches = micro_batches,
                           .cache_dtype = served.cache_dtype};
      ExpectSame(expected, RunTogether(cluster, shape, requests));
    }
  }
}

TEST_P(SameTokensUcx, OnRandomWeights) {
  const TinyCheckpoint model;
  ExpectAsInOneProcess(GetParam(), {.model_dir = model.dir(), .cache_dtype = Dtype::kF32},
                       {1, 2, 4});
}

TEST_P(SameTokensUcx, ForEveryFormat) {
  const RandomCheckpoint model(RandomModel::kRagged);
  for (const WeightChoice weights :
       {WeightChoice::kBf16, WeightChoice::kInt8, WeightChoice::kInt4}) {
    ExpectAsInOneProcess(GetParam(), {.model_dir = model.dir(), .weights = weights}, {2, 4});
  }
  const RandomCheckpoint fp8(RandomModel::kRaggedFp8);
  ExpectAsInOneProcess(GetParam(), {.model_dir = fp8.dir()}, {2, 4});
}

TEST_P(SameTokensUcx, OnTheDemoModel) {
  ExpectAsInOneProcess(GetParam(), {.model_dir = "models/demo"}, {1, 2, 4});
  ExpectAsInOneProcess(GetParam(), {.model_dir = "models/demo", .weights = WeightChoice::kInt4},
                       {2});
}

INSTANTIATE_TEST_SUITE_P(Transports, SameTokensUcx,
                         testing::Values(UcxOptions::Mode::kTcp, UcxOptions::Mode::kShm),
                         [](const auto& parameter) {
                           return parameter.param == UcxOptions::Mode::kTcp ? "Tcp" : "Shm";
                         });

}  // namespace
}  // namespace switchyard
