#include "services/cli/fleet_view.h"

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "libs/base/status.h"
#include "services/cli/http_client.h"

namespace switchyard {
namespace {

constexpr long kAskTimeoutMs = 1000;

std::string AddressOf(const ProcessRecord* process, const std::string& what) {
  if (process == nullptr || process->state != "running") {
    return {};
  }
  const auto it = process->addresses.find(what);
  return it == process->addresses.end() ? std::string() : it->second;
}

void AskAutoscaler(FleetView& view) {
  const std::string admin = AddressOf(view.record.Find("autoscaler"), "admin");
  if (admin.empty()) {
    return;
  }
  const auto reply = HttpGet("http://" + admin + "/status", kAskTimeoutMs);
  if (!reply.ok() || reply->status != 200) {
    return;
  }
  boost::json::error_code error;
  const boost::json::value status = boost::json::parse(reply->body, error);
  if (error || !status.is_object()) {
    return;
  }
  if (const auto* epoch = status.get_object().if_contains("epoch")) {
    view.epoch = epoch->is_number() ? epoch->to_number<uint64_t>() : 0;
  }
  if (const auto* phase = status.get_object().if_contains("phase"); phase && phase->is_string()) {
    view.placement_phase = std::string(phase->get_string());
  }
}

void AskGateway(FleetView& view) {
  const std::string api = AddressOf(view.record.Find("gateway"), "api");
  if (api.empty()) {
    view.not_ready_reason = "the gateway is not running";
    return;
  }
  view.api = "http://" + api;
  const auto reply = HttpGet(view.api + "/ready", kAskTimeoutMs);
  view.ready = reply.ok() && reply->status == 200;
  if (!view.ready) {
    view.not_ready_reason = reply.ok() ? reply->body : MessageOf(reply.status());
    while (view.not_ready_reason.ends_with('\n')) {
      view.not_ready_reason.pop_back();
    }
  }
}

}  // namespace

absl::StatusOr<FleetView> ViewFleet(const StateDir& state_dir) {
  FleetView view;
  auto record = state_dir.ReadFleet();
  if (!record.ok()) {
    return NotFound("nothing was started on state dir {}", state_dir.path());
  }
  view.record = *std::move(record);
  view.supervisor_alive = state_dir.IsLocked();
  if (!view.supervisor_alive) {
    for (ProcessRecord& process : view.record.processes) {
      process.pid = 0;
      process.state = "stopped";
    }
    view.not_ready_reason = "switchyard is not running";
    return view;
  }
  for (const ProcessRecord& process : view.record.processes) {
    if (const std::string admin = AddressOf(&process, "admin"); !admin.empty()) {
      view.metrics[process.name] = "http://" + admin + "/metrics";
    }
  }
  AskAutoscaler(view);
  AskGateway(view);
  return view;
}

std::string ToStatusJson(const FleetView& view) {
  boost::json::array processes;
  for (const ProcessRecord& process : view.record.processes) {
    boost::json::object addresses;
    for (const auto& [what, address] : process.addresses) {
      addresses[what] = address;
    }
    processes.push_back({{"name", process.name},
                         {"role", process.role},
                         {"pid", process.pid},
                         {"state", process.state},
                         {"restarts", process.restarts},
                         {"addresses", addresses}});
  }
  boost::json::object metrics;
  for (const auto& [name, url] : view.metrics) {
    metrics[name] = url;
  }
  return boost::json::serialize(boost::json::object{{"version", 1},
                                                    {"ready", view.ready},
                                                    {"reason", view.not_ready_reason},
                                                    {"api", view.api},
                                                    {"metrics", metrics},
                                                    {"epoch", view.epoch},
                                                    {"placement", view.placement_phase},
                                                    {"model", view.record.model_dir},
                                                    {"processes", processes}});
}

double SumMetric(const std::string& text, const std::string& name,
                 const std::vector<std::string>& labels) {
  std::istringstream lines(text);
  std::string line;
  double sum = 0;
  while (std::getline(lines, line)) {
    const bool is_metric = line.rfind(name + "{", 0) == 0 || line.rfind(name + " ", 0) == 0;
    const size_t space = line.rfind(' ');
    const bool has_labels = std::all_of(
        labels.begin(), labels.end(),
        [&line](const std::string& label) { return line.find(label) != std::string::npos; });
    if (is_metric && has_labels && space != std::string::npos) {
      sum += std::stod(line.substr(space + 1));
    }
  }
  return sum;
}

}  // namespace switchyard
