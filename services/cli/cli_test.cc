#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "services/cli/arguments.h"
#include "services/cli/bench_limits.h"
#include "services/cli/fleet.h"
#include "services/cli/fleet_view.h"
#include "services/cli/sse_reader.h"
#include "services/cli/state_dir.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

TEST(Arguments, ReadsOptionsFlagsAndWords) {
  Arguments arguments({"word", "--port", "81", "--detach", "--name=a", "--name", "b"}, {"detach"});
  EXPECT_EQ(arguments.Number("port", 1, 0, 100), 81U);
  EXPECT_TRUE(arguments.Flag("detach"));
  EXPECT_EQ(arguments.Texts("name"), std::vector<std::string>({"a", "b"}));
  EXPECT_EQ(arguments.Word(), "word");
  EXPECT_TRUE(arguments.Finish().ok());
}

TEST(Arguments, SaysWhatIsWrong) {
  Arguments unknown({"--prot", "81"}, {});
  EXPECT_EQ(MessageOf(unknown.Finish()), "unknown option --prot");
  Arguments range({"--port", "99999"}, {});
  range.Number("port", 1, 0, 65535);
  EXPECT_THAT(MessageOf(range.Finish()), HasSubstr("--port 99999"));
  Arguments text({"--port", "8o"}, {});
  text.Number("port", 1, 0, 65535);
  EXPECT_FALSE(text.Finish().ok());
  EXPECT_FALSE(Arguments({"--port"}, {}).Finish().ok());
  EXPECT_EQ(MessageOf(Arguments({"--model", "--port", "1"}, {}).Finish()), "--model needs a value");
  EXPECT_FALSE(Arguments({"extra"}, {}).Finish().ok());
}

TEST(CostOfStep, CountsEachActivatedExpertOnceAndTheHeadWhereItIsWanted) {
  const ModelCost model{.router_bytes = 100,
                        .head_bytes = 20,
                        .expert_bytes = 10,
                        .router_weights = 50,
                        .head_weights = 10,
                        .expert_weights = 5,
                        .moe_layer_count = 2,
                        .expert_count = 4,
                        .top_k = 1};
  const StepCost one = CostOfStep(model, 1, 1);
  EXPECT_DOUBLE_EQ(one.bytes, 100 + 2 * 1 * 10);
  EXPECT_DOUBLE_EQ(one.operations, 2.0 * (50 + 2 * 5));
  const StepCost two = CostOfStep(model, 2, 0);
  EXPECT_DOUBLE_EQ(two.bytes, 80 + 2 * 1.75 * 10);  // 4 (1 - 0.75^2) experts a layer.
  EXPECT_DOUBLE_EQ(two.operations, 2.0 * 2 * (40 + 2 * 5));
  const MachinePeaks peaks{.read_bytes_per_second = 10, .bf16_flops = 1e9};
  EXPECT_DOUBLE_EQ(LimitSeconds(model, two, peaks), 11.5);
}

TEST(RenderConfig, GivesARestartedProcessItsOldAddresses) {
  const UpOptions options{.model_dir = "/m", .state_dir = "/s", .routers = 2};
  AddressBook book;
  EXPECT_THAT(RenderConfig(options, "autoscaler", book), HasSubstr("\"127.0.0.1:0\""));
  book["autoscaler"]["grpc"] = "127.0.0.1:7001";
  book["router-0"]["grpc"] = "127.0.0.1:7002";
  book["router-1"]["grpc"] = "127.0.0.1:7003";
  EXPECT_THAT(RenderConfig(options, "autoscaler", book),
              HasSubstr("\"grpc_address\":\"127.0.0.1:7001\""));
  EXPECT_THAT(RenderConfig(options, "expert-shard-1", book), HasSubstr("\"shard\":1"));
  EXPECT_THAT(RenderConfig(options, "gateway", book),
              HasSubstr("[\"127.0.0.1:7002\",\"127.0.0.1:7003\"]"));
}

