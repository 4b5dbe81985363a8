#include "loadtest/target.h"

#include <string>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

TEST(ParseTargetUrl, TakesHostPortAndPath) {
  const auto url = ParseTargetUrl("http://127.0.0.1:8080/base/v1/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "127.0.0.1");
  EXPECT_EQ(url->port, 8080);
  EXPECT_EQ(url->path, "/base/v1");
  EXPECT_EQ(url->authority, "127.0.0.1:8080");
  const auto v6 = ParseTargetUrl("http://[::1]:9");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, 9);
  EXPECT_EQ(v6->path, "");
  EXPECT_EQ(ParseTargetUrl("http://host")->port, 80);
}

TEST(ParseTargetUrl, RefusesWhatItDoesNotSpeak) {
  for (const char* text :
       {"", "127.0.0.1:80", "https://h", "http://", "http://:80", "http://h:", "http://h:0",
        "http://h:99999", "http://h:8o", "http://[::1", "http://[::1]x", "http://u@h",
        "http://h/?q", "http://h/a b", "http://h/\r\nx: y"}) {
    EXPECT_FALSE(ParseTargetUrl(text).ok()) << text;
  }
}

bool IsLoopback(const std::string& text) {
  const auto url = ParseTargetUrl(text);
  EXPECT_TRUE(url.ok());
  const auto address = Resolve(*url);
  EXPECT_TRUE(address.ok()) << text;
  return address->IsLoopback();
}

TEST(SocketAddress, KnowsWhatStaysOnThisMachine) {
  EXPECT_TRUE(IsLoopback("http://127.0.0.1:1"));
  EXPECT_TRUE(IsLoopback("http://127.8.9.1:1"));
  EXPECT_TRUE(IsLoopback("http://[::1]:1"));
  EXPECT_TRUE(IsLoopback("http://[::ffff:127.0.0.1]:1"));
  EXPECT_FALSE(IsLoopback("http://192.0.2.1:1"));
  EXPECT_FALSE(IsLoopback("http://0.0.0.0:1"));
  EXPECT_FALSE(IsLoopback("http://[2001:db8::1]:1"));
}

}  // namespace
}  // namespace switchyard
