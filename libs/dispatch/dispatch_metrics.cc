#include "libs/dispatch/dispatch_metrics.h"

#include <string>

#include <spdlog/fmt/fmt.h>

namespace switchyard {
namespace {

Counter RpcCounter(Registry& registry, const std::string& result) {
  return registry.MakeCounter("switchyard_expert_rpc_total",
                              "Frames to expert shards, by how they ended", {{"result", result}});
}

Counter BytesCounter(Registry& registry, const std::string& direction) {
  return registry.MakeCounter("switchyard_expert_rpc_bytes_total",
                              "Bytes of frames to and from expert shards",
                              {{"direction", direction}});
}

Counter DroppedCounter(Registry& registry, const std::string& reason) {
  return registry.MakeCounter("switchyard_expert_reply_dropped_total",
                              "Answers of expert shards that nobody waits for",
                              {{"reason", reason}});
}

Counter RejectedCounter(Registry& registry, const std::string& reason) {
  return registry.MakeCounter("switchyard_dispatch_rejected_total",
                              "Dispatch calls refused at a limit", {{"reason", reason}});
}

}  // namespace

DispatchMetrics::DispatchMetrics(Registry& registry)
    : rpc_ok(RpcCounter(registry, "ok")),
      rpc_refused(RpcCounter(registry, "refused")),
      rpc_lost(RpcCounter(registry, "lost")),
      rpc_deadline(RpcCounter(registry, "deadline")),
      rpc_seconds(registry.MakeHistogram("switchyard_expert_rpc_seconds",
                                         "Time from sending a frame to its answer",
                                         StageSecondsBuckets())),
      bytes_sent(BytesCounter(registry, "sent")),
      bytes_received(BytesCounter(registry, "received")),
      dropped_late(DroppedCounter(registry, "late")),
      dropped_duplicate(DroppedCounter(registry, "duplicate")),
      dropped_incarnation(DroppedCounter(registry, "incarnation")),
      peers_refused(registry.MakeCounter(
          "switchyard_dispatch_peers_refused_total",
          "Connections to shards closed because the shard does not match or breaks the protocol")),
      rejected_rows(RejectedCounter(registry, "rows")),
      rejected_tickets(RejectedCounter(registry, "tickets")),
      frames_waiting(registry.MakeGauge("switchyard_dispatch_frames_waiting",
                                        "Frames that wait for credits or send buffers")),
      registry_(registry) {}

Gauge& DispatchMetrics::ShardConnected(ShardId shard) {
  const auto found = shard_connected_.find(shard);
  if (found != shard_connected_.end()) {
    return found->second;
  }
  return shard_connected_
      .emplace(shard, registry_.MakeGauge("switchyard_shard_connected",
                                          "1 while the connection to the shard is accepted",
                                          {{"shard", fmt::to_string(shard.value())}}))
      .first->second;
}

}  // namespace switchyard
