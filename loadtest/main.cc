#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/signalfd.h>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "loadtest/load_options.h"
#include "loadtest/load_runner.h"
#include "loadtest/report.h"
#include "loadtest/stream_socket.h"
#include "loadtest/svg_plot.h"

namespace switchyard {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr size_t kFileBytesMax = size_t{1} << 30;
constexpr uint64_t kOpenFilesWanted = 1 << 20;
constexpr uint64_t kOtherFiles = 32;  // Descriptors that are not connections.

int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "switchyard-loadtest: %s\n", MessageOf(status).c_str());
  return code;
}

// SIGINT and SIGTERM as something to wait for.
Descriptor CatchSignals() {
  sigset_t signals{};
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return Descriptor(::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
}

std::string DateNow() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &utc);
  return text;
}

// A load and where it goes, all files read.
struct Plan {
  std::vector<Tenant> tenants;
  std::vector<RequestSpec> trace;
  SocketAddress address;
  uint32_t connections_max = 0;
};

absl::Status ReadInputs(const LoadOptions& options, Plan* plan) {
  plan->tenants = MakeTenants(options.tenant_count, options.api_keys);
  if (!options.tenants_file.empty()) {
    SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.tenants_file, kFileBytesMax));
    absl::StatusOr<std::vector<Tenant>> tenants = ParseTenants(text);
    if (!tenants.ok()) {
      return Annotate(tenants.status(), options.tenants_file);
    }
    plan->tenants = *std::move(tenants);
  }
  if (options.kind == LoadKind::kTrace) {
    SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.trace_file, kFileBytesMax));
    absl::StatusOr<Trace> trace = ParseTrace(text, options.trace, plan->tenants);
    if (!trace.ok()) {
      return Annotate(trace.status(), options.trace_file);
    }
    plan->tenants = std::move(trace->tenants);
    plan->trace = std::move(trace->requests);
  }
  return absl::OkStatus();
}

absl::Status FindTarget(const LoadOptions& options, Plan* plan) {
  SY_ASSIGN_OR_RETURN(plan->address, Resolve(options.url));
  if (!options.allow_remote && !plan->address.IsLoopback()) {
    return InvalidArgument("{} is another machine: load it only with --allow-remote",
                           options.url.host);
  }
  const uint64_t open_files = RaiseOpenFiles(kOpenFilesWanted);
  const uint64_t connections = open_files > kOtherFiles ? open_files - kOtherFiles : 0;
  const uint64_t wanted = options.kind == LoadKind::kUsers ? options.users.users : 1;
  if (connections < wanted) {
    return InvalidArgument(
        "{} users need {} open files, but the limit is {} and may not be raised further "
        "(ulimit -n)",
        wanted, wanted + kOtherFiles, open_files);
  }
  plan->connections_max = static_cast<uint32_t>(std::min<uint64_t>(connections, UINT32_MAX));
  return absl::OkStatus();
}

std::unique_ptr<Workload> MakeWorkload(const LoadOptions& options, Plan& plan) {
  switch (options.kind) {
    case LoadKind::kUsers:
      return MakeClosedLoop(options.users, options.shape, plan.tenants);
    case LoadKind::kTrace:
      return MakeTraceReplay(std::move(plan.trace), options.requests_max);
    case LoadKind::kOpenLoop:
      break;
  }
  return MakeOpenLoop(options.arrival, options.shape, plan.tenants, options.requests_max);
}

RunnerOptions MakeRunnerOptions(const LoadOptions& options, const Plan& plan) {
  RunnerOptions runner{.address = plan.address,
                       .body = options.body,
                       .tenants = plan.tenants,
                       .duration_s = options.duration_s,
                       .timeout_s = options.timeout_s,
                       .limit_s = options.limit_s,
                       .connections_max = plan.connections_max,
                       .keep_alive = options.keep_alive};
  runner.body.send_user = plan.tenants.size() > 1;
  runner.request_head = fmt::format(
      "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: switchyard-loadtest\r\n"
      "Content-Type: application/json\r\nAccept: text/event-stream\r\n",
      options.path, options.url.authority);
  for (const std::string& header : options.headers) {
    runner.request_head += header + "\r\n";
  }
  if (!options.keep_alive) {
    runner.request_head += "Connection: close\r\n";
  }
  if (!options.quiet) {
    runner.on_progress = [](const RunProgress& progress) {
      std::fprintf(stderr, "%6.0f s: %llu begun, %llu completed, %llu failed, %u in flight\n",
                   progress.at_s, static_cast<unsigned long long>(progress.started),
                   static_cast<unsigned long long>(progress.completed),
                   static_cast<unsigned long long>(progress.failed), progress.in_flight);
    };
  }
  return runner;
}

