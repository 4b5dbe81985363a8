#include "loadtest/load_options.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/status.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

// The options of `words` after a valid --url.
absl::StatusOr<LoadOptions> Parse(std::vector<std::string> words) {
  words.insert(words.begin(), "--url=http://127.0.0.1:8080");
  return ParseLoadOptions(words);
}

std::string Refusal(std::vector<std::string> words) {
  const auto options = Parse(std::move(words));
  return options.ok() ? "" : MessageOf(options.status());
}

TEST(LoadOptions, ReadUsersAllAtOnce) {
  const auto options =
      Parse({"--model", "demo", "--users", "64", "--all-at-once", "--requests-per-user", "1",
             "--prompt-tokens", "128", "--output-tokens", "64", "--json", "out.json"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->kind, LoadKind::kUsers);
  EXPECT_EQ(options->users.users, 64U);
  EXPECT_EQ(options->users.requests_per_user, 1U);
  EXPECT_EQ(options->users.ramp_s, 0.0);
  EXPECT_EQ(options->shape.prompt_tokens.text(), "fixed:128");
  EXPECT_EQ(options->shape.output_tokens.text(), "fixed:64");
  EXPECT_EQ(options->path, "/v1/completions");
  EXPECT_EQ(options->body.model, "demo");
  EXPECT_EQ(options->json_file, "out.json");
  EXPECT_EQ(LoadInWords(*options), "closed loop, 64 users at once, 1 request each");
}

TEST(LoadOptions, ReadOpenLoopsAndTraces) {
  const auto open = Parse({"--rate", "2.5", "--arrival", "burst", "--burstiness", "0.3",
                           "--duration", "10", "--slo", "ttft:500,itl:100", "--percentiles",
                           "50,99.9", "--endpoint", "chat", "--api-key", "a", "--api-key", "b"});
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(open->arrival.kind, ArrivalKind::kBurst);
  EXPECT_EQ(open->arrival.rate_per_s, 2.5);
  EXPECT_EQ(open->arrival.burstiness, 0.3);
  EXPECT_EQ(open->slo.size(), 2U);
  EXPECT_EQ(open->percentiles, (std::vector<double>{50.0, 99.9}));
  EXPECT_EQ(open->path, "/v1/chat/completions");
  EXPECT_EQ(open->body.prompt_form, PromptForm::kWords);
  EXPECT_EQ(open->tenant_count, 2U);
  EXPECT_GT(open->requests_max, 1'000'000U);
  const auto trace = Parse({"--trace", "t.jsonl", "--trace-speed", "4", "--tenants", "who.jsonl"});
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->kind, LoadKind::kTrace);
  EXPECT_EQ(trace->trace.speed, 4.0);
  EXPECT_EQ(trace->tenants_file, "who.jsonl");
}

TEST(LoadOptions, AlwaysHaveBounds) {
  const auto open = Parse({"--rate", "5"});
  ASSERT_TRUE(open.ok());
  EXPECT_EQ(open->requests_max, 100U);
  EXPECT_EQ(open->timeout_s, 600.0);
  EXPECT_EQ(open->limit_s, 3600.0);
  const auto longer = Parse({"--rate", "5", "--duration", "7200"});
  ASSERT_TRUE(longer.ok());
  EXPECT_EQ(longer->limit_s, 7800.0);
}

TEST(LoadOptions, PutThePathTogether) {
  EXPECT_EQ(ParseLoadOptions({"--url", "http://[::1]:1/v1/", "--rate", "1"})->path,
            "/v1/completions");
  EXPECT_EQ(ParseLoadOptions({"--url", "http://h/x", "--rate", "1"})->path, "/x/v1/completions");
  EXPECT_EQ(Parse({"--rate", "1", "--path", "/completion"})->path, "/completion");
}

