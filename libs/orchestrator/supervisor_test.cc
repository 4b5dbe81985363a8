#include "libs/orchestrator/supervisor.h"

#include <csignal>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<ProcessPlan> Plans() {
  return {{.name = "autoscaler", .role = "autoscaler"},
          {.name = "expert-shard-0", .role = "expert-shard", .depends_on = {"autoscaler"}},
          {.name = "gateway", .role = "gateway", .depends_on = {"expert-shard-0"}}};
}

class Running : public testing::Test {
 protected:
  void StartAll() {
    int64_t pid = 100;
    for (const char* name : {"autoscaler", "expert-shard-0", "gateway"}) {
      ASSERT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre(name));
      supervisor.OnStarted(name, pid++, clock.Now());
      supervisor.OnAddresses(name);
    }
    ASSERT_TRUE(supervisor.all_running());
  }

  ManualClock clock;
  Supervisor supervisor{Plans(), {}};
};

TEST_F(Running, StartsInOrderOfDependencies) {
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre("autoscaler"));
  supervisor.OnStarted("autoscaler", 100, clock.Now());
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, IsEmpty());  // Its addresses are not known yet.
  supervisor.OnAddresses("autoscaler");
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre("expert-shard-0"));
}

TEST_F(Running, RestartsADeadProcessAfterAGrowingBackoff) {
  StartAll();
  supervisor.OnExited(101, "killed by signal 9", clock.Now());
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, IsEmpty());
  clock.Advance(milliseconds(100));
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre("expert-shard-0"));
  supervisor.OnStarted("expert-shard-0", 200, clock.Now());
  supervisor.OnExited(200, "exited with 1", clock.Now());
  clock.Advance(milliseconds(100));
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, IsEmpty());
  clock.Advance(milliseconds(100));
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre("expert-shard-0"));
  EXPECT_EQ(supervisor.processes()[1].restarts, 2U);
  EXPECT_EQ(supervisor.processes()[1].last_end, "exited with 1");
}

TEST_F(Running, ALongLifeResetsTheBackoff) {
  StartAll();
  for (int i = 0; i < 5; ++i) {
    clock.Advance(seconds(20));
    const int64_t pid = supervisor.processes()[2].pid;
    supervisor.OnExited(pid, "killed by signal 9", clock.Now());
    clock.Advance(milliseconds(100));
    ASSERT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre("gateway"));
    supervisor.OnStarted("gateway", 300 + i, clock.Now());
    supervisor.OnAddresses("gateway");
  }
}

TEST_F(Running, GivesUpAStartThatNeverWorked) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(supervisor.Tick(clock.Now()).start, ElementsAre("autoscaler"));
    supervisor.OnStarted("autoscaler", 100 + i, clock.Now());
    supervisor.OnExited(100 + i, "exited with 1", clock.Now());
    clock.Advance(seconds(5));
  }
  EXPECT_THAT(supervisor.start_failure(), HasSubstr("autoscaler exited with 1 on each of 3 tries"));
  EXPECT_EQ(supervisor.failed_process(), "autoscaler");
}

TEST_F(Running, StopsTheLastRoleFirstAndKillsWhatStays) {
  StartAll();
  supervisor.BeginStop();
  SupervisorActions actions = supervisor.Tick(clock.Now());
  ASSERT_EQ(actions.signals.size(), 1U);
  EXPECT_EQ(actions.signals[0].pid, 102);
  EXPECT_EQ(actions.signals[0].number, SIGTERM);
  clock.Advance(seconds(21));
  actions = supervisor.Tick(clock.Now());
  ASSERT_EQ(actions.signals.size(), 1U);
  EXPECT_EQ(actions.signals[0].number, SIGKILL);
  supervisor.OnExited(102, "killed by signal 9", clock.Now());
  EXPECT_EQ(supervisor.Tick(clock.Now()).signals.at(0).pid, 101);
  supervisor.OnExited(101, "exited with 0", clock.Now());
  EXPECT_EQ(supervisor.Tick(clock.Now()).signals.at(0).pid, 100);
  supervisor.OnExited(100, "exited with 0", clock.Now());
  EXPECT_TRUE(supervisor.all_stopped());
  EXPECT_THAT(supervisor.Tick(clock.Now()).start, IsEmpty());
}

}  // namespace
}  // namespace switchyard
