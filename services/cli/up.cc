#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libs/app/environment.h"
#include "libs/base/clock.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/model/weight_choice.h"
#include "services/cli/arguments.h"
#include "services/cli/commands.h"
#include "services/cli/fleet.h"
#include "services/cli/fleet_view.h"
#include "services/cli/local_fleet.h"
#include "services/cli/state_dir.h"

namespace switchyard {
namespace {

absl::StatusOr<UpOptions> ReadUpOptions(const std::vector<std::string>& words,
                                        const std::string& bin_dir) {
  Arguments arguments(words, {"detach"});
  UpOptions options{.model_dir = arguments.Text("model", ""),
                    .state_dir = arguments.Text("state-dir", DefaultStateDir()),
                    .bin_dir = bin_dir,
                    .host = arguments.Text("host", "127.0.0.1"),
                    .port = arguments.Number("port", 8080, 0, 65535),
                    .routers = arguments.Number("routers", 1, 1, 16),
                    .shards = arguments.Number("shards", 2, 1, 64),
                    .replicas = arguments.Number("replicas", 1, 1, 16),
                    .cores = std::max(std::thread::hardware_concurrency(), 1U),
                    .threads = arguments.Number("threads", 0, 1, 256),
                    .micro_batches = arguments.Number("micro-batches", 0, 1, 2),
                    .step_tokens_max = arguments.Number("step-tokens", 0, 1, 65536),
                    .chunk_tokens_max = arguments.Number("chunk-tokens", 0, 1, 65536),
                    .cache_blocks = arguments.Number("cache-blocks", 0, 1, 16777216),
                    .transport = arguments.Text("transport", "auto"),
                    .weights = arguments.Text("weights", "auto"),
                    .served_names = arguments.Texts("served-name"),
                    .api_keys_file = arguments.Text("api-keys", ""),
                    .detach = arguments.Flag("detach"),
                    .ready_seconds_max = arguments.Number("ready-seconds", 600, 1, 86400)};
  SY_RETURN_IF_ERROR(arguments.Finish());
  if (options.model_dir.empty()) {
    return InvalidArgument("--model DIR is required");
  }
  if (const auto weights = ParseWeightChoice(options.weights); !weights.ok()) {
    return Annotate(weights.status(), "--weights");
  }
  std::error_code error;
  const auto model = std::filesystem::canonical(options.model_dir, error);
  if (error || !std::filesystem::exists(model / "config.json")) {
    return InvalidArgument("--model {}: no config.json there", options.model_dir);
  }
  options.model_dir = model.string();
  for (std::string* path : {&options.state_dir, &options.api_keys_file}) {
    if (!path->empty()) {
      *path = std::filesystem::absolute(*path).lexically_normal().string();
    }
  }
  return options;
}

// The child: from here on this process is the supervisor.
[[noreturn]] void BecomeSupervisor(const UpOptions& options, pid_t parent) {
  if (options.detach) {
    ::setsid();
  } else {
    ::setpgid(0, 0);  // Ctrl-C goes to the parent, which asks for a stop.
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) {
      std::_Exit(kExitFailed);
    }
  }
  const std::string log = StateDir(options.state_dir).LogPath("supervisor");
  const int log_fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const int null_fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(null_fd, STDIN_FILENO);
  ::dup2(log_fd, STDOUT_FILENO);
  ::dup2(log_fd, STDERR_FILENO);
  InitLogging("supervisor");
  const StateDir state_dir(options.state_dir);
  if (const absl::Status locked = state_dir.Lock(); !locked.ok()) {
    SY_LOG_ERROR("{}", MessageOf(locked));
    std::_Exit(kExitFailed);
  }
  state_dir.RemoveLeftovers();
  const SteadyClock clock;
  std::_Exit(LocalFleet(options, clock).Run());
}

// Prints what changed since the last call, one line per change.
class Progress {
 public:
  void Show(const FleetView& view) {
    for (const ProcessRecord& process : view.record.processes) {
      std::string line = process.name + " " + process.state;
      if (process.restarts > 0) {
        line += fmt::format(" (start {}, the last one {})", process.restarts + 1, process.last_end);
      }
      ShowIfNew(process.name, line);
    }
    if (!view.placement_phase.empty()) {
      ShowIfNew("placement", "placement: " + view.placement_phase);
    }
  }

 private:
  void ShowIfNew(const std::string& about, const std::string& line) {
    if (shown_[about] != line) {
      shown_[about] = line;
      std::printf("  %s\n", line.c_str());
      std::fflush(stdout);
    }
  }

