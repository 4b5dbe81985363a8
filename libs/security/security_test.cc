#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/security/api_keys.h"
#include "libs/security/redacted.h"
#include "libs/security/sha256.h"

namespace switchyard {
namespace {

std::string LineFor(const std::string& name, const std::string& key) {
  return name + " sha256:" + ToHex(Sha256(key)) + "\n";
}

TEST(Redacted, DoesNotPrint) {
  const Redacted<std::string> secret("swordfish");
  std::ostringstream out;
  out << secret;
  EXPECT_EQ(out.str(), "[redacted]");
  EXPECT_EQ(fmt::format("{}", secret), "[redacted]");
  EXPECT_EQ(secret.Reveal(), "swordfish");
}

TEST(Sha256, MatchesTheStandardsExamples) {
  EXPECT_EQ(ToHex(Sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(ToHex(Sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, ReadsHexBack) {
  const Sha256Digest digest = Sha256("abc");
  EXPECT_EQ(DigestFromHex(ToHex(digest)), digest);
  EXPECT_EQ(DigestFromHex("abc"), std::nullopt);
  EXPECT_EQ(DigestFromHex(std::string(64, 'g')), std::nullopt);
}

TEST(ApiKeys, KnowsGoodKeysByName) {
  const auto keys = ApiKeys::Parse("# team keys\n\n" + LineFor("alice", "sk-a") + "  " +
                                   LineFor("bob", "sk-b") + "\r\n");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->size(), 2U);
  EXPECT_EQ(keys->NameOf("sk-a"), "alice");
  EXPECT_EQ(keys->NameOf("sk-b"), "bob");
}

TEST(ApiKeys, RefusesEveryOtherKey) {
  const auto keys = ApiKeys::Parse(LineFor("alice", "sk-a"));
  ASSERT_TRUE(keys.ok());
  for (const std::string& key :
       {std::string(), std::string("sk-b"), std::string("sk-a "), std::string("SK-A"),
        std::string("' or '1'='1"), std::string("%s%n"), std::string("*)(uid=*"),
        std::string("\xff\x00", 2), std::string(1u << 20, 'k'), ToHex(Sha256("sk-a"))}) {
    EXPECT_EQ(keys->NameOf(key), std::nullopt) << key.substr(0, 32);
  }
}

TEST(ApiKeys, NamesTheBadLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no key"},
      {"# nothing\n", "no key"},
      {"alice\n", "line 1"},
      {"alice sk-plain\n", "line 1"},
      {"alice sha256:12\n", "line 1"},
      {LineFor("alice", "a") + "\n# x\n" + "b/b sha256:" + ToHex(Sha256("b")), "line 4"},
      {LineFor("alice", "a") + LineFor("alice", "b"), "line 2"},
      {LineFor("alice", "a") + LineFor("bob", "a"), "line 2"},
  };
  for (const auto& [text, want] : cases) {
    const auto keys = ApiKeys::Parse(text);
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_NE(MessageOf(keys.status()).find(want), std::string::npos) << keys.status();
    EXPECT_EQ(MessageOf(keys.status()).find("sk-plain"), std::string::npos);
  }
}

TEST(ApiKeys, LoadsAFile) {
  const std::string path = testing::TempDir() + "/api_keys_test";
  ASSERT_TRUE(WriteFileAtomically(path, LineFor("alice", "sk-a")).ok());
  const auto keys = ApiKeys::Load(path);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->NameOf("sk-a"), "alice");
  EXPECT_EQ(ApiKeys::Load(path + ".none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace switchyard
