#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/app/config.h"
#include "libs/app/health.h"
#include "libs/app/service_main.h"
#include "libs/base/file.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

std::string WriteTemporary(const std::string& content) {
  const std::string path = testing::TempDir() + "/sy_app_config.json";
  EXPECT_TRUE(WriteFileAtomically(path, content).ok());
  return path;
}

TEST(LoadConfig, ReadsFieldsByTheirProtoNames) {
  config::v1::RouterConfig config;
  ASSERT_TRUE(
      LoadConfig(WriteTemporary(R"({"common": {"name": "r"}, "step_tokens_max": 64})"), config)
          .ok());
  EXPECT_EQ(config.common().name(), "r");
  EXPECT_EQ(config.step_tokens_max(), 64U);
}

TEST(LoadConfig, NamesAnUnknownFieldAndAWrongType) {
  config::v1::RouterConfig config;
  EXPECT_THAT(MessageOf(LoadConfig(WriteTemporary(R"({"step_tokns_max": 64})"), config)),
              HasSubstr("step_tokns_max"));
  EXPECT_FALSE(LoadConfig(WriteTemporary(R"({"threads": "many"})"), config).ok());
  EXPECT_FALSE(LoadConfig(WriteTemporary("{"), config).ok());
  EXPECT_EQ(LoadConfig("/nonexistent/config.json", config).code(), absl::StatusCode::kNotFound);
}

TEST(ConfigReader, GivesDefaultsAndKeepsTheFirstError) {
  ConfigReader reader("router");
  EXPECT_EQ(reader.Uint("threads", 0, {.default_value = 2, .min = 1, .max = 8}), 2U);
  EXPECT_EQ(reader.Uint("threads", 5, {.default_value = 2, .min = 1, .max = 8}), 5U);
  EXPECT_TRUE(reader.status().ok());
  reader.Uint("threads", 9, {.default_value = 2, .min = 1, .max = 8});
  reader.Required("model_dir", "");
  EXPECT_EQ(MessageOf(reader.status()), "config router.threads: 9 is not in [1, 8]");
}

TEST(Health, SaysWhyItIsNotReady) {
  Health health;
  EXPECT_FALSE(health.ready().ok());
  health.SetReady();
  EXPECT_TRUE(health.ready().ok());
  health.SetNotReady(Unavailable("no shard"));
  EXPECT_EQ(MessageOf(health.ready()), "no shard");
}

TEST(WriteAddressFile, WritesJsonOrNothing) {
  EXPECT_TRUE(WriteAddressFile("", "x", {}).ok());
  const std::string path = testing::TempDir() + "/sy_app_addresses.json";
  ASSERT_TRUE(WriteAddressFile(path, "router-0", {{"grpc", "127.0.0.1:5"}}).ok());
  EXPECT_THAT(ReadFile(path, 1000).value(), HasSubstr(R"("addresses":{"grpc":"127.0.0.1:5"})"));
}

}  // namespace
}  // namespace switchyard
