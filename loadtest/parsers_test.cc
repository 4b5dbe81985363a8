#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "loadtest/http_response_parser.h"
#include "loadtest/request_record.h"
#include "loadtest/response_reader.h"
#include "loadtest/sse_parser.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// `text` in pieces of `size` bytes.
std::vector<std::string_view> Pieces(std::string_view text, size_t size) {
  std::vector<std::string_view> pieces;
  for (; !text.empty(); text.remove_prefix(std::min(size, text.size()))) {
    pieces.push_back(text.substr(0, size));
  }
  return pieces;
}

std::string BodyOf(HttpResponseParser& parser, std::string_view text, size_t piece_bytes) {
  std::string body;
  for (const std::string_view piece : Pieces(text, piece_bytes)) {
    parser.Feed(piece, [&](std::string_view bytes) { body += bytes; });
  }
  return body;
}

TEST(HttpResponseParser, ReadsChunksSplitAtEveryByte) {
  constexpr std::string_view kText =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
      "Transfer-Encoding: chunked\r\n\r\n"
      "5;name=value\r\nhello\r\nA\r\n, world\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n";
  for (size_t size = 1; size <= kText.size(); ++size) {
    HttpResponseParser parser;
    EXPECT_EQ(BodyOf(parser, kText, size), "hello, world\r\n!") << size;
    EXPECT_TRUE(parser.done()) << size;
    EXPECT_TRUE(parser.keep_alive());
    EXPECT_TRUE(parser.is_event_stream());
    EXPECT_EQ(parser.status(), 200);
  }
}

TEST(HttpResponseParser, ReadsABodyOfAGivenLengthAndNoMore) {
  HttpResponseParser parser;
  std::string body;
  const std::string_view text = "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1";
  EXPECT_EQ(parser.Feed(text, [&](std::string_view bytes) { body += bytes; }), text.size() - 8);
  EXPECT_EQ(body, "abc");
  EXPECT_TRUE(parser.done());
  EXPECT_EQ(parser.status(), 404);
}

TEST(HttpResponseParser, ReadsABodyThatEndsWithTheConnection) {
  HttpResponseParser parser;
  EXPECT_EQ(BodyOf(parser, "HTTP/1.0 200 OK\r\n\r\nsome text", 4), "some text");
  EXPECT_FALSE(parser.done());
  parser.OnClose();
  EXPECT_TRUE(parser.done());
  EXPECT_FALSE(parser.keep_alive());
}

TEST(HttpResponseParser, SkipsInterimResponsesAndHeedsConnectionClose) {
  HttpResponseParser parser;
  const std::string_view text =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
      "2\r\n\r\n"
      "ok";
  EXPECT_EQ(BodyOf(parser, text, 3), "ok");
  EXPECT_EQ(parser.status(), 200);
  EXPECT_FALSE(parser.keep_alive());
}