TEST(LoadOptions, SayWhatIsWrong) {
  EXPECT_THAT(MessageOf(ParseLoadOptions({"--rate", "1"}).status()),
              HasSubstr("--url is required"));
  EXPECT_THAT(MessageOf(ParseLoadOptions({"--url", "https://h", "--rate", "1"}).status()),
              HasSubstr("--url: https"));
  EXPECT_THAT(Refusal({}), HasSubstr("exactly one of"));
  EXPECT_THAT(Refusal({"--rate", "1", "--users", "2"}), HasSubstr("exactly one of"));
  EXPECT_THAT(Refusal({"--rate", "0"}), HasSubstr("--rate 0"));
  EXPECT_THAT(Refusal({"--rate", "fast"}), HasSubstr("--rate fast"));
  EXPECT_THAT(Refusal({"--rate", "1", "--arrival", "weekly"}), HasSubstr("--arrival weekly"));
  EXPECT_THAT(Refusal({"--rate", "1", "--burstiness", "2"}), HasSubstr("--burstiness"));
  EXPECT_THAT(Refusal({"--rate", "1", "--requests-per-user", "2"}), HasSubstr("are for --users"));
  EXPECT_THAT(Refusal({"--rate", "1", "--all-at-once"}), HasSubstr("are for --users"));
  EXPECT_THAT(Refusal({"--users", "2", "--requests", "2"}), HasSubstr("--requests-per-user"));
  EXPECT_THAT(Refusal({"--users", "2", "--all-at-once", "--ramp", "1"}), HasSubstr("exclude"));
  EXPECT_THAT(Refusal({"--users", "0"}), HasSubstr("--users 0"));
  EXPECT_THAT(Refusal({"--trace", "t", "--prompt-tokens", "5"}), HasSubstr("--prompt-tokens"));
  EXPECT_THAT(Refusal({"--rate", "1", "--prompt-tokens", "zipf:2"}), HasSubstr("--prompt-tokens"));
  EXPECT_THAT(Refusal({"--rate", "1", "--endpoint", "chat", "--prompt-form", "ids"}),
              HasSubstr("--prompt-form ids"));
  EXPECT_THAT(Refusal({"--rate", "1", "--prompt-form", "tokens"}), HasSubstr("--prompt-form"));
  EXPECT_THAT(Refusal({"--rate", "1", "--slo", "ttft"}), HasSubstr("--slo"));
  EXPECT_THAT(Refusal({"--rate", "1", "--percentiles", "101"}), HasSubstr("--percentiles"));
  EXPECT_THAT(Refusal({"--rate", "1", "--extra-body", "[]"}), HasSubstr("--extra-body"));
  EXPECT_THAT(Refusal({"--rate", "1", "--header", "X: a\r\nY: b"}), HasSubstr("--header"));
  EXPECT_THAT(Refusal({"--rate", "1", "--path", "v1"}), HasSubstr("--path"));
  EXPECT_THAT(Refusal({"--rate", "1", "--tenants", "0"}), HasSubstr("--tenants 0"));
  EXPECT_THAT(Refusal({"--rate", "1", "--nonsense", "1"}), HasSubstr("unknown option --nonsense"));
  EXPECT_THAT(Refusal({"--rate", "1", "word"}), HasSubstr("unexpected argument"));
}

TEST(LoadOptions, NeverRepeatAKey) {
  const std::string refusal = Refusal({"--rate", "1", "--api-key", "my secret"});
  EXPECT_THAT(refusal, HasSubstr("--api-key"));
  EXPECT_THAT(refusal, testing::Not(HasSubstr("secret")));
}

TEST(LoadtestHelp, NamesEveryOption) {
  for (const char* name : {"--url",
                           "--endpoint",
                           "--path",
                           "--model",
                           "--api-key",
                           "--header",
                           "--allow-remote",
                           "--new-connections",
                           "--rate",
                           "--arrival",
                           "--burstiness",
                           "--users",
                           "--requests-per-user",
                           "--all-at-once",
                           "--ramp",
                           "--trace",
                           "--trace-speed",
                           "--trace-block-tokens",
                           "--requests",
                           "--duration",
                           "--timeout",
                           "--limit",
                           "--warmup",
                           "--prompt-tokens",
                           "--output-tokens",
                           "--no-ignore-eos",
                           "--shared-prefix-tokens",
                           "--prefix-groups",
                           "--prompt-form",
                           "--vocab-size",
                           "--temperature",
                           "--extra-body",
                           "--tenants",
                           "--seed",
                           "--json",
                           "--detailed",
                           "--plot",
                           "--slo",
                           "--percentiles",
                           "--quiet"}) {
    EXPECT_THAT(kLoadtestHelp, HasSubstr(std::string(name) + " ")) << name;
  }
}

}  // namespace
}  // namespace switchyard
