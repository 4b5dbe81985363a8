#ifndef SWITCHYARD_SERVICES_CLI_FLEET_VIEW_H_
#define SWITCHYARD_SERVICES_CLI_FLEET_VIEW_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "services/cli/state_dir.h"

namespace switchyard {

// What `switchyard status` shows: the recorded fleet plus what its processes answer now.
struct FleetView {
  FleetRecord record;
  bool supervisor_alive = false;
  std::string api;  // "http://127.0.0.1:8080"; empty until the gateway listens.
  std::map<std::string, std::string> metrics;  // URL by process name.
  uint64_t epoch = 0;
  std::string placement_phase;
  bool ready = false;
  std::string not_ready_reason;
};

// Reads the state dir and asks the processes, for at most a second each. NotFound when nothing was
// ever started there.
absl::StatusOr<FleetView> ViewFleet(const StateDir& state_dir);

// The documented form of `status --json` (docs/cli.md).
std::string ToStatusJson(const FleetView& view);

// Sum of the samples of one metric in Prometheus text, over the label sets that contain all of
// `labels` (each as name="value").
double SumMetric(const std::string& text, const std::string& name,
                 const std::vector<std::string>& labels);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_FLEET_VIEW_H_