  std::map<std::string, std::string> shown_;
};

void PrintUrls(const UpOptions& options, const FleetView& view) {
  std::printf("ready: %s\n", view.api.c_str());
  std::printf("  API       %s/v1 (OpenAI compatible)\n", view.api.c_str());
  for (const auto& [name, url] : view.metrics) {
    std::printf("  metrics   %-16s %s\n", name.c_str(), url.c_str());
  }
  std::printf("  logs      %s/logs\n", options.state_dir.c_str());
  std::printf("  epoch     %llu\n", static_cast<unsigned long long>(view.epoch));
  std::fflush(stdout);
}

bool SupervisorEnded(pid_t supervisor) {
  siginfo_t info = {};
  return ::waitid(P_PID, static_cast<id_t>(supervisor), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid != 0;
}

// Waits for a signal of `signals` at most `timeout`; its number or -1.
int AwaitSignal(const sigset_t& signals, Duration timeout) {
  const timespec wait = {.tv_sec = timeout.count() / 1'000'000'000,
                         .tv_nsec = timeout.count() % 1'000'000'000};
  return ::sigtimedwait(&signals, nullptr, &wait);
}

int StopAndFail(pid_t supervisor, const std::string& why) {
  ::kill(supervisor, SIGTERM);
  ::waitpid(supervisor, nullptr, 0);
  return Fail("up", why, kExitFailed);
}

// The parent: shows progress until ready, then returns (detached) or stays until asked to stop.
int Attend(const UpOptions& options, pid_t supervisor, const sigset_t& signals) {
  const SteadyClock clock;
  const Instant give_up = clock.Now() + std::chrono::seconds(options.ready_seconds_max);
  const StateDir state_dir(options.state_dir);
  Progress progress;
  FleetView view;
  while (!view.ready) {
    const int number = AwaitSignal(signals, std::chrono::milliseconds(100));
    if (number == SIGINT || number == SIGTERM) {
      return StopAndFail(supervisor, "interrupted before ready");
    }
    const bool ended = SupervisorEnded(supervisor);
    // Until the supervisor has written its own record, there may be an earlier one's.
    if (auto seen = ViewFleet(state_dir); seen.ok() && seen->record.supervisor_pid == supervisor) {
      view = *std::move(seen);
      progress.Show(view);
    }
    if (ended || !view.record.failure.empty()) {
      return StopAndFail(
          supervisor,
          fmt::format("{}; see {}/logs",
                      view.record.failure.empty() ? "the supervisor ended" : view.record.failure,
                      options.state_dir));
    }
    if (clock.Now() > give_up) {
      return StopAndFail(supervisor, fmt::format("not ready after {} s: {}; see {}/logs",
                                                 options.ready_seconds_max, view.not_ready_reason,
                                                 options.state_dir));
    }
  }
  PrintUrls(options, view);
  if (options.detach) {
    return kExitOk;
  }
  std::printf("Ctrl-C stops it\n");
  std::fflush(stdout);
  while (!SupervisorEnded(supervisor)) {
    const int number = AwaitSignal(signals, std::chrono::seconds(60));
    if (number == SIGINT || number == SIGTERM) {
      std::printf("stopping\n");
      ::kill(supervisor, SIGTERM);
    }
  }
  int wait_status = 0;
  ::waitpid(supervisor, &wait_status, 0);
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : kExitFailed;
}

}  // namespace

int RunUp(const std::vector<std::string>& words, const std::string& bin_dir) {
  const auto options = ReadUpOptions(words, bin_dir);
  if (!options.ok()) {
    return Fail("up", MessageOf(options.status()), kExitUsage);
  }
  const StateDir state_dir(options->state_dir);
  if (const absl::Status prepared = state_dir.Prepare(); !prepared.ok()) {
    return Fail("up", MessageOf(prepared), kExitFailed);
  }
  if (state_dir.IsLocked()) {
    return Fail(
        "up",
        fmt::format("already runs on state dir {0}; 'switchyard down --state-dir {0}' stops it",
                    options->state_dir),
        kExitFailed);
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::printf("starting %s: %u shards, %u routers\n", options->model_dir.c_str(), options->shards,
              options->routers);
  std::fflush(stdout);
  const pid_t parent = ::getpid();
  const pid_t supervisor = ::fork();
  if (supervisor < 0) {
    return Fail("up", "cannot fork", kExitFailed);
  }
  if (supervisor == 0) {
    BecomeSupervisor(*options, parent);
  }
  return Attend(*options, supervisor, signals);
}

}  // namespace switchyard
