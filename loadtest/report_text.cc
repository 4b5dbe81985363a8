#include <iterator>
#include <string>
#include <string_view>

#include <spdlog/fmt/fmt.h>

#include "loadtest/report.h"

namespace switchyard {
namespace {

constexpr size_t kTenantLinesMax = 20;

class Table {
 public:
  template <typename... Args>
  void Line(std::string_view name, fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), "{:<34}", name);
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }

  void Title(std::string_view title) { text_ += fmt::format("\n{}\n", title); }

  void Raw(std::string_view text) { text_ += text; }

  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

double PerSecond(uint64_t count, double duration_s) {
  return duration_s > 0.0 ? static_cast<double>(count) / duration_s : 0.0;
}

template <typename Counts>
std::string CountsText(const Counts& counts) {
  std::string text;
  for (const auto& [name, count] : counts) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
  }
  return text;
}

void AppendCounts(Table& table, const Report& report, const RunResult& run,
                  const ReportOptions& options) {
  const double seconds = report.duration_s;
  table.Line("completed / failed requests", "{} / {}", report.completed, report.failed);
  table.Line("duration", "{:.3f} s{}", seconds,
             run.interrupted     ? " (interrupted)"
             : run.limit_reached ? " (cut off at the limit)"
                                 : "");
  table.Line("input / output tokens", "{} / {}", report.total_input_tokens,
             report.total_output_tokens);
  if (report.total_cached_tokens > 0) {
    table.Line("input tokens from a prefix cache", "{}", report.total_cached_tokens);
  }
  table.Line("requests/s", "{:.2f}", PerSecond(report.completed, seconds));
  table.Line("output tokens/s", "{:.1f}", PerSecond(report.total_output_tokens, seconds));
  table.Line("input + output tokens/s", "{:.1f}",
             PerSecond(report.total_input_tokens + report.total_output_tokens, seconds));
  table.Line("chunks in the best second", "{}", report.chunks_per_s_max);
  table.Line("most requests in flight", "{}", run.in_flight_max);
  if (!options.slo.empty()) {
    std::string bounds;
    for (const SloBound& bound : options.slo) {
      bounds += fmt::format(" {}:{}", NameOf(bound.metric), bound.bound_ms);
    }
    table.Line("goodput, requests/s", "{:.2f} ({} requests kept{})",
               PerSecond(report.good, seconds), report.good, bounds);
  }
}

void AppendMetrics(Table& table, const Report& report, const ReportOptions& options) {
  table.Title("milliseconds");
  std::string head = fmt::format("{:<8}{:>9}{:>10}{:>10}", "", "samples", "mean", "std");
  for (const double percent : options.percentiles) {
    head += fmt::format("{:>10}", fmt::format("p{}", percent));
  }
  table.Raw(head + fmt::format("{:>10}\n", "max"));
  constexpr std::array<std::string_view, kReportedMetrics.size()> kNames = {"TTFT", "TPOT", "ITL",
                                                                            "E2EL"};
  for (size_t i = 0; i < kNames.size(); ++i) {
    const Summary& summary = report.metrics.at(i);
    if (summary.count == 0) {
      table.Raw(fmt::format("{:<8}{:>9}\n", kNames.at(i), 0));
      continue;
    }
    std::string line = fmt::format("{:<8}{:>9}{:>10.2f}{:>10.2f}", kNames.at(i), summary.count,
                                   summary.mean, summary.std);
    for (const auto& [percent, value] : summary.percentiles) {
      line += fmt::format("{:>10.2f}", value);
    }
    table.Raw(line + fmt::format("{:>10.2f}\n", summary.max));
  }
}

void AppendRemarks(Table& table, const Report& report) {
  if (report.failed > 0) {
    table.Title("errors");
    table.Line("by kind", "{}", CountsText(report.errors_by_kind));
    table.Line("chunks before they broke off", "{} (in no other figure)", report.failed_chunks);
    if (!report.errors_by_code.empty()) {
      table.Line("by HTTP status", "{}", CountsText(report.errors_by_code));
    }
    if (!report.errors_by_api_code.empty()) {
      table.Line("by code of the error object", "{}", CountsText(report.errors_by_api_code));
    }
  }
  if (report.without_usage > 0) {
    table.Line("requests without usage", "{} (their tokens are counted as chunks)",
               report.without_usage);
  }
  if (report.other_length > 0) {
    table.Line("outputs of another length", "{} (than was asked for)", report.other_length);
  }
}

void AppendTenants(Table& table, const Report& report, const ReportOptions& options) {
  if (options.tenants.size() < 2) {
    return;
  }
  table.Title("tenants                completed    failed    tokens TTFT p50   E2EL p50");
  for (size_t i = 0; i < options.tenants.size() && i < kTenantLinesMax; ++i) {
    const TenantFigures& tenant = report.tenants[i];
    table.Raw(fmt::format("{:<22}{:>10}{:>10}{:>10}{:>9.1f}{:>11.1f}\n",
                          options.tenants[i].name.substr(0, 21), tenant.completed, tenant.failed,
                          tenant.output_tokens, tenant.ttft.median, tenant.e2el.median));
  }
  if (options.tenants.size() > kTenantLinesMax) {
    table.Raw(
        fmt::format("and {} more in the JSON output\n", options.tenants.size() - kTenantLinesMax));
  }
}

}  // namespace

std::string ReportText(const Report& report, const RunResult& run, const ReportOptions& options) {
  const LoadLabel& label = options.label;
  Table table;
  table.Line("target", "{}{}", label.url, label.model.empty() ? "" : ", model " + label.model);
  table.Line("load", "{}", label.load);
  table.Line("prompt / output lengths, seed", "{} / {}, {}", label.prompt_tokens,
             label.output_tokens, label.seed);
  table.Raw("\n");
  AppendCounts(table, report, run, options);
  AppendMetrics(table, report, options);
  AppendRemarks(table, report);
  AppendTenants(table, report, options);
  table.Title("this generator");
  table.Line("CPU, user + system", "{:.3f} + {:.3f} s, {:.2f} % of one core", report.cpu_user_s,
             report.cpu_system_s, report.cpu_core_share * 100.0);
  if (report.lag.count > 0) {
    table.Line("requests begun late by, ms", "median {:.3f}, max {:.3f}", report.lag.median,
               report.lag.max);
  }
  table.Line("connections opened", "{}", run.connections);
  return table.Take();
}

}  // namespace switchyard
