#ifndef SWITCHYARD_SERVICES_ROUTER_ROUTER_OPTIONS_H_
#define SWITCHYARD_SERVICES_ROUTER_ROUTER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "proto/switchyard/config/v1/config.pb.h"

#include "libs/app/config.h"
#include "libs/base/clock.h"
#include "libs/engine/engine_loop.h"
#include "libs/model/model_spec.h"
#include "libs/model/weight_choice.h"
#include "libs/tensor/dtype.h"
#include "libs/transport/ucx_transport.h"

namespace switchyard {

// The checked form of config.v1.RouterConfig.
//
// Any thread: a value.
struct RouterOptions {
  CommonOptions common;
  std::string grpc_address;
  std::string model_dir;
  std::string autoscaler_address;
  UcxOptions::Mode transport = UcxOptions::Mode::kAuto;
  WeightChoice weights = WeightChoice::kAsStored;
  uint32_t threads = 1;
  SchedulerLimits scheduler;
  bool tenants_share_prefixes = false;
  uint32_t cache_blocks = 0;         // 0: as many as kDefaultCacheBytes hold.
  std::optional<Dtype> cache_dtype;  // Empty: by the checkpoint's.
  SplitPolicy split;
  Duration call_deadline = std::chrono::seconds(2);
};

inline constexpr uint64_t kDefaultCacheBytes = uint64_t{256} * 1024 * 1024;

// Checks and defaults; InvalidArgument names the field.
absl::StatusOr<RouterOptions> ReadOptions(const config::v1::RouterConfig& config);

// What depends on the model: the size and the dtype of the cache.
EngineOptions MakeEngineOptions(const RouterOptions& options, const ModelSpec& spec);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_ROUTER_ROUTER_OPTIONS_H_