// Requests like those of the run, of another seed and all at once, whose figures nobody sees.
absl::Status WarmUp(const LoadOptions& options, const RunnerOptions& runner_options) {
  if (options.warmup == 0) {
    return absl::OkStatus();
  }
  ShapeOptions shape = options.shape;
  shape.seed = ~shape.seed;
  const std::unique_ptr<Workload> workload =
      MakeClosedLoop({.users = options.warmup}, shape, runner_options.tenants);
  LoadRunner runner(runner_options, *workload);
  return runner.Run().status();
}

ReportOptions MakeReportOptions(const LoadOptions& options, const Plan& plan) {
  const bool trace = options.kind == LoadKind::kTrace;
  ReportOptions report{
      .percentiles = options.percentiles, .slo = options.slo, .tenants = plan.tenants};
  report.label = {
      .url = fmt::format("http://{}{}", options.url.authority, options.path),
      .endpoint = options.body.endpoint == Endpoint::kChat ? "openai-chat" : "openai",
      .model = options.body.model,
      .load = LoadInWords(options),
      .prompt_tokens = trace ? "trace" : options.shape.prompt_tokens.text(),
      .output_tokens = trace ? "trace" : options.shape.output_tokens.text(),
      .date = DateNow(),
      .burstiness = options.arrival.burstiness,
      .seed = options.shape.seed,
  };
  if (options.shape.shared_prefix_tokens > 0) {
    report.label.prompt_tokens =
        fmt::format("{} shared by {} groups + {}", options.shape.shared_prefix_tokens,
                    options.shape.prefix_groups, report.label.prompt_tokens);
  }
  if (options.kind == LoadKind::kOpenLoop) {
    report.label.request_rate = options.arrival.rate_per_s;
  } else if (options.kind == LoadKind::kUsers) {
    report.label.users = options.users.users;
  }
  return report;
}

absl::Status WritePlots(const std::string& plot_dir, const RunResult& run) {
  std::error_code error;
  std::filesystem::create_directories(plot_dir, error);
  if (error) {
    return Unavailable("{}: {}", plot_dir, error.message());
  }
  for (const auto& [name, svg] : PlotsOf(run)) {
    SY_RETURN_IF_ERROR(WriteFileAtomically(plot_dir + "/" + name, svg));
  }
  return absl::OkStatus();
}

absl::Status WriteOutputs(const LoadOptions& options, const ReportOptions& report_options,
                          const RunResult& run, const Report& report) {
  const bool json_to_stdout = options.json_file == "-";
  std::fputs(ReportText(report, run, report_options).c_str(), json_to_stdout ? stderr : stdout);
  if (!options.json_file.empty()) {
    const std::string json = ReportJson(report, run, report_options, options.detailed);
    if (json_to_stdout) {
      std::fputs(json.c_str(), stdout);
    } else {
      SY_RETURN_IF_ERROR(WriteFileAtomically(options.json_file, json));
    }
  }
  if (std::fflush(stdout) != 0) {
    return Unavailable("standard output: {}", std::strerror(errno));
  }
  return options.plot_dir.empty() ? absl::OkStatus() : WritePlots(options.plot_dir, run);
}

int RunLoadtest(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    if (word == "--help" || word == "-h" || word == "help") {
      std::fputs(kLoadtestHelp, stdout);
      return kExitOk;
    }
  }
  const absl::StatusOr<LoadOptions> options = ParseLoadOptions(words);
  if (!options.ok()) {
    return Fail(InvalidArgument("{} (--help lists the options)", MessageOf(options.status())),
                kExitUsage);
  }
  Plan plan;
  if (absl::Status status = ReadInputs(*options, &plan); !status.ok()) {
    return Fail(status, kExitUsage);
  }
  if (absl::Status status = FindTarget(*options, &plan); !status.ok()) {
    return Fail(status, absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed);
  }
  const Descriptor signals = CatchSignals();
  RunnerOptions runner_options = MakeRunnerOptions(*options, plan);
  runner_options.stop_fd = signals.get();
  if (absl::Status status = WarmUp(*options, runner_options); !status.ok()) {
    return Fail(status, kExitFailed);
  }
  const ReportOptions report_options = MakeReportOptions(*options, plan);
  const std::unique_ptr<Workload> workload = MakeWorkload(*options, plan);
  LoadRunner runner(std::move(runner_options), *workload);
  const absl::StatusOr<RunResult> run = runner.Run();
  if (!run.ok()) {
    return Fail(run.status(), kExitFailed);
  }
  const Report report = MakeReport(*run, report_options);
  if (absl::Status status = WriteOutputs(*options, report_options, *run, report); !status.ok()) {
    return Fail(status, kExitFailed);
  }
  const bool whole = !run->interrupted && !run->limit_reached;
  return whole && report.failed == 0 && report.completed > 0 ? kExitOk : kExitFailed;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  return switchyard::RunLoadtest(std::vector<std::string>(argv + 1, argv + argc));
}
