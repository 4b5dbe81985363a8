#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "libs/app/environment.h"
#include "libs/base/status.h"
#include "libs/kernels/machine_peaks.h"
#include "libs/model/checkpoint.h"
#include "libs/model/weight_choice.h"
#include "services/cli/arguments.h"
#include "services/cli/bench_limits.h"
#include "services/cli/bench_run.h"
#include "services/cli/commands.h"
#include "services/cli/fleet_view.h"
#include "services/cli/state_dir.h"

namespace switchyard {
namespace {

struct BenchOptions {
  std::string model_dir;
  std::string weights;
  std::vector<uint32_t> batches;
  uint32_t prompt_tokens = 0;  // Of decode cases.
  uint32_t prefill_tokens = 0;
  uint32_t generated_tokens = 0;
  uint32_t rounds = 0;
  uint32_t vocab_size = 0;
  ModelCost cost;
  bool explain = false;
  bool json = false;
  std::vector<std::string> up_words;  // What the fleet is started with.
};

// stdout goes to stderr while this lives, so that a machine can read what follows. One owner.
class StdoutToStderr {
 public:
  StdoutToStderr() : saved_(::dup(STDOUT_FILENO)) {
    std::fflush(stdout);
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
  }

  StdoutToStderr(const StdoutToStderr&) = delete;
  StdoutToStderr& operator=(const StdoutToStderr&) = delete;

  ~StdoutToStderr() {
    std::fflush(stdout);
    ::dup2(saved_, STDOUT_FILENO);
    ::close(saved_);
  }

 private:
  const int saved_;
};

absl::StatusOr<std::vector<uint32_t>> ReadBatches(const std::string& text) {
  std::vector<uint32_t> batches;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string number = text.substr(begin, end - begin);
    const bool digits = !number.empty() && number.size() <= 4 &&
                        number.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::stoul(number) == 0 || std::stoul(number) > 1024) {
      return InvalidArgument("--batch {}: give numbers from 1 to 1024 with commas between", text);
    }
    batches.push_back(static_cast<uint32_t>(std::stoul(number)));
    begin = end + 1;
  }
  return batches;
}

absl::StatusOr<BenchOptions> ReadBenchOptions(const std::vector<std::string>& words) {
  Arguments arguments(words, {"explain", "json"});
  BenchOptions options{.model_dir = arguments.Text("model", ""),
                       .weights = arguments.Text("weights", "auto"),
                       .prompt_tokens = arguments.Number("prompt-tokens", 16, 1, 65536),
                       .prefill_tokens = arguments.Number("prefill-tokens", 512, 0, 65536),
                       .generated_tokens = arguments.Number("generated-tokens", 32, 2, 65536),
                       .rounds = arguments.Number("rounds", 3, 1, 1000),
                       .explain = arguments.Flag("explain"),
                       .json = arguments.Flag("json")};
  const std::string batches = arguments.Text("batch", "1,8,32,128");
  options.up_words = {"--model", options.model_dir, "--weights", options.weights, "--port",
                      "0",       "--detach"};
  for (const char* const name : {"shards", "routers", "replicas", "threads", "micro-batches",
                                 "transport", "step-tokens", "chunk-tokens", "cache-blocks"}) {
    if (const std::string value = arguments.Text(name, ""); !value.empty()) {
      options.up_words.push_back(std::string("--") + name);
      options.up_words.push_back(value);
    }
  }
  SY_RETURN_IF_ERROR(arguments.Finish());
  if (options.model_dir.empty()) {
    return InvalidArgument("--model DIR is required");
  }
  SY_ASSIGN_OR_RETURN(options.batches, ReadBatches(batches));
  SY_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(options.model_dir));
  options.vocab_size = checkpoint.spec().vocab_size;
  SY_ASSIGN_OR_RETURN(const WeightChoice weights, ParseWeightChoice(options.weights));
  SY_ASSIGN_OR_RETURN(options.cost, CostOf(checkpoint, weights));
  return options;
}

double MedianOf(std::vector<double> values) {
  std::ranges::sort(values);
  return values.empty() ? 0.0 : values[values.size() / 2];
}

// Where the fleet that runs for this benchmark listens.
struct BenchFleet {
  std::string router_grpc;
  std::string router_metrics;
  std::vector<std::string> shard_metrics;
};

absl::StatusOr<BenchFleet> FindFleet(const StateDir& state_dir) {
  SY_ASSIGN_OR_RETURN(const FleetView view, ViewFleet(state_dir));
  BenchFleet fleet;
  for (const ProcessRecord& process : view.record.processes) {
    if (process.role == "router" && fleet.router_grpc.empty()) {
      fleet.router_grpc = process.addresses.at("grpc");
      fleet.router_metrics = view.metrics.at(process.name);
    } else if (process.role == "expert-shard") {
      fleet.shard_metrics.push_back(view.metrics.at(process.name));
    }
  }
  if (fleet.router_grpc.empty()) {
    return Internal("no router runs");
  }
  return fleet;
}

