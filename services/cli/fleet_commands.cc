#include <csignal>
#include <cstdio>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "libs/app/environment.h"
#include "libs/base/clock.h"
#include "libs/base/status.h"
#include "services/cli/arguments.h"
#include "services/cli/commands.h"
#include "services/cli/fleet_view.h"
#include "services/cli/http_client.h"
#include "services/cli/state_dir.h"

namespace switchyard {
namespace {

constexpr Duration kPollInterval = std::chrono::milliseconds(50);
constexpr Duration kDownPatience = std::chrono::seconds(90);
constexpr Duration kKillPatience = std::chrono::seconds(60);

// Calls `done` every 50 ms until it is true or `patience` has passed.
template <typename Done>
bool PollUntil(Duration patience, const Done& done) {
  const SteadyClock clock;
  const Instant give_up = clock.Now() + patience;
  const timespec pause = {.tv_nsec = kPollInterval.count()};
  while (!done()) {
    if (clock.Now() > give_up) {
      return false;
    }
    ::nanosleep(&pause, nullptr);
  }
  return true;
}

// Counts of requests as the gateway's metrics give them.
struct RequestCounts {
  double running = 0;
  double finished = 0;
  double failed = 0;
};

RequestCounts CountRequests(const FleetView& view) {
  RequestCounts counts;
  const auto url = view.metrics.find("gateway");
  if (url == view.metrics.end()) {
    return counts;
  }
  if (const auto reply = HttpGet(url->second, 1000); reply.ok()) {
    counts.running = SumMetric(reply->body, "switchyard_requests_running", {});
    for (const char* route : {"route=\"/v1/completions\"", "route=\"/v1/chat/completions\""}) {
      const double finished = SumMetric(reply->body, "switchyard_requests_total", {route});
      counts.finished += finished;
      counts.failed +=
          finished - SumMetric(reply->body, "switchyard_requests_total", {route, "code=\"200\""});
    }
  }
  return counts;
}

void PrintKillReport(const std::string& name, const RequestCounts& before,
                     const RequestCounts& after, double seconds) {
  std::printf("%s is back and the API is ready after %.2f s\n", name.c_str(), seconds);
  if (name == "gateway") {
    std::printf("its %.0f open requests were cut; clients see a broken connection and try again\n",
                before.running);
    return;
  }
  std::printf("requests open at the kill: %.0f\n", before.running);
  std::printf("since then: %.0f ended, of which %.0f with an error; %.0f still run\n",
              after.finished - before.finished, after.failed - before.failed, after.running);
}

void PrintStatus(const FleetView& view) {
  std::printf("%-16s %-12s %8s %-9s %8s  %s\n", "NAME", "ROLE", "PID", "STATE", "RESTARTS",
              "ADDRESSES");
  for (const ProcessRecord& process : view.record.processes) {
    std::string addresses;
    for (const auto& [what, address] : process.addresses) {
      addresses += fmt::format("{}={} ", what, address);
    }
    std::printf("%-16s %-12s %8lld %-9s %8u  %s\n", process.name.c_str(), process.role.c_str(),
                static_cast<long long>(process.pid), process.state.c_str(), process.restarts,
                addresses.c_str());
  }
  std::printf("model %s, epoch %llu (%s)\n", view.record.model_dir.c_str(),
              static_cast<unsigned long long>(view.epoch), view.placement_phase.c_str());
  if (view.ready) {
    std::printf("ready: %s\n", view.api.c_str());
  } else {
    std::printf("not ready: %s\n", view.not_ready_reason.c_str());
  }
}

}  // namespace

int Fail(const std::string& command, const std::string& message, int exit_code) {
  std::fprintf(stderr, "switchyard %s: %s\n", command.c_str(), message.c_str());
  return exit_code;
}

int RunDown(const std::vector<std::string>& words) {
  Arguments arguments(words, {});
  const StateDir state_dir(arguments.Text("state-dir", DefaultStateDir()));
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok()) {
    return Fail("down", MessageOf(parsed), kExitUsage);
  }
  const auto fleet = state_dir.ReadFleet();
  if (!fleet.ok() || !state_dir.IsLocked() || fleet->supervisor_pid <= 0) {
    std::printf("nothing runs on state dir %s\n", state_dir.path().c_str());
    return kExitOk;
  }
  ::kill(static_cast<pid_t>(fleet->supervisor_pid), SIGTERM);
  if (!PollUntil(kDownPatience, [&state_dir] { return !state_dir.IsLocked(); })) {
    return Fail("down", fmt::format("supervisor {} still runs", fleet->supervisor_pid),
                kExitFailed);
  }
  std::printf("stopped\n");
  return kExitOk;
}

int RunStatus(const std::vector<std::string>& words) {
  Arguments arguments(words, {"json"});
  const StateDir state_dir(arguments.Text("state-dir", DefaultStateDir()));
  const bool json = arguments.Flag("json");
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok()) {
    return Fail("status", MessageOf(parsed), kExitUsage);
  }
  const auto view = ViewFleet(state_dir);
  if (!view.ok()) {
    return Fail("status", MessageOf(view.status()), kExitNotReady);
  }
  if (json) {
    std::printf("%s\n", ToStatusJson(*view).c_str());
  } else {
    PrintStatus(*view);
  }
  return view->ready ? kExitOk : kExitNotReady;
}

int RunKill(const std::vector<std::string>& words) {
  Arguments arguments(words, {});
  const StateDir state_dir(arguments.Text("state-dir", DefaultStateDir()));
  const std::string name = arguments.Word();
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok()) {
    return Fail("kill", MessageOf(parsed), kExitUsage);
  }
  const auto before_view = ViewFleet(state_dir);
  if (!before_view.ok() || !before_view->supervisor_alive) {
    return Fail("kill", "nothing runs on state dir " + state_dir.path(), kExitFailed);
  }
  const ProcessRecord* process = before_view->record.Find(name);
  if (process == nullptr || process->pid <= 0) {
    return Fail("kill",
                fmt::format("no running process '{}'; 'switchyard status' lists them", name),
                kExitUsage);
  }
  const int64_t pid = process->pid;
  const RequestCounts before = CountRequests(*before_view);
  const SteadyClock clock;
  const Instant killed_at = clock.Now();
  ::kill(static_cast<pid_t>(pid), SIGKILL);
  std::printf("killed %s (pid %lld)\n", name.c_str(), static_cast<long long>(pid));
  FleetView after_view;
  const bool back = PollUntil(kKillPatience, [&] {
    auto seen = ViewFleet(state_dir);
    if (!seen.ok()) {
      return false;
    }
    after_view = *std::move(seen);
    const ProcessRecord* again = after_view.record.Find(name);
    return again != nullptr && again->pid != pid && again->state == "running" && after_view.ready;
  });
  if (!back) {
    return Fail("kill",
                fmt::format("not ready again after {:.0f} s: {}", ToSeconds(kKillPatience),
                            after_view.not_ready_reason),
                kExitFailed);
  }
  PrintKillReport(name, before, CountRequests(after_view), ToSeconds(clock.Now() - killed_at));
  return kExitOk;
}

}  // namespace switchyard
