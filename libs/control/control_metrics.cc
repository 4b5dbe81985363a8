#include "libs/control/control_metrics.h"

namespace switchyard {

ControlMetrics::ControlMetrics(Registry& registry)
    : placement_epoch(
          registry.MakeGauge("switchyard_placement_epoch", "Active placement epoch; 0 is none.")),
      expert_replicas_min(registry.MakeGauge("switchyard_expert_replicas_min",
                                             "Fewest replicas of any expert in the active epoch.")),
      shards_connected(
          registry.MakeGauge("switchyard_control_shards_connected", "Shards registered now.")),
      epochs_committed_total(registry.MakeCounter("switchyard_control_epochs_committed_total",
                                                  "Placement epochs committed.")),
      commit_failures_total(registry.MakeCounter("switchyard_control_commit_failures_total",
                                                 "Epochs whose state could not be made durable.")),
      registrations_rejected_total(
          registry.MakeCounter("switchyard_control_registrations_rejected_total",
                               "Shards refused for digest, shape, numerics or incarnation.")),
      mailbox_rejected_total(registry.MakeCounter("switchyard_control_mailbox_rejected_total",
                                                  "Events refused by a full control mailbox.")) {}

}  // namespace switchyard