TEST(FleetPlans, EveryDependencyComesBefore) {
  const auto plans = FleetPlans({.routers = 2, .shards = 3});
  ASSERT_EQ(plans.size(), 7U);
  std::vector<std::string> seen;
  for (const ProcessPlan& plan : plans) {
    for (const std::string& name : plan.depends_on) {
      EXPECT_THAT(seen, testing::Contains(name));
    }
    seen.push_back(plan.name);
  }
}

TEST(StateDir, KeepsTheFleetAndItsLock) {
  const StateDir dir(testing::TempDir() + "/sy_cli_state");
  ASSERT_TRUE(dir.Prepare().ok());
  EXPECT_FALSE(dir.IsLocked());
  FleetRecord fleet{.supervisor_pid = 5, .model_dir = "m"};
  fleet.processes.push_back({.name = "gateway",
                             .role = "gateway",
                             .pid = 6,
                             .state = "running",
                             .addresses = {{"api", "a:1"}}});
  ASSERT_TRUE(dir.WriteFleet(fleet).ok());
  const auto back = dir.ReadFleet();
  ASSERT_TRUE(back.ok());
  ASSERT_NE(back->Find("gateway"), nullptr);
  EXPECT_EQ(back->Find("gateway")->addresses.at("api"), "a:1");
  EXPECT_EQ(back->Find("router-9"), nullptr);
  dir.RemoveLeftovers();
  EXPECT_EQ(dir.ReadFleet().status().code(), absl::StatusCode::kNotFound);
}

TEST(StateDir, RefusesAnotherVersion) {
  const StateDir dir(testing::TempDir() + "/sy_cli_state_old");
  ASSERT_TRUE(dir.Prepare().ok());
  ASSERT_TRUE(WriteFileAtomically(dir.path() + "/version", "99\n").ok());
  EXPECT_EQ(dir.Prepare().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(WriteFileAtomically(dir.path() + "/version", "1\n").ok());
}

TEST(StatusJson, HasItsDocumentedFields) {
  FleetView view;
  view.api = "http://127.0.0.1:1";
  view.epoch = 3;
  view.record.processes.push_back(
      {.name = "router-0", .role = "router", .pid = 7, .state = "running"});
  const std::string json = ToStatusJson(view);
  for (const char* field : {"\"processes\"", "\"api\"", "\"metrics\"", "\"epoch\":3", "\"pid\":7",
                            "\"role\":\"router\"", "\"addresses\""}) {
    EXPECT_THAT(json, HasSubstr(field));
  }
}

TEST(SumMetric, AddsMatchingSamplesOnly) {
  const std::string text =
      "# HELP x\nx{code=\"200\"} 3\nx{code=\"500\"} 2\nx_more{code=\"200\"} 9\ny 4\n";
  EXPECT_EQ(SumMetric(text, "x", {}), 5.0);
  EXPECT_EQ(SumMetric(text, "x", {"code=\"200\""}), 3.0);
  EXPECT_EQ(SumMetric(text, "x", {"code=\"200\"", "route=\"r\""}), 0.0);
  EXPECT_EQ(SumMetric(text, "y", {}), 4.0);
}

TEST(SseReader, FindsTextInAnyPieces) {
  const std::string stream =
      ": ping\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"c\"}}]}\n\ndata: [DONE]\n\n";
  std::string text;
  SseReader reader([&text](const std::string& delta) { text += delta; });
  for (const char byte : stream) {
    reader.Feed(std::string_view(&byte, 1));
  }
  EXPECT_EQ(text, "abc");
  EXPECT_TRUE(reader.Finish().ok());
}

TEST(SseReader, ReportsAnErrorEventAndABrokenStream) {
  SseReader failed([](const std::string&) {});
  failed.Feed("data: {\"error\":{\"message\":\"shard lost\"}}\n\n");
  EXPECT_THAT(MessageOf(failed.Finish()), HasSubstr("shard lost"));
  SseReader broken([](const std::string&) {});
  broken.Feed("data: {\"choices\":[]}\n\n");
  EXPECT_FALSE(broken.Finish().ok());
}

}  // namespace
}  // namespace switchyard
