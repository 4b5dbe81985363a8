#include "libs/orchestrator/local_process.h"

#include <csignal>
#include <optional>
#include <string>

#include <sys/wait.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

// Blocks until the child has ended, leaving it for ReapOne.
void AwaitEnd(int64_t pid) {
  siginfo_t info = {};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
}

TEST(LaunchProcess, RunsAndReportsHowItEnded) {
  const std::string log = testing::TempDir() + "/sy_launch.log";
  std::remove(log.c_str());
  const auto pid =
      LaunchProcess({.command = {"/bin/sh", "-c", "echo said; exit 3"}, .log_path = log});
  ASSERT_TRUE(pid.ok()) << pid.status();
  AwaitEnd(*pid);
  const auto ended = ReapOne();
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->pid, *pid);
  EXPECT_EQ(ended->how, "exited with 3");
  EXPECT_THAT(ReadFile(log, 1000).value(), HasSubstr("said"));
  EXPECT_EQ(ReapOne().has_value(), false);
}

TEST(LaunchProcess, ReportsTheSignalThatKilled) {
  const auto pid = LaunchProcess(
      {.command = {"/bin/sleep", "60"}, .log_path = testing::TempDir() + "/sy_launch2.log"});
  ASSERT_TRUE(pid.ok());
  ASSERT_EQ(::kill(static_cast<pid_t>(*pid), SIGKILL), 0);
  AwaitEnd(*pid);
  EXPECT_EQ(ReapOne()->how, "killed by signal 9");
}

TEST(LaunchProcess, SaysThatAProgramIsMissing) {
  const auto pid = LaunchProcess({.command = {"/nonexistent/program"}, .log_path = "/dev/null"});
  EXPECT_EQ(pid.status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace switchyard
