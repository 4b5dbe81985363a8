#include "services/router/router_options.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/status.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

config::v1::RouterConfig Minimal() {
  config::v1::RouterConfig config;
  config.mutable_common()->set_name("router-0");
  config.set_model_dir("model");
  config.set_autoscaler_address("127.0.0.1:1");
  return config;
}

TEST(RouterOptions, HaveTheDefaultsOfTheSchema) {
  const absl::StatusOr<RouterOptions> options = ReadOptions(Minimal());
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->scheduler.step_tokens_max, 512U);
  EXPECT_EQ(options->scheduler.chunk_tokens_max, 512U);
  EXPECT_EQ(options->scheduler.prefill_tokens_with_decodes_max, 256U);
  EXPECT_EQ(options->scheduler.sequences_max, 256U);
  EXPECT_EQ(options->scheduler.waiting_max, 4096U);
  EXPECT_EQ(options->scheduler.block_tokens, 16U);
  EXPECT_TRUE(options->scheduler.prefix_cache);
  EXPECT_FALSE(options->tenants_share_prefixes);
  EXPECT_EQ(options->split.micro_batches, 1U);
  EXPECT_EQ(options->call_deadline, std::chrono::seconds(2));
}

TEST(RouterOptions, ThePrefixCacheIsPerTenantSharedOrOff) {
  config::v1::RouterConfig config = Minimal();
  config.set_prefix_cache("tenant");
  EXPECT_TRUE(ReadOptions(config)->scheduler.prefix_cache);
  EXPECT_FALSE(ReadOptions(config)->tenants_share_prefixes);
  config.set_prefix_cache("shared");
  EXPECT_TRUE(ReadOptions(config)->scheduler.prefix_cache);
  EXPECT_TRUE(ReadOptions(config)->tenants_share_prefixes);
  config.set_prefix_cache("off");
  EXPECT_FALSE(ReadOptions(config)->scheduler.prefix_cache);
}

TEST(RouterOptions, TheCacheFollowsTheModel) {
  RouterOptions options = *ReadOptions(Minimal());
  ModelSpec spec = TinyModelSpec();
  spec.weight_dtype = Dtype::kBf16;
  const EngineOptions bf16 = MakeEngineOptions(options, spec);
  EXPECT_EQ(bf16.cache_dtype, Dtype::kBf16);
  EXPECT_EQ(
      uint64_t{bf16.cache_blocks} * 16 * spec.latent_dim() * spec.layer_count * 2 / (1024 * 1024),
      255U);
  spec.weight_dtype = Dtype::kF32;
  EXPECT_EQ(MakeEngineOptions(options, spec).cache_dtype, Dtype::kF32);
  options.cache_dtype = Dtype::kBf16;
  options.cache_blocks = 9;
  EXPECT_EQ(MakeEngineOptions(options, spec).cache_dtype, Dtype::kBf16);
  EXPECT_EQ(MakeEngineOptions(options, spec).cache_blocks, 9U);
}

TEST(RouterOptions, RefusesWithTheNameOfTheField) {
  using Config = config::v1::RouterConfig;
  const std::vector<std::pair<std::string, std::function<void(Config&)>>> cases = {
      {"common.name", [](Config& c) { c.mutable_common()->clear_name(); }},
      {"model_dir", [](Config& c) { c.clear_model_dir(); }},
      {"autoscaler_address", [](Config& c) { c.clear_autoscaler_address(); }},
      {"threads", [](Config& c) { c.set_threads(257); }},
      {"step_tokens_max", [](Config& c) { c.set_step_tokens_max(65537); }},
      {"chunk_tokens_max", [](Config& c) { c.set_chunk_tokens_max(65537); }},
      {"sequences_max", [](Config& c) { c.set_sequences_max(4097); }},
      {"waiting_max", [](Config& c) { c.set_waiting_max(1000001); }},
      {"cache_blocks", [](Config& c) { c.set_cache_blocks(16777217); }},
      {"cache_block_tokens", [](Config& c) { c.set_cache_block_tokens(24); }},
      {"prefill_tokens_with_decodes_max",
       [](Config& c) { c.set_prefill_tokens_with_decodes_max(65537); }},
      {"prefix_cache", [](Config& c) { c.set_prefix_cache("yes"); }},
      {"cache_dtype", [](Config& c) { c.set_cache_dtype("int8"); }},
      {"transport", [](Config& c) { c.set_transport("rdma"); }},
      {"micro_batches", [](Config& c) { c.set_micro_batches(3); }},
      {"call_deadline_ms", [](Config& c) { c.set_call_deadline_ms(600001); }},
  };
  for (const auto& [field, breaks] : cases) {
    config::v1::RouterConfig config = Minimal();
    breaks(config);
    const absl::StatusOr<RouterOptions> options = ReadOptions(config);
    EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(MessageOf(options.status()), HasSubstr("router." + field));
  }
}

}  // namespace
}  // namespace switchyard
