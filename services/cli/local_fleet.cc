#include "services/cli/local_fleet.h"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <unistd.h>

#include "libs/base/file.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/orchestrator/local_process.h"

namespace switchyard {
namespace {

// While something starts or stops, and while all is well.
constexpr Duration kBusyWait = std::chrono::milliseconds(20);
constexpr Duration kCalmWait = std::chrono::seconds(1);

constexpr size_t kLogBytesMax = 64 << 20;
constexpr size_t kReasonBytesMax = 1000;

// What a process logged about its failed start after the first `from_bytes` of its log; empty when
// it did not come to that.
std::string StartErrorIn(const std::string& log_path, size_t from_bytes) {
  constexpr std::string_view kMark = "cannot start: ";
  const auto log = ReadFile(log_path, kLogBytesMax);
  const size_t at = log.ok() ? log->rfind(kMark) : std::string::npos;
  if (at == std::string::npos || at < from_bytes) {
    return {};
  }
  const size_t begin = at + kMark.size();
  return log->substr(begin, std::min(log->find('\n', begin) - begin, kReasonBytesMax));
}

sigset_t WatchedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

LocalFleet::LocalFleet(UpOptions options, const Clock& clock)
    : options_(std::move(options)),
      state_dir_(options_.state_dir),
      clock_(clock),
      supervisor_(FleetPlans(options_), SupervisorLimits{}) {}

int LocalFleet::Run() {
  const sigset_t signals = WatchedSignals();
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  bool stopping = false;
  while (true) {
    const SupervisorActions actions = supervisor_.Tick(clock_.Now());
    for (const std::string& name : actions.start) {
      StartProcess(name);
    }
    for (const SupervisorActions::Signal& signal : actions.signals) {
      ::kill(static_cast<pid_t>(signal.pid), signal.number);
    }
    LearnAddresses();
    RecordIfChanged();
    if (stopping && supervisor_.all_stopped()) {
      return supervisor_.start_failure().empty() ? 0 : 1;
    }
    const bool asked_to_stop =
        WaitForSignal(supervisor_.all_running() && !stopping ? kCalmWait : kBusyWait);
    ReapProcesses();
    if (!stopping && (asked_to_stop || !supervisor_.start_failure().empty())) {
      SY_LOG_INFO("stopping the fleet");
      stopping = true;
      supervisor_.BeginStop();
    }
  }
}

void LocalFleet::StartProcess(const std::string& name) {
  std::error_code no_log_yet;
  const uintmax_t log_bytes = std::filesystem::file_size(state_dir_.LogPath(name), no_log_yet);
  log_bytes_[name] = no_log_yet ? 0 : static_cast<size_t>(log_bytes);
  std::string role;
  for (const Supervisor::Process& process : supervisor_.processes()) {
    if (process.plan.name == name) {
      role = process.plan.role;
    }
  }
  absl::Status written =
      WriteFileAtomically(state_dir_.ConfigPath(name), RenderConfig(options_, name, book_));
  auto pid = written.ok() ? LaunchProcess({.command = {options_.bin_dir + "/" + ProgramOf(role),
                                                       "--config", state_dir_.ConfigPath(name)},
                                           .log_path = state_dir_.LogPath(name)})
                          : absl::StatusOr<int64_t>(written);
  if (!pid.ok()) {
    // As if it had started and ended at once: the supervisor's backoff and tries apply.
    SY_LOG_ERROR("cannot start name={}: {}", name, MessageOf(pid.status()));
    constexpr int64_t kNoPid = -1;
    supervisor_.OnStarted(name, kNoPid, clock_.Now());
    supervisor_.OnExited(kNoPid, "cannot start: " + MessageOf(pid.status()), clock_.Now());
    return;
  }
  SY_LOG_INFO("started name={} pid={}", name, *pid);
  supervisor_.OnStarted(name, *pid, clock_.Now());
}

void LocalFleet::ReapProcesses() {
  while (const auto ended = ReapOne()) {
    SY_LOG_WARNING("process ended pid={} how={}", ended->pid, ended->how);
    supervisor_.OnExited(ended->pid, ended->how, clock_.Now());
  }
}

void LocalFleet::LearnAddresses() {
  for (const Supervisor::Process& process : supervisor_.processes()) {
    if (process.state != Supervisor::State::kStarting) {
      continue;
    }
    const std::map<std::string, std::string> addresses =
        state_dir_.ReadAddresses(process.plan.name, process.pid);
    for (const auto& [what, address] : addresses) {
      book_[process.plan.name][what] = address;
    }
    // A router has an admin address first, and others once its weights are loaded.
    if (process.plan.role == "router" ? addresses.contains("grpc") : !addresses.empty()) {
      supervisor_.OnAddresses(process.plan.name);
    }
  }
}

std::string LocalFleet::StartFailure() const {
  if (supervisor_.start_failure().empty()) {
    return {};
  }
  const std::string& name = supervisor_.failed_process();
  const auto from = log_bytes_.find(name);
  const std::string reason =
      StartErrorIn(state_dir_.LogPath(name), from == log_bytes_.end() ? 0 : from->second);
  return reason.empty() ? supervisor_.start_failure()
                        : fmt::format("{}: {}", supervisor_.start_failure(), reason);
}

void LocalFleet::RecordIfChanged() {
  FleetRecord fleet{
      .supervisor_pid = ::getpid(), .model_dir = options_.model_dir, .failure = StartFailure()};
  std::string summary = fleet.failure;
  for (const Supervisor::Process& process : supervisor_.processes()) {
    const auto addresses = book_.find(process.plan.name);
    summary += fmt::format("{} {} {} {};", process.plan.name, process.pid, NameOf(process.state),
                           addresses == book_.end() ? 0 : addresses->second.size());
    fleet.processes.push_back({.name = process.plan.name,
                               .role = process.plan.role,
                               .pid = process.pid,
                               .state = NameOf(process.state),
                               .restarts = process.restarts,
                               .last_end = process.last_end,
                               .addresses = addresses == book_.end()
                                                ? std::map<std::string, std::string>()
                                                : addresses->second});
  }
  if (summary == recorded_) {
    return;
  }
  recorded_ = summary;
  if (const absl::Status written = state_dir_.WriteFleet(fleet); !written.ok()) {
    SY_LOG_ERROR("cannot record the fleet: {}", MessageOf(written));
  }
}

bool LocalFleet::WaitForSignal(Duration timeout) const {
  const sigset_t signals = WatchedSignals();
  const timespec wait = {.tv_sec = timeout.count() / 1'000'000'000,
                         .tv_nsec = timeout.count() % 1'000'000'000};
  const int number = ::sigtimedwait(&signals, nullptr, &wait);
  return number == SIGTERM || number == SIGINT;
}

}  // namespace switchyard