// One kind of load, over all rounds.
struct CaseReport {
  std::string name;  // "decode" or "prefill".
  BenchCase load;
  std::vector<double> tokens_per_second;
  std::vector<double> gap_p50_ms;
  std::vector<double> gap_p99_ms;
  TimeShares shares;
  StepCost step;  // Of one step of the case.
  double limit_tokens_per_second = 0;
};

// The time of the steps, part by part. What the router waits for is split by what the shards did,
// which may overlap with each other and with the router's own work.
void PrintShares(const CaseReport& report) {
  const bool decode = report.name == "decode";
  const TimeShares& shares = report.shares;
  const double steps = shares.at(decode ? "steps/decode" : "steps/prefill");
  const double all_steps = shares.at("steps/decode") + shares.at("steps/prefill");
  const double total = shares.at("step/decode") + shares.at("step/prefill");
  std::printf("  where the time of %.0f steps went (%.0f of them %s), ms per step\n", all_steps,
              steps, report.name.c_str());
  double sum = 0;
  for (const auto& [name, seconds] : shares) {
    if (name.starts_with("stage/")) {
      std::printf("    %-14s %9.3f  %5.1f %%\n", name.c_str() + 6, seconds / all_steps * 1e3,
                  seconds / total * 1e2);
      sum += seconds;
    }
  }
  std::printf("    %-14s %9.3f  %5.1f %% of %.3f ms\n", "sum", sum / all_steps * 1e3,
              sum / total * 1e2, total / all_steps * 1e3);
  std::printf(
      "    shards: computing %.3f ms, frames queued %.3f ms (summed over shards), %.1f batches of "
      "%.1f rows\n",
      shares.at("shard/compute") / all_steps * 1e3, shares.at("shard/queue") / all_steps * 1e3,
      shares.at("shard/batches") / all_steps,
      shares.at("shard/rows") / std::max(shares.at("shard/batches"), 1.0));
}

void PrintJson(const BenchOptions& options, const CaseReport& report) {
  boost::json::object shares;
  for (const auto& [name, value] : report.shares) {
    shares[name] = value;
  }
  const auto [low, high] = std::ranges::minmax(report.tokens_per_second);
  std::printf("%s\n",
              boost::json::serialize(
                  boost::json::object{{"case", report.name},
                                      {"weights", options.weights},
                                      {"batch", report.load.batch},
                                      {"prompt_tokens", report.load.prompt_tokens},
                                      {"generated_tokens", report.load.generated_tokens},
                                      {"rounds", report.tokens_per_second.size()},
                                      {"tokens_per_second", MedianOf(report.tokens_per_second)},
                                      {"tokens_per_second_min", low},
                                      {"tokens_per_second_max", high},
                                      {"limit_tokens_per_second", report.limit_tokens_per_second},
                                      {"step_bytes", report.step.bytes},
                                      {"step_operations", report.step.operations},
                                      {"gap_p50_ms", MedianOf(report.gap_p50_ms)},
                                      {"gap_p99_ms", MedianOf(report.gap_p99_ms)},
                                      {"seconds", shares}})
                  .c_str());
}

void Print(const BenchOptions& options, const CaseReport& report) {
  if (options.json) {
    PrintJson(options, report);
  } else {
    const auto [low, high] = std::ranges::minmax(report.tokens_per_second);
    std::printf("%-8s batch %4u  %9.1f tokens/s (%.1f to %.1f)", report.name.c_str(),
                report.load.batch, MedianOf(report.tokens_per_second), low, high);
    std::printf("  %.0f %% of the limit %.0f (%.0f MB, %.1f G operations a step)",
                MedianOf(report.tokens_per_second) / report.limit_tokens_per_second * 1e2,
                report.limit_tokens_per_second, report.step.bytes * 1e-6,
                report.step.operations * 1e-9);
    if (report.name == "decode") {
      std::printf("  gap p50 %.2f ms, p99 %.2f ms", MedianOf(report.gap_p50_ms),
                  MedianOf(report.gap_p99_ms));
    }
    std::printf("\n");
    if (options.explain) {
      PrintShares(report);
    }
  }
  std::fflush(stdout);
}

double PrefillRate(const BenchCase& load, const BenchResult& result) {
  return static_cast<double>(load.prompt_tokens) * load.batch / result.first_seconds;
}

// The smaller of two figures, each of which may be too large: tokens after the first of each
// request per second of the whole time less the steps that computed prompts (some of which made
// tokens, too), and tokens that came after every request had its first per second from then on
// (tokens may have waited in a socket before they were seen).
double DecodeRate(const BenchCase& load, const BenchResult& result, const TimeShares& spent) {
  const double tokens = static_cast<double>(load.generated_tokens - 1) * load.batch;
  const double by_steps = tokens / (result.seconds - spent.at("step/prefill"));
  const double later_seconds = result.seconds - result.first_seconds;
  return later_seconds > 0 ? std::min(by_steps, result.later_tokens / later_seconds) : by_steps;
}

