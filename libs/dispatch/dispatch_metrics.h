#ifndef SWITCHYARD_LIBS_DISPATCH_DISPATCH_METRICS_H_
#define SWITCHYARD_LIBS_DISPATCH_DISPATCH_METRICS_H_

#include <map>

#include "libs/base/ids.h"
#include "libs/metrics/registry.h"

namespace switchyard {

// All metrics of a router's dispatcher. One owner, as the dispatcher; handles live as long as
// `registry`.
struct DispatchMetrics {
  explicit DispatchMetrics(Registry& registry);

  // 1 while the connection to the shard is accepted, else 0.
  Gauge& ShardConnected(ShardId shard);

  Counter rpc_ok;         // Fragments, by how their call saw them end.
  Counter rpc_refused;    // The shard answered with a status other than ok.
  Counter rpc_lost;       // The connection went down.
  Counter rpc_deadline;   // No answer in time.
  Histogram rpc_seconds;  // From sending a fragment to its answer.
  Counter bytes_sent;
  Counter bytes_received;
  Counter dropped_late;         // Answers of calls that are over, or of an older attempt.
  Counter dropped_duplicate;    // Answers that came before.
  Counter dropped_incarnation;  // Answers of another incarnation than the connection's.
  Counter peers_refused;        // Connections closed because the shard lied or does not match.
  Counter rejected_rows;        // Send() beyond rows_max.
  Counter rejected_tickets;     // Send() beyond tickets_max.
  Gauge frames_waiting;         // Fragments that wait for credits or buffers.

 private:
  Registry& registry_;
  std::map<ShardId, Gauge> shard_connected_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_DISPATCH_DISPATCH_METRICS_H_
