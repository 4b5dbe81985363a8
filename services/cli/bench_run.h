#ifndef SWITCHYARD_SERVICES_CLI_BENCH_RUN_H_
#define SWITCHYARD_SERVICES_CLI_BENCH_RUN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// One load on one router: `batch` requests at once, each with a random prompt of its own.
struct BenchCase {
  uint32_t batch = 1;
  uint32_t prompt_tokens = 16;
  uint32_t generated_tokens = 32;
  uint32_t vocab_size = 0;
  uint64_t seed = 1;  // Of the prompts.
};

// Seconds by what they were spent on, or counts, as the fleet's metrics give them.
using TimeShares = std::map<std::string, double>;

struct BenchResult {
  double later_tokens = 0;      // That came after every request had its first.
  double seconds = 0;           // From the first request's start to the last token.
  double first_seconds = 0;     // Until every request had its first token.
  std::vector<double> gaps_ms;  // Between the tokens of a request, ascending.
};

// Runs one case against the router's gRPC address and measures it from this side. Blocks; starts a
// thread for each request of the batch.
absl::StatusOr<BenchResult> RunBenchCase(const std::string& router_address, const BenchCase& load);

// What the router and the shards have spent so far: "stage/<name>", "step/prefill", "step/decode",
// "steps/prefill", "steps/decode", "shard/compute", "shard/queue" (all shards together).
absl::StatusOr<TimeShares> ReadTimeShares(const std::string& router_metrics_url,
                                          const std::vector<std::string>& shard_metrics_urls);

// later - earlier.
TimeShares Between(const TimeShares& earlier, const TimeShares& later);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_BENCH_RUN_H_
