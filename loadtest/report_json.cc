#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "libs/openai/json_writer.h"
#include "loadtest/report.h"

namespace switchyard {
namespace {

// Writes the members of one object, with the commas.
class ObjectWriter {
 public:
  explicit ObjectWriter(JsonWriter& json) : json_(json) { json_.Raw("{"); }

  JsonWriter& Member(std::string_view name) {
    json_.Raw(empty_ ? "" : ",").String(name).Raw(":");
    empty_ = false;
    return json_;
  }

  void Text(std::string_view name, std::string_view value) { Member(name).String(value); }

  void Int(std::string_view name, uint64_t value) { Member(name).Int(static_cast<int64_t>(value)); }

  // Null when absent or not finite; shortest digits that read back the same.
  void Real(std::string_view name, std::optional<double> value) {
    Member(name).Raw(value && std::isfinite(*value) ? fmt::format("{}", *value) : "null");
  }

  void End() { json_.Raw("}"); }

 private:
  JsonWriter& json_;
  bool empty_ = true;
};

template <typename Items, typename Write>
void AppendArray(JsonWriter& json, const Items& items, const Write& write) {
  json.Raw("[");
  bool first = true;
  for (const auto& item : items) {
    json.Raw(first ? "" : ",");
    first = false;
    write(item);
  }
  json.Raw("]");
}

template <typename Counts>
void AppendCounts(ObjectWriter& object, JsonWriter& json, std::string_view name,
                  const Counts& counts) {
  object.Member(name);
  ObjectWriter inner(json);
  for (const auto& [key, count] : counts) {
    inner.Int(fmt::format("{}", key), count);
  }
  inner.End();
}

double PerSecond(uint64_t count, double duration_s) {
  return duration_s > 0.0 ? static_cast<double>(count) / duration_s : 0.0;
}

// mean_ttft_ms, median_ttft_ms, std_ttft_ms, p99_ttft_ms, …; null without samples.
void AppendSummary(ObjectWriter& object, std::string_view name, const Summary& summary,
                   const std::vector<double>& percentiles) {
  const auto value = [&](double figure) {
    return summary.count > 0 ? std::optional(figure) : std::nullopt;
  };
  object.Real(fmt::format("mean_{}_ms", name), value(summary.mean));
  object.Real(fmt::format("median_{}_ms", name), value(summary.median));
  object.Real(fmt::format("std_{}_ms", name), value(summary.std));
  object.Real(fmt::format("min_{}_ms", name), value(summary.min));
  object.Real(fmt::format("max_{}_ms", name), value(summary.max));
  for (size_t i = 0; i < percentiles.size(); ++i) {
    object.Real(fmt::format("p{}_{}_ms", percentiles[i], name),
                summary.count > 0 ? std::optional(summary.percentiles[i].second) : std::nullopt);
  }
}

void AppendLabel(ObjectWriter& object, const LoadLabel& label, const RunResult& run) {
  object.Text("date", label.date);
  object.Text("endpoint_type", label.endpoint);
  object.Text("backend", label.endpoint);
  object.Text("model_id", label.model);
  object.Text("url", label.url);
  object.Text("load", label.load);
  object.Text("prompt_tokens", label.prompt_tokens);
  object.Text("output_tokens", label.output_tokens);
  object.Int("seed", label.seed);
  object.Int("num_prompts", run.records.size());
  if (label.request_rate) {
    object.Real("request_rate", label.request_rate);
  } else {
    object.Text("request_rate", "inf");
  }
  object.Real("burstiness", label.burstiness);
  object.Real("max_concurrency", label.users ? std::optional<double>(*label.users) : std::nullopt);
}

void AppendFigures(ObjectWriter& object, const Report& report, const RunResult& run,
                   const ReportOptions& options) {
  const double seconds = report.duration_s;
  object.Real("duration", seconds);
  object.Int("completed", report.completed);
  object.Int("failed", report.failed);
  object.Int("total_input_tokens", report.total_input_tokens);
  object.Int("total_output_tokens", report.total_output_tokens);
  object.Int("total_cached_tokens", report.total_cached_tokens);
  object.Int("total_chunks", report.total_chunks);
  object.Int("failed_chunks", report.failed_chunks);
  object.Real("request_throughput", PerSecond(report.completed, seconds));
  object.Real("request_goodput",
              options.slo.empty() ? std::nullopt : std::optional(PerSecond(report.good, seconds)));
  object.Real("output_throughput", PerSecond(report.total_output_tokens, seconds));
  object.Real("total_token_throughput",
              PerSecond(report.total_input_tokens + report.total_output_tokens, seconds));
  object.Int("max_output_tokens_per_s", report.chunks_per_s_max);
  object.Int("max_concurrent_requests", run.in_flight_max);
  for (size_t i = 0; i < kReportedMetrics.size(); ++i) {
    AppendSummary(object, NameOf(kReportedMetrics.at(i)), report.metrics.at(i),
                  options.percentiles);
  }
  object.Int("requests_without_usage", report.without_usage);
  object.Int("requests_of_other_length", report.other_length);
  object.Member("interrupted").Bool(run.interrupted);
  object.Member("limit_reached").Bool(run.limit_reached);
}

void AppendGenerator(ObjectWriter& object, JsonWriter& json, const Report& report,
                     const RunResult& run) {
  object.Member("generator");
  ObjectWriter generator(json);
  generator.Real("cpu_user_s", report.cpu_user_s);
  generator.Real("cpu_system_s", report.cpu_system_s);
  generator.Real("cpu_core_share", report.cpu_core_share);
  generator.Int("connections", run.connections);
  AppendSummary(generator, "lag", report.lag, {});
  generator.End();
}

void AppendTimeseries(ObjectWriter& object, JsonWriter& json, const RunResult& run) {
  object.Member("timeseries");
  ObjectWriter series(json);
  const auto column = [&](std::string_view name, uint32_t SecondRow::*member) {
    AppendArray(series.Member(name), run.seconds,
                [&](const SecondRow& row) { json.Int(row.*member); });
  };
  column("started", &SecondRow::started);
  column("completed", &SecondRow::completed);
  column("failed", &SecondRow::failed);
  column("chunks", &SecondRow::chunks);
  column("in_flight", &SecondRow::in_flight);
  series.End();
}

void AppendTenants(ObjectWriter& object, JsonWriter& json, const Report& report,
                   const ReportOptions& options) {
  object.Member("tenants").Raw("[");
  for (size_t i = 0; i < options.tenants.size(); ++i) {
    const TenantFigures& figures = report.tenants[i];
    json.Raw(i == 0 ? "" : ",");
    ObjectWriter tenant(json);
    tenant.Text("name", options.tenants[i].name);
    tenant.Int("completed", figures.completed);
    tenant.Int("failed", figures.failed);
    tenant.Int("total_output_tokens", figures.output_tokens);
    AppendSummary(tenant, "ttft", figures.ttft, options.percentiles);
    AppendSummary(tenant, "e2el", figures.e2el, options.percentiles);
    tenant.End();
  }
  json.Raw("]");
}

// One entry for each request, in the order they were begun; seconds, as in vLLM's results.
void AppendDetails(ObjectWriter& object, JsonWriter& json, const RunResult& run) {
  std::vector<const RequestRecord*> records;
  for (const RequestRecord& record : run.records) {
    records.push_back(&record);
  }
  std::stable_sort(records.begin(), records.end(),
                   [](const auto* a, const auto* b) { return a->start_s < b->start_s; });
  const auto column = [&](std::string_view name, const auto& write) {
    AppendArray(object.Member(name), records, [&](const RequestRecord* record) { write(*record); });
  };
  const auto real = [&](double value) { json.Raw(fmt::format("{}", value)); };
  column("input_lens", [&](const RequestRecord& record) { json.Int(record.prompt_tokens); });
  column("output_lens", [&](const RequestRecord& record) { json.Int(record.output_tokens); });
  column("start_times", [&](const RequestRecord& record) { real(record.start_s); });
  column("ttfts", [&](const RequestRecord& record) {
    real(record.first_token_s < 0.0 ? 0.0 : record.first_token_s - record.start_s);
  });
  column("itls", [&](const RequestRecord& record) {
    AppendArray(json, record.gaps_ms, [&](float gap_ms) { real(gap_ms / 1e3); });
  });
  column("e2els", [&](const RequestRecord& record) { real(record.end_s - record.start_s); });
  column("tenant_indices", [&](const RequestRecord& record) { json.Int(record.tenant); });
  column("http_statuses", [&](const RequestRecord& record) { json.Int(record.http_status); });
  column("errors", [&](const RequestRecord& record) {
    json.String(record.outcome == Outcome::kCompleted ? "" : NameOf(record.outcome));
  });
}

}  // namespace

std::string ReportJson(const Report& report, const RunResult& run, const ReportOptions& options,
                       bool detailed) {
  JsonWriter json;
  ObjectWriter object(json);
  AppendLabel(object, options.label, run);
  AppendFigures(object, report, run, options);
  AppendCounts(object, json, "errors_by_kind", report.errors_by_kind);
  AppendCounts(object, json, "errors_by_code", report.errors_by_code);
  AppendCounts(object, json, "errors_by_api_code", report.errors_by_api_code);
  object.Member("slo");
  ObjectWriter slo(json);
  for (const SloBound& bound : options.slo) {
    slo.Real(fmt::format("{}_ms", NameOf(bound.metric)), bound.bound_ms);
  }
  slo.End();
  AppendGenerator(object, json, report, run);
  AppendTenants(object, json, report, options);
  AppendTimeseries(object, json, run);
  if (detailed) {
    AppendDetails(object, json, run);
  }
  object.End();
  return json.Take() + "\n";
}

}  // namespace switchyard