// Set by SIGINT and SIGTERM; looked at between two rounds.
volatile std::sig_atomic_t interrupted = 0;

// RunUp() leaves both signals blocked.
void ListenForInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = SA_RESTART;
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM}) {
    ::sigaction(number, &action, nullptr);
    sigaddset(&signals, number);
  }
  ::sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

absl::Status RunRound(const BenchFleet& fleet, CaseReport& report) {
  if (interrupted != 0) {
    return absl::CancelledError("interrupted");
  }
  SY_ASSIGN_OR_RETURN(const TimeShares before,
                      ReadTimeShares(fleet.router_metrics, fleet.shard_metrics));
  SY_ASSIGN_OR_RETURN(const BenchResult result, RunBenchCase(fleet.router_grpc, report.load));
  SY_ASSIGN_OR_RETURN(const TimeShares after,
                      ReadTimeShares(fleet.router_metrics, fleet.shard_metrics));
  const TimeShares spent = Between(before, after);
  for (const auto& [name, value] : spent) {
    report.shares[name] += value;
  }
  ++report.load.seed;
  const bool decode = report.name == "decode";
  report.tokens_per_second.push_back(decode ? DecodeRate(report.load, result, spent)
                                            : PrefillRate(report.load, result));
  if (decode) {
    report.gap_p50_ms.push_back(result.gaps_ms[result.gaps_ms.size() / 2]);
    report.gap_p99_ms.push_back(result.gaps_ms[result.gaps_ms.size() * 99 / 100]);
  }
  return absl::OkStatus();
}

absl::Status RunCases(const BenchOptions& options, const BenchFleet& fleet) {
  std::vector<CaseReport> reports;
  for (const uint32_t batch : options.batches) {
    reports.push_back({.name = "decode",
                       .load = {.batch = batch,
                                .prompt_tokens = options.prompt_tokens,
                                .generated_tokens = options.generated_tokens,
                                .vocab_size = options.vocab_size}});
  }
  if (options.prefill_tokens > 0) {
    reports.push_back({.name = "prefill",
                       .load = {.batch = 1,
                                .prompt_tokens = options.prefill_tokens,
                                .generated_tokens = 1,
                                .vocab_size = options.vocab_size}});
  }
  const MachinePeaks peaks = MeasurePeaks(std::max(std::thread::hardware_concurrency(), 1U));
  if (!options.json) {
    std::printf("this machine: reads %.1f GB/s, BF16 %.0f GFLOP/s, INT8 %.0f GOP/s\n",
                peaks.read_bytes_per_second * 1e-9, peaks.bf16_flops * 1e-9, peaks.int8_ops * 1e-9);
  }
  for (CaseReport& report : reports) {
    const bool decode = report.name == "decode";
    const uint32_t rows = decode ? report.load.batch : report.load.prompt_tokens;
    report.step = CostOfStep(options.cost, rows, decode ? rows : 1);
    report.limit_tokens_per_second = rows / LimitSeconds(options.cost, report.step, peaks);
  }
  for (CaseReport& report : reports) {  // The first time memory is touched does not count.
    CaseReport warm_up = report;
    warm_up.load.seed = 1'000'000;
    SY_RETURN_IF_ERROR(RunRound(fleet, warm_up));
    for (uint32_t round = 0; round < options.rounds; ++round) {
      SY_RETURN_IF_ERROR(RunRound(fleet, report));
    }
    Print(options, report);
  }
  return absl::OkStatus();
}

}  // namespace

int RunBench(const std::vector<std::string>& words, const std::string& bin_dir) {
  const auto options = ReadBenchOptions(words);
  if (!options.ok()) {
    return Fail("bench", MessageOf(options.status()), kExitUsage);
  }
  std::string state_path =
      (std::filesystem::temp_directory_path() / "switchyard-bench-XXXXXX").string();
  if (::mkdtemp(state_path.data()) == nullptr) {
    return Fail("bench", "cannot make a temporary directory", kExitFailed);
  }
  std::vector<std::string> up_words = options->up_words;
  up_words.insert(up_words.end(), {"--state-dir", state_path});
  {
    const StdoutToStderr quiet;
    if (const int started = RunUp(up_words, bin_dir); started != kExitOk) {
      std::fprintf(stderr, "switchyard bench: logs are in %s/logs\n", state_path.c_str());
      return started;
    }
  }
  ListenForInterrupts();
  const StateDir state_dir(state_path);
  absl::Status status = absl::OkStatus();
  if (const auto fleet = FindFleet(state_dir); fleet.ok()) {
    status = RunCases(*options, *fleet);
  } else {
    status = fleet.status();
  }
  {
    const StdoutToStderr quiet;
    RunDown({"--state-dir", state_path});
  }
  if (!status.ok()) {
    return Fail("bench", fmt::format("{}; logs are in {}/logs", MessageOf(status), state_path),
                kExitFailed);
  }
  std::error_code ignored;
  std::filesystem::remove_all(state_path, ignored);
  return kExitOk;
}

}  // namespace switchyard
