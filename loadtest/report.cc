#include "loadtest/report.h"

#include <algorithm>

namespace switchyard {
namespace {

constexpr size_t kApiCodesMax = 64;  // A server that makes codes up must not fill the report.

std::vector<double> Samples(const RunResult& run, Metric metric) {
  std::vector<double> samples;
  for (const RequestRecord& record : run.records) {
    if (metric == Metric::kItl) {
      if (record.outcome == Outcome::kCompleted) {
        samples.insert(samples.end(), record.gaps_ms.begin(), record.gaps_ms.end());
      }
    } else if (const std::optional<double> value = Measure(record, metric)) {
      samples.push_back(*value);
    }
  }
  return samples;
}

void CountFailure(const RequestRecord& record, Report* report) {
  ++report->failed;
  ++report->errors_by_kind[std::string(NameOf(record.outcome))];
  report->failed_chunks += record.chunks;
  if (record.http_status != 0 && record.http_status != 200) {
    ++report->errors_by_code[record.http_status];
  }
  if (!record.api_code.empty()) {
    const bool known = report->errors_by_api_code.contains(record.api_code);
    ++report->errors_by_api_code[known || report->errors_by_api_code.size() < kApiCodesMax
                                     ? record.api_code
                                     : "other"];
  }
}

void CountCompleted(const RequestRecord& record, const ReportOptions& options, Report* report) {
  ++report->completed;
  report->total_input_tokens += record.prompt_tokens;
  report->total_output_tokens += record.output_tokens;
  report->total_cached_tokens += record.cached_tokens;
  report->total_chunks += record.chunks;
  report->without_usage += record.has_usage ? 0 : 1;
  report->other_length += record.output_tokens == record.output_tokens_asked ? 0 : 1;
  report->good += KeepsSlo(record, options.slo) ? 1 : 0;
}

std::vector<TenantFigures> FiguresByTenant(const RunResult& run, const ReportOptions& options) {
  struct TenantSamples {
    std::vector<double> ttft;
    std::vector<double> e2el;
  };

  std::vector<TenantFigures> figures(options.tenants.size());
  std::vector<TenantSamples> samples(options.tenants.size());
  for (const RequestRecord& record : run.records) {
    TenantFigures& tenant = figures[record.tenant];
    if (record.outcome != Outcome::kCompleted) {
      ++tenant.failed;
      continue;
    }
    ++tenant.completed;
    tenant.output_tokens += record.output_tokens;
    if (const std::optional<double> ttft = Measure(record, Metric::kTtft)) {
      samples[record.tenant].ttft.push_back(*ttft);
    }
    samples[record.tenant].e2el.push_back(*Measure(record, Metric::kE2el));
  }
  for (size_t i = 0; i < figures.size(); ++i) {
    figures[i].ttft = Summarize(samples[i].ttft, options.percentiles);
    figures[i].e2el = Summarize(samples[i].e2el, options.percentiles);
  }
  return figures;
}

}  // namespace

Report MakeReport(const RunResult& run, const ReportOptions& options) {
  Report report{
      .duration_s = run.duration_s, .cpu_user_s = run.cpu_user_s, .cpu_system_s = run.cpu_system_s};
  std::vector<double> lags_ms;
  for (const RequestRecord& record : run.records) {
    lags_ms.push_back(record.lag_s * 1e3);
    if (record.outcome == Outcome::kCompleted) {
      CountCompleted(record, options, &report);
    } else {
      CountFailure(record, &report);
    }
  }
  for (size_t i = 0; i < kReportedMetrics.size(); ++i) {
    std::vector<double> samples = Samples(run, kReportedMetrics.at(i));
    report.metrics.at(i) = Summarize(samples, options.percentiles);
  }
  report.lag = Summarize(lags_ms, options.percentiles);
  report.tenants = FiguresByTenant(run, options);
  for (const SecondRow& row : run.seconds) {
    report.chunks_per_s_max = std::max(report.chunks_per_s_max, row.chunks);
  }
  if (run.duration_s > 0.0) {
    report.cpu_core_share = (run.cpu_user_s + run.cpu_system_s) / run.duration_s;
  }
  return report;
}

}  // namespace switchyard
