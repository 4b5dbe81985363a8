#include "libs/http/internal/request_head.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace switchyard::internal {
namespace {

constexpr HeadLimits kLimits = {
    .header_bytes_max = 4096, .headers_max = 8, .target_bytes_max = 512, .body_bytes_max = 1000};

RequestHead Parse(const std::string& head) { return ParseRequestHead(head, kLimits); }

std::string With(const std::string& lines) {
  return "POST / HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n";
}

TEST(RequestHead, ReadsAGoodHead) {
  const RequestHead head =
      Parse("GET /a%20b/c?q=%20 HTTP/1.1\r\nHost: x\r\nX-One:  two words \t\r\n\r\n");
  ASSERT_EQ(head.error, 0) << head.why;
  EXPECT_EQ(head.request.method, "GET");
  EXPECT_EQ(head.request.path, "/a b/c");
  EXPECT_EQ(head.request.query, "q=%20");
  EXPECT_EQ(head.request.Header("x-one"), "two words");
  EXPECT_EQ(head.request.Header("x-two"), "");
  EXPECT_TRUE(head.keep_alive);
}

TEST(RequestHead, KnowsWhenTheConnectionStays) {
  EXPECT_FALSE(Parse("GET / HTTP/1.0\r\n\r\n").keep_alive);
  EXPECT_TRUE(Parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
  EXPECT_FALSE(Parse(With("Connection: close\r\n")).keep_alive);
}

TEST(RequestHead, TakesAbsoluteTargets) {
  EXPECT_EQ(Parse("GET http://x/v1?a HTTP/1.1\r\nHost: x\r\n\r\n").request.path, "/v1");
  EXPECT_EQ(Parse("GET HTTP://x HTTP/1.1\r\nHost: x\r\n\r\n").request.path, "/");
}

TEST(RequestHead, ReadsFraming) {
  EXPECT_EQ(Parse(With("Content-Length: 12\r\n")).content_length, 12U);
  EXPECT_TRUE(Parse(With("Transfer-Encoding: Chunked\r\n")).chunked);
  EXPECT_TRUE(Parse(With("Expect: 100-continue\r\n")).expects_continue);
  EXPECT_EQ(Parse(With("Content-Encoding: identity\r\n")).error, 0);
}

TEST(RequestHead, RefusesBadInput) {
  const std::vector<std::pair<std::string, int>> cases = {
      {With("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400},
      {With("Content-Length: 1\r\nContent-Length: 2\r\n"), 400},
      {With("Content-Length: 1\r\nContent-Length: 1\r\n"), 400},
      {With("Content-Length: +5\r\n"), 400},
      {With("Content-Length: 0x5\r\n"), 400},
      {With("Content-Length: 5,5\r\n"), 400},
      {With("Content-Length: -1\r\n"), 400},
      {With("Content-Length:\r\n"), 400},
      {With("Content-Length: 18446744073709551616\r\n"), 413},
      {With("Content-Length: 1001\r\n"), 413},
      {With("Transfer-Encoding: chunked, identity\r\n"), 400},
      {With("Transfer-Encoding: xchunked\r\n"), 400},
      {With("Transfer-Encoding: chunked,\r\n"), 400},
      {With("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: x\n\n", 400},
      {"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400},
      {With("A: b\r\n folded\r\n"), 400},
      {With("A : b\r\n"), 400},
      {With(": b\r\n"), 400},
      {With("no colon\r\n"), 400},
      {With(std::string("A: b\0c\r\n", 8)), 400},
      {With("A\x80: b\r\n"), 400},
      {With("A: \x7f\r\n"), 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {With("Host: y\r\n"), 400},
      {"GET /\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\n", 505},
      {"GET  HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /% HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /" + std::string(600, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
      {With("A: " + std::string(5000, 'a') + "\r\n"), 431},
      {With("A: a\r\nB: b\r\nC: c\r\nD: d\r\nE: e\r\nF: f\r\nG: g\r\nH: h\r\n"), 431},
      {With("Content-Encoding: gzip\r\n"), 415},
      {With("Expect: magic\r\n"), 417},
      {With("Expect: 100-continue\r\nExpect: 100-continue\r\n"), 400},
  };
  for (const auto& [head, error] : cases) {
    EXPECT_EQ(Parse(head).error, error) << head.substr(0, 120);
  }
}

TEST(RequestHead, FindsItsEndAcrossPieces) {
  const std::string head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  for (size_t size = 0; size < head.size(); ++size) {
    EXPECT_FALSE(FindHeadEnd(head.substr(0, size), 0).has_value());
    EXPECT_EQ(FindHeadEnd(head + "body", size), head.size());
  }
  EXPECT_EQ(FindHeadEnd("GET /\n\nrest", 0), 7U);
}

}  // namespace
}  // namespace switchyard::internal
