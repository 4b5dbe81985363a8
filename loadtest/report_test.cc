#include "loadtest/report.h"

#include <map>
#include <string>
#include <vector>

#include <simdjson.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "loadtest/slo.h"
#include "loadtest/statistics.h"
#include "loadtest/svg_plot.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Statistics, InterpolatePercentiles) {
  const std::vector<double> ten = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  EXPECT_DOUBLE_EQ(Percentile(ten, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(Percentile(ten, 50.0), 5.5);
  EXPECT_DOUBLE_EQ(Percentile(ten, 90.0), 9.1);
  EXPECT_DOUBLE_EQ(Percentile(ten, 100.0), 10.0);
  EXPECT_DOUBLE_EQ(Percentile({7.0}, 99.0), 7.0);
}

TEST(Statistics, SummarizeInAnyOrder) {
  std::vector<double> samples = {9, 2, 4, 4, 5, 4, 7, 5};
  const Summary summary = Summarize(samples, {50.0, 99.0});
  EXPECT_EQ(summary.count, 8U);
  EXPECT_DOUBLE_EQ(summary.mean, 5.0);
  EXPECT_DOUBLE_EQ(summary.std, 2.0);
  EXPECT_DOUBLE_EQ(summary.median, 4.5);
  EXPECT_DOUBLE_EQ(summary.min, 2.0);
  EXPECT_DOUBLE_EQ(summary.max, 9.0);
  EXPECT_EQ(summary.percentiles.size(), 2U);
  std::vector<double> none;
  EXPECT_EQ(Summarize(none, {50.0}).count, 0U);
}

// 20 tokens: the first after 0.1 s, the last at 0.29 s.
RequestRecord Completed() {
  RequestRecord record{.start_s = 1.0,
                       .first_token_s = 1.1,
                       .last_token_s = 1.29,
                       .end_s = 1.3,
                       .prompt_tokens_asked = 128,
                       .output_tokens_asked = 20,
                       .prompt_tokens = 128,
                       .output_tokens = 20,
                       .chunks = 20,
                       .has_usage = true,
                       .http_status = 200};
  record.gaps_ms.assign(19, 10.0F);
  return record;
}

RunResult MakeRun() {
  RunResult run{.duration_s = 2.0, .cpu_user_s = 0.03, .cpu_system_s = 0.01, .in_flight_max = 3};
  run.records = {Completed(), Completed()};
  run.records[1].first_token_s = 1.2;
  run.records[1].gaps_ms[4] = 50.0F;
  run.records[1].tenant = 1;
  const RequestRecord refused{
      .outcome = Outcome::kHttpError, .http_status = 429, .api_code = "full"};
  const RequestRecord lost{
      .tenant = 1, .chunks = 4, .outcome = Outcome::kTruncated, .http_status = 200};
  run.records.push_back(refused);
  run.records.push_back(refused);
  run.records.push_back(lost);
  run.seconds = {{.started = 5, .failed = 3, .chunks = 7, .in_flight = 3},
                 {.completed = 2, .chunks = 33, .in_flight = 2}};
  return run;
}

ReportOptions MakeOptions() {
  return {.label = {.url = "http://127.0.0.1:1/v1/completions",
                    .endpoint = "openai",
                    .model = "demo",
                    .load = "some",
                    .date = "20260101-000000"},
          .percentiles = {50.0, 99.9},
          .slo = {{.metric = Metric::kTtft, .bound_ms = 500.0},
                  {.metric = Metric::kItl, .bound_ms = 20.0}},
          .tenants = {{.name = "a", .api_key = "secret"}, {.name = "b"}}};
}

TEST(Slo, MeasuresARequest) {
  const RequestRecord record = Completed();
  EXPECT_NEAR(*Measure(record, Metric::kTtft), 100.0, 1e-6);
  EXPECT_NEAR(*Measure(record, Metric::kTpot), 10.0, 1e-6);
  EXPECT_NEAR(*Measure(record, Metric::kItl), 10.0, 1e-6);
  EXPECT_NEAR(*Measure(record, Metric::kE2el), 300.0, 1e-6);
  EXPECT_TRUE(KeepsSlo(record, *ParseSlo("ttft:101,tpot:11,itl:10,e2el:301")));
  for (const char* bound : {"ttft:99", "tpot:9", "itl:9", "e2el:299"}) {
    EXPECT_FALSE(KeepsSlo(record, *ParseSlo(bound))) << bound;
  }
  RequestRecord one_token = record;
  one_token.output_tokens = 1;
  one_token.gaps_ms.clear();
  EXPECT_FALSE(Measure(one_token, Metric::kTpot).has_value());
  EXPECT_TRUE(KeepsSlo(one_token, *ParseSlo("tpot:1,itl:1")));
  RequestRecord failed = record;
  failed.outcome = Outcome::kTruncated;
  EXPECT_FALSE(KeepsSlo(failed, {}));
}

TEST(Slo, IsRefusedWhenItIsNone) {
  for (const char* text : {"", "ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:5x", "x:5", "ttft:1,"}) {
    EXPECT_FALSE(ParseSlo(text).ok()) << text;
  }
}

TEST(Report, CountsAndMeasures) {
  const Report report = MakeReport(MakeRun(), MakeOptions());
  EXPECT_EQ(report.completed, 2U);
  EXPECT_EQ(report.failed, 3U);
  EXPECT_EQ(report.total_input_tokens, 256U);
  EXPECT_EQ(report.total_output_tokens, 40U);
  EXPECT_EQ(report.good, 1U);  // The second has a gap of 50 ms.
  EXPECT_EQ(report.metrics[0].count, 2U);
  EXPECT_NEAR(report.metrics[0].mean, 150.0, 1e-6);
  EXPECT_EQ(report.metrics[2].count, 38U);
  EXPECT_NEAR(report.metrics[2].max, 50.0, 1e-6);
  EXPECT_EQ(report.errors_by_kind.at("http"), 2U);
  EXPECT_EQ(report.errors_by_kind.at("truncated"), 1U);
  EXPECT_EQ(report.errors_by_code, (std::map<int, uint64_t>{{429, 2}}));
  EXPECT_EQ(report.failed_chunks, 4U);
  EXPECT_EQ(report.errors_by_api_code.at("full"), 2U);
  EXPECT_EQ(report.tenants[1].completed, 1U);
  EXPECT_EQ(report.tenants[1].failed, 1U);
  EXPECT_EQ(report.chunks_per_s_max, 33U);
  EXPECT_DOUBLE_EQ(report.cpu_core_share, 0.02);
}

double NumberAt(const simdjson::dom::element& root, const char* pointer) {
  double value = 0.0;
  EXPECT_EQ(root.at_pointer(pointer).get(value), simdjson::SUCCESS) << pointer;
  return value;
}

TEST(ReportJson, HasTheNamesOfVllm) {
  const RunResult run = MakeRun();
  const std::string json = ReportJson(MakeReport(run, MakeOptions()), run, MakeOptions(), true);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  ASSERT_EQ(parser.parse(json).get(root), simdjson::SUCCESS);
  EXPECT_EQ(NumberAt(root, "/duration"), 2.0);
  EXPECT_EQ(NumberAt(root, "/completed"), 2.0);
  EXPECT_EQ(NumberAt(root, "/num_prompts"), 5.0);
  EXPECT_EQ(NumberAt(root, "/total_input_tokens"), 256.0);
  EXPECT_EQ(NumberAt(root, "/total_output_tokens"), 40.0);
  EXPECT_EQ(NumberAt(root, "/request_throughput"), 1.0);
  EXPECT_EQ(NumberAt(root, "/request_goodput"), 0.5);
  EXPECT_EQ(NumberAt(root, "/output_throughput"), 20.0);
  EXPECT_EQ(NumberAt(root, "/total_token_throughput"), 148.0);
  EXPECT_NEAR(NumberAt(root, "/mean_ttft_ms"), 150.0, 1e-6);
  for (const std::string metric : {"ttft", "tpot", "itl", "e2el"}) {
    for (const std::string form : {"mean", "median", "std", "p50", "p99.9"}) {
      NumberAt(root, ("/" + form + "_" + metric + "_ms").c_str());
    }
  }
  EXPECT_EQ(NumberAt(root, "/errors_by_code/429"), 2.0);
  EXPECT_EQ(NumberAt(root, "/slo/itl_ms"), 20.0);
  EXPECT_EQ(NumberAt(root, "/generator/cpu_core_share"), 0.02);
  EXPECT_EQ(NumberAt(root, "/timeseries/chunks/1"), 33.0);
  EXPECT_EQ(NumberAt(root, "/tenants/1/failed"), 1.0);
  EXPECT_EQ(NumberAt(root, "/input_lens/3"), 128.0);
  EXPECT_NEAR(NumberAt(root, "/itls/4/4"), 0.05, 1e-6);
  EXPECT_THAT(json, Not(HasSubstr("secret")));
}

TEST(ReportJson, IsJsonWithoutASample) {
  const RunResult run;
  const ReportOptions options{.tenants = {{.name = "a"}}};
  const std::string json = ReportJson(MakeReport(run, options), run, options, true);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  ASSERT_EQ(parser.parse(json).get(root), simdjson::SUCCESS);
  EXPECT_TRUE(root["mean_ttft_ms"].is_null());
  EXPECT_TRUE(root["request_goodput"].is_null());
  EXPECT_EQ(NumberAt(root, "/output_throughput"), 0.0);
}

TEST(ReportText, SaysWhatMatters) {
  const RunResult run = MakeRun();
  const std::string text = ReportText(MakeReport(run, MakeOptions()), run, MakeOptions());
  EXPECT_THAT(text, HasSubstr("2 / 3"));
  EXPECT_THAT(text, HasSubstr("2.00 % of one core"));
  EXPECT_THAT(text, HasSubstr("http 2, truncated 1"));
  EXPECT_THAT(text, HasSubstr("429 2"));
  EXPECT_THAT(text, HasSubstr("p99.9"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST(SvgPlot, DrawsEachLine) {
  const std::string svg = SvgOf({.title = "a < b",
                                 .x_label = "x",
                                 .y_label = "y",
                                 .lines = {{.name = "one", .points = {{0, 0}, {10, 5}}},
                                           {.name = "two", .points = {{0, 1}, {20, 2}}}}});
  EXPECT_THAT(svg, testing::StartsWith("<svg "));
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("70.0,370.0 385.0,40.0"));  // One, to half of x and the top of y.
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(SvgPlot, StandsNoDataAndMuchData) {
  EXPECT_THAT(SvgOf({.lines = {{.name = "none"}}}), Not(HasSubstr("nan")));
  std::vector<double> samples(200'000, 3.0);
  samples.back() = 1e9;
  const PlotLine line = CumulativeShare("all", samples);
  EXPECT_EQ(line.points.back().second, 100.0);
  EXPECT_LT(SvgOf({.lines = {line}}).size(), 40'000U);
  EXPECT_EQ(PlotsOf(MakeRun()).size(), 3U);
  EXPECT_EQ(PlotsOf(RunResult()).size(), 3U);
}

}  // namespace
}  // namespace switchyard
