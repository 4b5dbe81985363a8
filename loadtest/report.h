#ifndef SWITCHYARD_LOADTEST_REPORT_H_
#define SWITCHYARD_LOADTEST_REPORT_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "loadtest/request_record.h"
#include "loadtest/slo.h"
#include "loadtest/statistics.h"
#include "loadtest/tenants.h"

// The figures of a run and the forms they are printed in. Pure functions and values, any thread.

namespace switchyard {

// What the report says of the load; no figure is made from it.
struct LoadLabel {
  std::string url;
  std::string endpoint;  // "openai" or "openai-chat", as in vLLM's results.
  std::string model;
  std::string load;  // In words: "64 users at once, 1 request each".
  std::string prompt_tokens;
  std::string output_tokens;
  std::string date;                    // UTC, "20261122-160500".
  std::optional<double> request_rate;  // Nothing for closed loops and traces.
  double burstiness = 1.0;
  std::optional<uint32_t> users;
  uint64_t seed = 0;
};

struct ReportOptions {
  LoadLabel label;
  std::vector<double> percentiles = {50.0, 90.0, 95.0, 99.0};
  std::vector<SloBound> slo;
  std::vector<Tenant> tenants;
};

struct TenantFigures {
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t output_tokens = 0;
  Summary ttft;
  Summary e2el;
};

inline constexpr std::array<Metric, 4> kReportedMetrics = {Metric::kTtft, Metric::kTpot,
                                                           Metric::kItl, Metric::kE2el};

struct Report {
  double duration_s = 0.0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t total_input_tokens = 0;  // Of completed requests, as all that follow.
  uint64_t total_output_tokens = 0;
  uint64_t total_cached_tokens = 0;
  uint64_t total_chunks = 0;
  uint64_t failed_chunks = 0;  // Of the others: what had come before they broke off.
  uint64_t without_usage = 0;  // Their tokens are chunks.
  uint64_t other_length = 0;   // Output not as long as was asked for.
  uint64_t good = 0;           // Within the SLO.
  std::array<Summary, kReportedMetrics.size()> metrics;  // Milliseconds, as kReportedMetrics.
  Summary lag;  // Milliseconds a request was begun late; all requests.
  std::map<std::string, uint64_t> errors_by_kind;
  std::map<int, uint64_t> errors_by_code;  // HTTP status, where it is not 200.
  std::map<std::string, uint64_t> errors_by_api_code;
  std::vector<TenantFigures> tenants;  // As ReportOptions::tenants.
  uint32_t chunks_per_s_max = 0;
  double cpu_user_s = 0.0;
  double cpu_system_s = 0.0;
  double cpu_core_share = 0.0;  // Of one core, over the duration.
};

Report MakeReport(const RunResult& run, const ReportOptions& options);

// The table for people.
std::string ReportText(const Report& report, const RunResult& run, const ReportOptions& options);

// One JSON object, with the member names of `vllm bench serve --save-result` where it has one. With
// `detailed` also one entry for each request.
std::string ReportJson(const Report& report, const RunResult& run, const ReportOptions& options,
                       bool detailed);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_REPORT_H_
