// The same comparison with rows travelling over UCX, by TCP and by shared memory.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/model/testing/tiny_checkpoint.h"
#include "libs/transport/ucx_transport.h"
#include "tests/integration/same_tokens.h"

namespace switchyard {
namespace {

constexpr uint64_t kSeed = 99;

class SameTokensUcx : public testing::TestWithParam<UcxOptions::Mode> {};

void ExpectAsInOneProcess(UcxOptions::Mode mode, const std::string& model_dir, Dtype cache_dtype) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  const std::vector<GenerationRequest> requests =
      RandomRequests(kSeed, 16, 40, ModelSpec::Load(model_dir).value().vocab_size);
  Traces expected;
  {
    InprocCluster cluster({.model_dir = model_dir});
    expected = RunAlone(cluster, {.cache_dtype = cache_dtype}, requests);
  }
  for (const uint32_t shards : {1U, 2U, 4U}) {
    SCOPED_TRACE(testing::Message() << shards << " shards");
    InprocCluster cluster({.model_dir = model_dir,
                           .shard_count = shards,
                           .make_transport =
                               [mode](const std::string& /*name*/) {
                                 return CreateUcxTransport({.mode = mode}, TransportLimits{});
                               },
                           .listen_address = "127.0.0.1:0"});
    for (const uint32_t micro_batches : {1U, 2U}) {
      const RunShape shape{
          .chunk_tokens_max = 16, .micro_batches = micro_batches, .cache_dtype = cache_dtype};
      ExpectSame(expected, RunTogether(cluster, shape, requests));
    }
  }
}

TEST_P(SameTokensUcx, OnRandomWeights) {
  const TinyCheckpoint model;
  ExpectAsInOneProcess(GetParam(), model.dir(), Dtype::kF32);
}

TEST_P(SameTokensUcx, OnTheDemoModel) {
  ExpectAsInOneProcess(GetParam(), "models/demo", Dtype::kBf16);
}

INSTANTIATE_TEST_SUITE_P(Transports, SameTokensUcx,
                         testing::Values(UcxOptions::Mode::kTcp, UcxOptions::Mode::kShm),
                         [](const auto& parameter) {
                           return parameter.param == UcxOptions::Mode::kTcp ? "Tcp" : "Shm";
                         });

}  // namespace
}  // namespace switchyard
