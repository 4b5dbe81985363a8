#include "libs/experts/experts_metrics.h"

#include <string>
#include <vector>

namespace switchyard {
namespace {

std::vector<double> BatchBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
}

Counter Rejected(Registry& registry, const std::string& reason) {
  return registry.MakeCounter("switchyard_shard_rejected_total",
                              "Dispatch frames answered without rows", {{"reason", reason}});
}

Counter Closed(Registry& registry, const std::string& reason) {
  return registry.MakeCounter("switchyard_shard_routers_closed_total",
                              "Connections of routers closed by the shard", {{"reason", reason}});
}

}  // namespace

ExpertsMetrics::ExpertsMetrics(Registry& registry)
    : tokens(registry.MakeCounter("switchyard_shard_tokens_total", "Rows answered")),
      activations(registry.MakeCounter("switchyard_shard_activations_total",
                                       "Pairs of row and expert computed")),
      batch_tokens(registry.MakeHistogram("switchyard_shard_batch_tokens",
                                          "Pairs of row and expert per grouped computation",
                                          BatchBuckets())),
      compute_seconds(registry.MakeHistogram("switchyard_shard_compute_seconds",
                                             "Time of one grouped computation",
                                             StageSecondsBuckets())),
      queue_seconds(registry.MakeHistogram("switchyard_shard_queue_seconds",
                                           "Time a dispatch frame waits for its computation",
                                           StageSecondsBuckets())),
      queue_rows(
          registry.MakeGauge("switchyard_shard_queue_rows", "Pairs of row and expert that wait")),
      routers(registry.MakeGauge("switchyard_shard_routers", "Connections of routers")),
      expired(registry.MakeCounter("switchyard_shard_expired_total",
                                   "Dispatch frames dropped because their time ran out")),
      rejected_busy(Rejected(registry, "busy")),
      rejected_bad_frame(Rejected(registry, "bad_frame")),
      rejected_stale_epoch(Rejected(registry, "stale_epoch")),
      rejected_unknown_expert(Rejected(registry, "unknown_expert")),
      rejected_not_finite(Rejected(registry, "not_finite")),
      closed_protocol(Closed(registry, "protocol")),
      closed_hello(Closed(registry, "hello")),
      closed_stalled(Closed(registry, "stalled")),
      closed_limit(Closed(registry, "limit")) {}

}  // namespace switchyard