TEST(HttpResponseParser, RefusesWhatIsNoResponse) {
  const std::string long_header = "HTTP/1.1 200 OK\r\nx: " + std::string(70000, 'a') + "\r\n\r\n";
  for (const std::string_view text :
       {std::string_view("SSH-2.0-OpenSSH\r\n"), std::string_view("HTTP/1.1 2x0 OK\r\n"),
        std::string_view("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
        std::string_view("HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n"),
        std::string_view("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        std::string_view("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        std::string_view("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"),
        std::string_view("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"),
        std::string_view(long_header)}) {
    HttpResponseParser parser;
    BodyOf(parser, text, 7);
    EXPECT_TRUE(parser.malformed()) << text.substr(0, 60);
  }
}

std::vector<std::string> EventsOf(SseParser& parser, std::string_view text, size_t piece_bytes) {
  std::vector<std::string> events;
  for (const std::string_view piece : Pieces(text, piece_bytes)) {
    parser.Feed(piece, [&](SseParser::Field field, std::string_view data) {
      events.push_back((field == SseParser::Field::kError ? "error=" : "") + std::string(data));
    });
  }
  return events;
}

TEST(SseParser, ReadsEventsWhateverThePiecesAndLineEnds) {
  constexpr std::string_view kText =
      "\xef\xbb\xbf: ping\n\ndata: one\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\n"
      "id: 4\rdata\r\rerror: bad\n\ndata: last\n\n";
  for (size_t size = 1; size <= kText.size(); ++size) {
    SseParser parser;
    EXPECT_THAT(EventsOf(parser, kText, size),
                ElementsAre("one", "two\nlines", "", "error=bad", "last"))
        << size;
    EXPECT_FALSE(parser.malformed());
    EXPECT_FALSE(parser.mid_event());
  }
}

TEST(SseParser, KnowsWhenItStandsWithinAnEvent) {
  SseParser parser;
  EXPECT_THAT(EventsOf(parser, "data: {\"cut", 100), IsEmpty());
  EXPECT_TRUE(parser.mid_event());
}

TEST(SseParser, RefusesLinesThatAreNoFields) {
  SseParser html;
  EventsOf(html, "<html>\n\n", 100);
  EXPECT_TRUE(html.malformed());
  SseParser endless;
  EventsOf(endless, "data: " + std::string(5 << 20, 'x'), 1 << 16);
  EXPECT_TRUE(endless.malformed());
}

TEST(EventParser, FindsContentUsageAndErrors) {
  EventParser parser;
  EXPECT_TRUE(parser.Parse(R"({"choices":[{"text":"a"}]})").has_content);
  EXPECT_TRUE(parser.Parse(R"({"choices":[{"delta":{"content":"a"}}]})").has_content);
  EXPECT_TRUE(parser.Parse(R"({"choices":[{"delta":{"reasoning":"a"}}]})").has_content);
  const auto role = parser.Parse(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})");
  EXPECT_TRUE(role.valid && role.has_choice && !role.has_content);
  const auto usage =
      parser.Parse(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,)"
                   R"("prompt_tokens_details":{"cached_tokens":2}}})");
  EXPECT_TRUE(usage.valid && usage.has_usage && !usage.has_choice);
  EXPECT_EQ(usage.prompt_tokens, 7U);
  EXPECT_EQ(usage.completion_tokens, 3U);
  EXPECT_EQ(usage.cached_tokens, 2U);
  EXPECT_EQ(parser.Parse(R"({"error":{"code":"queue_full","type":"x"}})").error_code, "queue_full");
  EXPECT_EQ(parser.Parse(R"({"error":{"code":null,"type":"server_error"}})").error_code,
            "server_error");
  EXPECT_EQ(parser.Parse(R"({"error":{"code":503}})").error_code, "503");
  EXPECT_EQ(parser.Parse(R"({"error":{"code":"quoting <a prompt>"}})").error_code, "");
  EXPECT_TRUE(parser.Parse(R"({"object":"error","code":"bad"})").is_error);
  EXPECT_FALSE(parser.Parse("[1]").valid);
  EXPECT_FALSE(parser.Parse("{\"choices\":").valid);
  EXPECT_FALSE(parser.Parse("{\"other\":1}").valid);
}

constexpr std::string_view kHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n";

struct Reading {
  RequestRecord record{.prompt_tokens_asked = 10, .output_tokens_asked = 4};
  Outcome outcome = Outcome::kCompleted;
};

// Reads `pieces` at 1 s, 2 s, …
Reading Read(const std::vector<std::string>& pieces) {
  Reading reading;
  EventParser parser;
  ResponseReader reader(parser, reading.record);
  double now_s = 0.0;
  for (const std::string& piece : pieces) {
    reader.Feed(piece, now_s += 1.0);
  }
  reader.OnClose();
  reading.outcome = reader.Judge();
  reader.Close();
  return reading;
}

std::string Chunk(const std::string& text) {
  return "data: {\"choices\":[{\"text\":\"" + text + "\"}]}\n\n";
}

TEST(ResponseReader, TakesTimesAtChunksAndCountsFromUsage) {
  const Reading reading =
      Read({std::string(kHead), Chunk(""), Chunk("a"), Chunk("b"), ": ping\n\n", Chunk("c"),
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\n",
            "data: [DONE]\n\n"});
  EXPECT_EQ(reading.outcome, Outcome::kCompleted);
  EXPECT_EQ(reading.record.first_token_s, 3.0);
  EXPECT_EQ(reading.record.last_token_s, 6.0);
  EXPECT_THAT(reading.record.gaps_ms, ElementsAre(1000.0F, 2000.0F));
  EXPECT_EQ(reading.record.chunks, 3U);
  EXPECT_EQ(reading.record.output_tokens, 4U);
  EXPECT_EQ(reading.record.prompt_tokens, 9U);
}

