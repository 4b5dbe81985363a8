#ifndef SWITCHYARD_LIBS_EXPERTS_EXPERTS_METRICS_H_
#define SWITCHYARD_LIBS_EXPERTS_EXPERTS_METRICS_H_

#include "libs/metrics/registry.h"

namespace switchyard {

// All metrics of a shard's expert server. Any thread; handles live as long as the registry.
struct ExpertsMetrics {
  explicit ExpertsMetrics(Registry& registry);

  Counter tokens;              // Rows of answered frames.
  Counter activations;         // (row, expert) pairs computed.
  Histogram batch_tokens;      // Pairs per grouped FFN.
  Histogram compute_seconds;   // Per grouped FFN.
  Histogram queue_seconds;     // From a frame's arrival to the beginning of its batch.
  Gauge queue_rows;            // Pairs that wait.
  Gauge routers;               // Connections, accepted or not.
  Counter expired;             // Frames whose time ran out in the queue.
  Counter rejected_busy;       // Frames refused at the queue's limits.
  Counter rejected_bad_frame;  // Frames not for this model.
  Counter rejected_stale_epoch;
  Counter rejected_unknown_expert;
  Counter rejected_not_finite;
  Counter closed_protocol;  // Routers closed: broke the grammar or the order.
  Counter closed_hello;     // Routers closed: did not match, or said nothing.
  Counter closed_stalled;   // Routers closed: did not read their answers.
  Counter closed_limit;     // Routers closed: routers_max.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_EXPERTS_EXPERTS_METRICS_H_
