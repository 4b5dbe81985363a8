#include "services/router/router_options.h"

#include <algorithm>
#include <chrono>

#include "libs/base/status.h"

namespace switchyard {
namespace {

absl::StatusOr<std::optional<Dtype>> ReadCacheDtype(const std::string& name) {
  if (name.empty() || name == "auto") {
    return std::optional<Dtype>();
  }
  if (name == "f32") {
    return std::optional<Dtype>(Dtype::kF32);
  }
  if (name == "bf16") {
    return std::optional<Dtype>(Dtype::kBf16);
  }
  return InvalidArgument("config router.cache_dtype: \"{}\" is none of auto, f32, bf16", name);
}

// Sets whether there is a prefix cache, and whether tenants share it.
absl::Status ReadPrefixCache(const std::string& name, RouterOptions& options) {
  if (name != "off" && name != "shared" && name != "tenant" && !name.empty()) {
    return InvalidArgument("config router.prefix_cache: \"{}\" is none of tenant, shared, off",
                           name);
  }
  options.scheduler.prefix_cache = name != "off";
  options.tenants_share_prefixes = name == "shared";
  return absl::OkStatus();
}

SchedulerLimits ReadScheduler(ConfigReader& reader, const config::v1::RouterConfig& config) {
  return {.step_tokens_max = reader.Uint("step_tokens_max", config.step_tokens_max(),
                                         {.default_value = 512, .min = 1, .max = 65536}),
          .chunk_tokens_max = reader.Uint("chunk_tokens_max", config.chunk_tokens_max(),
                                          {.default_value = 512, .min = 1, .max = 65536}),
          .prefill_tokens_with_decodes_max = reader.Uint(
              "prefill_tokens_with_decodes_max", config.prefill_tokens_with_decodes_max(),
              {.default_value = 256, .min = 1, .max = 65536}),
          .sequences_max = reader.Uint("sequences_max", config.sequences_max(),
                                       {.default_value = 256, .min = 1, .max = 4096}),
          .waiting_max = reader.Uint("waiting_max", config.waiting_max(),
                                     {.default_value = 4096, .min = 1, .max = 1000000}),
          .block_tokens = reader.Uint("cache_block_tokens", config.cache_block_tokens(),
                                      {.default_value = 16, .min = 8, .max = 64})};
}

}  // namespace

absl::StatusOr<RouterOptions> ReadOptions(const config::v1::RouterConfig& config) {
  ConfigReader reader("router");
  RouterOptions options;
  options.common = ReadCommon(reader, config.common());
  options.grpc_address = ConfigReader::Text(config.grpc_address(), "127.0.0.1:0");
  options.model_dir = reader.Required("model_dir", config.model_dir());
  options.autoscaler_address = reader.Required("autoscaler_address", config.autoscaler_address());
  options.threads =
      reader.Uint("threads", config.threads(), {.default_value = 1, .min = 1, .max = 256});
  options.scheduler = ReadScheduler(reader, config);
  options.cache_blocks = reader.Uint("cache_blocks", config.cache_blocks(), {.max = 16777216});
  options.split.micro_batches = reader.Uint("micro_batches", config.micro_batches(),
                                            {.default_value = 1, .min = 1, .max = 2});
  options.call_deadline =
      std::chrono::milliseconds(reader.Uint("call_deadline_ms", config.call_deadline_ms(),
                                            {.default_value = 2000, .min = 1, .max = 600000}));
  SY_RETURN_IF_ERROR(reader.status());
  const uint32_t block_tokens = options.scheduler.block_tokens;
  if ((block_tokens & (block_tokens - 1)) != 0) {
    return InvalidArgument("config router.cache_block_tokens: {} is none of 8, 16, 32, 64",
                           block_tokens);
  }
  const absl::StatusOr<UcxOptions::Mode> transport = ParseUcxMode(config.transport());
  if (!transport.ok()) {
    return Annotate(transport.status(), "config router.transport");
  }
  options.transport = *transport;
  const absl::StatusOr<WeightChoice> weights =
      ParseWeightChoice(ConfigReader::Text(config.weights(), "auto"));
  if (!weights.ok()) {
    return Annotate(weights.status(), "config router.weights");
  }
  options.weights = *weights;
  SY_ASSIGN_OR_RETURN(options.cache_dtype, ReadCacheDtype(config.cache_dtype()));
  SY_RETURN_IF_ERROR(ReadPrefixCache(config.prefix_cache(), options));
  return options;
}

EngineOptions MakeEngineOptions(const RouterOptions& options, const ModelSpec& spec) {
  EngineOptions engine;
  engine.scheduler = options.scheduler;
  engine.split = options.split;
  engine.cache_dtype =
      options.cache_dtype.value_or(spec.weight_dtype == Dtype::kF32 ? Dtype::kF32 : Dtype::kBf16);
  const KvLayout one_block{.layer_count = spec.layer_count,
                           .latent_dim = spec.latent_dim(),
                           .block_size = options.scheduler.block_tokens,
                           .block_count = 1,
                           .dtype = engine.cache_dtype};
  engine.cache_blocks = options.cache_blocks;
  if (engine.cache_blocks == 0) {
    engine.cache_blocks =
        static_cast<uint32_t>(std::max<uint64_t>(1, kDefaultCacheBytes / one_block.block_bytes()));
  }
  return engine;
}

}  // namespace switchyard