TEST(ResponseReader, CountsChunksWhereThereIsNoUsage) {
  const Reading reading = Read({std::string(kHead), Chunk("a") + Chunk("b"), "data: [DONE]\n\n"});
  EXPECT_EQ(reading.outcome, Outcome::kCompleted);
  EXPECT_FALSE(reading.record.has_usage);
  EXPECT_EQ(reading.record.output_tokens, 2U);
  EXPECT_EQ(reading.record.prompt_tokens, 10U);
  EXPECT_THAT(reading.record.gaps_ms, ElementsAre(0.0F));
}

TEST(ResponseReader, TellsTheWaysToFailApart) {
  const std::string head(kHead);
  EXPECT_EQ(Read({}).outcome, Outcome::kReset);
  EXPECT_EQ(Read({"HTTP/1.1 200 O"}).outcome, Outcome::kReset);
  EXPECT_EQ(Read({head}).outcome, Outcome::kTruncated);
  EXPECT_EQ(Read({head, Chunk("a")}).outcome, Outcome::kTruncated);
  EXPECT_EQ(Read({head, Chunk("a"), "data: [DO"}).outcome, Outcome::kTruncated);
  EXPECT_EQ(Read({head, "data: {\"choices\"\n\n"}).outcome, Outcome::kMalformedSse);
  EXPECT_EQ(Read({head, "<html>\n"}).outcome, Outcome::kMalformedSse);
  EXPECT_EQ(Read({"garbage\r\n\r\n"}).outcome, Outcome::kMalformedHttp);
  EXPECT_EQ(Read({"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"}).outcome,
            Outcome::kMalformedHttp);
  const Reading event =
      Read({head, Chunk("a"), "data: {\"error\":{\"code\":\"expert_unavailable\"}}\n\n"});
  EXPECT_EQ(event.outcome, Outcome::kErrorEvent);
  EXPECT_EQ(event.record.api_code, "expert_unavailable");
  const Reading status =
      Read({"HTTP/1.1 429 Too Many\r\nContent-Length: "
            "32\r\n\r\n{\"error\":{\"code\":\"queue_full\"}} "});
  EXPECT_EQ(status.outcome, Outcome::kHttpError);
  EXPECT_EQ(status.record.http_status, 429);
  EXPECT_EQ(status.record.api_code, "queue_full");
}

// Damages a good response and reads it whole and in random pieces: both must come to the same end.
TEST(ResponseReader, JudgesDamagedBytesAlikeHoweverTheyComeInPieces) {
  constexpr uint64_t kSeed = 20;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  const std::string events = Chunk("a") + ": ping\n\n" + Chunk("b") +
                             "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n"
                             "data: [DONE]\n\n";
  std::string good =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string_view piece : Pieces(events, 29)) {
    good += fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
  }
  good += "0\r\n\r\n";
  ASSERT_EQ(Read({good}).outcome, Outcome::kCompleted);
  Rng rng(kSeed);
  std::set<Outcome> seen;
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    for (uint64_t damage = rng.Below(3) + 1; damage > 0; --damage) {
      const size_t at = rng.Below(bad.size());
      if (rng.Chance(0.5F)) {
        bad[at] = static_cast<char>(rng.Next());
      } else {
        bad.erase(at, rng.Below(20));
      }
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < bad.size(); at += pieces.back().size()) {
      pieces.push_back(bad.substr(at, rng.Below(9) + 1));
    }
    const Reading whole = Read({bad});
    const Reading split = Read(pieces);
    ASSERT_EQ(whole.outcome, split.outcome) << round;
    ASSERT_EQ(whole.record.chunks, split.record.chunks) << round;
    ASSERT_EQ(whole.record.output_tokens, split.record.output_tokens) << round;
    seen.insert(whole.outcome);
  }
  EXPECT_GE(seen.size(), 4U);  // The damage reaches all layers.
}

TEST(ResponseReader, GivesTokensWithoutTextATime) {
  const Reading reading = Read({std::string(kHead), Chunk(""), Chunk(""), "data: [DONE]\n\n"});
  EXPECT_EQ(reading.outcome, Outcome::kCompleted);
  EXPECT_EQ(reading.record.first_token_s, 2.0);
}

}  // namespace
}  // namespace switchyard
