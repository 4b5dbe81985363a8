#ifndef SWITCHYARD_LIBS_CONTROL_CONTROL_METRICS_H_
#define SWITCHYARD_LIBS_CONTROL_CONTROL_METRICS_H_

#include "libs/metrics/registry.h"

namespace switchyard {

// What the autoscaler counts about epochs and membership. Any thread.
struct ControlMetrics {
  explicit ControlMetrics(Registry& registry);

  Gauge placement_epoch;
  Gauge expert_replicas_min;
  Gauge shards_connected;
  Counter epochs_committed_total;
  Counter commit_failures_total;
  Counter registrations_rejected_total;
  Counter mailbox_rejected_total;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_CONTROL_METRICS_H_
