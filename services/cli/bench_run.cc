#include "services/cli/bench_run.h"

#include <algorithm>
#include <thread>

#include <grpcpp/client_context.h>

#include "proto/switchyard/v1/inference.grpc.pb.h"

#include "libs/base/clock.h"
#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/rpc/channel.h"
#include "services/cli/fleet_view.h"
#include "services/cli/http_client.h"

namespace switchyard {
namespace {

constexpr long kScrapeTimeoutMs = 5000;

// One request and when each of its tokens came.
struct Stream {
  v1::GenerateRequest request;
  std::vector<Instant> token_times;
  absl::Status status;

  void Run(v1::Inference::Stub& stub, const Clock& clock) {
    grpc::ClientContext context;
    const auto reader = stub.Generate(&context, request);
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
      token_times.insert(token_times.end(), static_cast<size_t>(event.tokens_size()), clock.Now());
    }
    if (const grpc::Status end = reader->Finish(); !end.ok()) {
      status = Unavailable("generate: {}", end.error_message());
    }
  }
};

v1::GenerateRequest MakeRequest(const BenchCase& load, uint32_t index) {
  Rng rng(load.seed * 1'000'003 + index);
  v1::GenerateRequest request;
  for (uint32_t i = 0; i < load.prompt_tokens; ++i) {
    request.add_prompt_tokens(static_cast<uint32_t>(rng.Next() % load.vocab_size));
  }
  request.set_max_tokens(load.generated_tokens);
  // Nothing of one request may be found in the cache by another.
  request.set_cache_salt(fmt::format("{}/{}/{}", load.seed, load.prompt_tokens, index));
  return request;
}

BenchResult Evaluate(const std::vector<Stream>& streams, Instant begin) {
  Instant all_started = begin;
  Instant end = begin;
  for (const Stream& stream : streams) {
    all_started = std::max(all_started, stream.token_times.front());
    end = std::max(end, stream.token_times.back());
  }
  BenchResult result{.seconds = ToSeconds(end - begin),
                     .first_seconds = ToSeconds(all_started - begin)};
  for (const Stream& stream : streams) {
    const std::vector<Instant>& times = stream.token_times;
    result.later_tokens += static_cast<double>(
        std::ranges::count_if(times, [all_started](Instant time) { return time > all_started; }));
    for (size_t i = 1; i < times.size(); ++i) {
      result.gaps_ms.push_back(ToSeconds(times[i] - times[i - 1]) * 1e3);
    }
  }
  std::ranges::sort(result.gaps_ms);
  return result;
}

absl::Status AddMetrics(const std::string& url, const std::map<std::string, std::string>& names,
                        TimeShares& shares) {
  SY_ASSIGN_OR_RETURN(const HttpReply reply, HttpGet(url, kScrapeTimeoutMs));
  if (reply.status != 200) {
    return Unavailable("{}: status {}", url, reply.status);
  }
  for (const auto& [share, metric] : names) {
    const size_t bar = metric.find('|');
    std::vector<std::string> labels;
    if (bar != std::string::npos) {
      labels.push_back(metric.substr(bar + 1));
    }
    shares[share] += SumMetric(reply.body, metric.substr(0, bar), labels);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BenchResult> RunBenchCase(const std::string& router_address, const BenchCase& load) {
  const SteadyClock clock;
  const auto stub = v1::Inference::NewStub(MakeChannel(router_address));
  std::vector<Stream> streams(load.batch);
  for (uint32_t i = 0; i < load.batch; ++i) {
    streams[i].request = MakeRequest(load, i);
  }
  const Instant begin = clock.Now();
  std::vector<std::thread> threads;
  threads.reserve(streams.size());
  for (Stream& stream : streams) {
    threads.emplace_back([&stream, &stub, &clock] { stream.Run(*stub, clock); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const Stream& stream : streams) {
    SY_RETURN_IF_ERROR(stream.status);
    if (stream.token_times.size() != load.generated_tokens) {
      return Internal("asked for {} tokens, got {}", load.generated_tokens,
                      stream.token_times.size());
    }
  }
  return Evaluate(streams, begin);
}

absl::StatusOr<TimeShares> ReadTimeShares(const std::string& router_metrics_url,
                                          const std::vector<std::string>& shard_metrics_urls) {
  std::map<std::string, std::string> router = {
      {"step/prefill", "switchyard_step_duration_seconds_sum|phase=\"prefill\""},
      {"step/decode", "switchyard_step_duration_seconds_sum|phase=\"decode\""},
      {"steps/prefill", "switchyard_step_duration_seconds_count|phase=\"prefill\""},
      {"steps/decode", "switchyard_step_duration_seconds_count|phase=\"decode\""}};
  for (const std::string stage : {"schedule", "embed", "attention", "gate", "dispatch", "shared",
                                  "wait", "combine", "dense", "head", "sampling", "events"}) {
    router["stage/" + stage] = "switchyard_moe_stage_seconds_sum|stage=\"" + stage + "\"";
  }
  TimeShares shares;
  SY_RETURN_IF_ERROR(AddMetrics(router_metrics_url, router, shares));
  for (const std::string& url : shard_metrics_urls) {
    SY_RETURN_IF_ERROR(AddMetrics(url,
                                  {{"shard/batches", "switchyard_shard_batch_tokens_count"},
                                   {"shard/rows", "switchyard_shard_batch_tokens_sum"},
                                   {"shard/compute", "switchyard_shard_compute_seconds_sum"},
                                   {"shard/queue", "switchyard_shard_queue_seconds_sum"}},
                                  shares));
  }
  return shares;
}

TimeShares Between(const TimeShares& earlier, const TimeShares& later) {
  TimeShares shares;
  for (const auto& [name, value] : later) {
    const auto before = earlier.find(name);
    shares[name] = value - (before == earlier.end() ? 0.0 : before->second);
  }
  return shares;
}

}  // namespace switchyard
