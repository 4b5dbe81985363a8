#include "libs/metrics/registry.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

TEST(Registry, RendersWhatWasCounted) {
  Registry registry;
  Counter requests =
      registry.MakeCounter("switchyard_requests_total", "Requests.", {{"code", "200"}});
  Gauge running = registry.MakeGauge("switchyard_requests_running", "Running.");
  Histogram wait = registry.MakeHistogram("switchyard_queue_seconds", "Wait.", {0.1, 1.0});
  requests.Add();
  requests.Add(2);
  running.Set(5);
  wait.Observe(0.5);
  const std::string text = registry.Render();
  EXPECT_THAT(text, HasSubstr("switchyard_requests_total{code=\"200\"} 3"));
  EXPECT_THAT(text, HasSubstr("switchyard_requests_running 5"));
  EXPECT_THAT(text, HasSubstr("switchyard_queue_seconds_bucket{le=\"1\"} 1"));
}

TEST(Registry, TheSameNameAndLabelsAreOneMetric) {
  Registry registry;
  Counter first = registry.MakeCounter("switchyard_x_total", "X.");
  Counter second = registry.MakeCounter("switchyard_x_total", "X.");
  first.Add();
  EXPECT_EQ(second.value(), 1.0);
}

TEST(Registry, DescribesByName) {
  Registry registry;
  registry.MakeGauge("switchyard_b", "B.");
  registry.MakeCounter("switchyard_a_total", "A.");
  const auto descriptions = registry.Describe();
  ASSERT_EQ(descriptions.size(), 2U);
  EXPECT_EQ(descriptions[0].name, "switchyard_a_total");
  EXPECT_EQ(descriptions[0].type, "counter");
  EXPECT_EQ(descriptions[1].help, "B.");
}

TEST(Counter, ADefaultHandleCountsNothing) {
  Counter counter;
  counter.Add();
  EXPECT_EQ(counter.value(), 0.0);
}

}  // namespace
}  // namespace switchyard
