#include "libs/http/host_port.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(HostPort, ReadsNamesAndBothFamilies) {
  EXPECT_EQ(ParseHostPort("127.0.0.1:80")->host, "127.0.0.1");
  EXPECT_EQ(ParseHostPort("gateway.example:65535")->port, 65535);
  const auto v6 = ParseHostPort("[::1]:8080");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->ToString(), "[::1]:8080");
}

TEST(HostPort, RefusesWhatIsNotHostAndPort) {
  for (const char* text : {"", ":80", "host", "host:", "host:70000", "host:-1", "host:8x", "::1:80",
                           "[]:80", "host: 80"}) {
    EXPECT_FALSE(ParseHostPort(text).ok()) << text;
  }
}

TEST(HostPort, KnowsLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", ""}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

}  // namespace
}  // namespace switchyard
