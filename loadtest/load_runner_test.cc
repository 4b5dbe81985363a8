#include "loadtest/load_runner.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "loadtest/request_record.h"
#include "loadtest/stream_socket.h"
#include "loadtest/target.h"
#include "loadtest/testing/scripted_server.h"
#include "loadtest/workload.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

class LoadRunnerTest : public testing::Test {
 protected:
  RunnerOptions Options(const std::string& url) {
    const auto target = ParseTargetUrl(url);
    EXPECT_TRUE(target.ok());
    const auto address = Resolve(*target);
    EXPECT_TRUE(address.ok());
    return {.address = *address,
            .request_head = "POST /v1/completions HTTP/1.1\r\nHost: test\r\n",
            .tenants = tenants_,
            .timeout_s = 60.0,
            .limit_s = 60.0};
  }

  RunResult RunUsers(const RunnerOptions& options, const ClosedLoopOptions& users) {
    const std::unique_ptr<Workload> workload = MakeClosedLoop(users, shape_, tenants_);
    return Run(options, *workload);
  }

  RunResult RunArrivals(const RunnerOptions& options, uint64_t requests) {
    const std::unique_ptr<Workload> workload = MakeOpenLoop(
        {.kind = ArrivalKind::kConstant, .rate_per_s = 2000.0}, shape_, tenants_, requests);
    return Run(options, *workload);
  }

  static RunResult Run(const RunnerOptions& options, Workload& workload) {
    LoadRunner runner(options, workload);
    absl::StatusOr<RunResult> result = runner.Run();
    EXPECT_TRUE(result.ok());
    return *std::move(result);
  }

  static std::map<Outcome, int> Outcomes(const RunResult& result) {
    std::map<Outcome, int> counts;
    for (const RequestRecord& record : result.records) {
      ++counts[record.outcome];
    }
    return counts;
  }

  ShapeOptions shape_{.prompt_tokens = LengthDistribution(8),
                      .output_tokens = LengthDistribution(4)};
  std::vector<Tenant> tenants_ = {{.name = "only", .api_key = "secret"}};
};

void AnswerAll(ScriptedServer::Connection& connection) {
  while (connection.ReadRequest() && connection.Send(WholeStream(8, 4))) {
  }
}

TEST_F(LoadRunnerTest, CompletesAllUsersAtOnceAndKeepsTheirConnections) {
  ScriptedServer server(AnswerAll);
  const RunResult result = RunUsers(Options(server.url()), {.users = 40, .requests_per_user = 3});
  ASSERT_EQ(result.records.size(), 120U);
  uint64_t chunks = 0;
  for (const RequestRecord& record : result.records) {
    EXPECT_EQ(record.outcome, Outcome::kCompleted);
    EXPECT_EQ(record.output_tokens, 4U);
    EXPECT_EQ(record.prompt_tokens, 8U);
    EXPECT_EQ(record.gaps_ms.size(), 3U);
    EXPECT_TRUE(record.has_usage);
    EXPECT_LE(record.start_s, record.first_token_s);
    EXPECT_LE(record.first_token_s, record.last_token_s);
    EXPECT_LE(record.last_token_s, record.end_s);
    EXPECT_LE(record.end_s, result.duration_s);
    chunks += record.chunks;
  }
  EXPECT_EQ(chunks, 480U);
  EXPECT_LE(result.connections, 40U);
  EXPECT_LE(result.in_flight_max, 40U);
  uint64_t started = 0;
  uint64_t completed = 0;
  uint64_t counted_chunks = 0;
  for (const SecondRow& row : result.seconds) {
    started += row.started;
    completed += row.completed;
    counted_chunks += row.chunks;
  }
  EXPECT_EQ(started, 120U);
  EXPECT_EQ(completed, 120U);
  EXPECT_EQ(counted_chunks, 480U);
}

TEST_F(LoadRunnerTest, ReadsStreamsThatComeByteByByte) {
  ScriptedServer server([](ScriptedServer::Connection& connection) {
    while (connection.ReadRequest() && connection.SendByteByByte(WholeStream(8, 4))) {
    }
  });
  const RunResult result = RunUsers(Options(server.url()), {.users = 2, .requests_per_user = 2});
  ASSERT_EQ(result.records.size(), 4U);
  for (const RequestRecord& record : result.records) {
    EXPECT_EQ(record.outcome, Outcome::kCompleted);
    EXPECT_EQ(record.chunks, 4U);
  }
}

TEST_F(LoadRunnerTest, SendsWhatAServerNeeds) {
  std::string head;
  std::string body;
  {
    ScriptedServer server([&](ScriptedServer::Connection& connection) {
      connection.ReadRequest();
      head = connection.head();
      body = connection.body();
      connection.Send(WholeStream(8, 4));
    });
    RunUsers(Options(server.url()), {.users = 1});
  }
  EXPECT_THAT(head, testing::StartsWith("POST /v1/completions HTTP/1.1\r\nHost: test\r\n"));
  EXPECT_THAT(head, HasSubstr("Authorization: Bearer secret\r\n"));
  EXPECT_THAT(body, HasSubstr("\"stream\":true"));
  EXPECT_THAT(body, HasSubstr("\"ignore_eos\":true"));
}

// One answer for each way to fail, by the order in which connections come.
void Misbehave(int turn, ScriptedServer::Connection& connection) {
  switch (turn) {
    case 0:
      connection.Send(
          "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 31\r\n\r\n"
          "{\"error\":{\"code\":\"queue_full\"}}");
      break;
    case 1:
      connection.Send(StreamHead() + HttpChunk(TokenEvent()) +
                      HttpChunk("data: {\"error\":{\"code\":\"lost\"}}\n\n") +
                      std::string(kLastHttpChunk));
      break;
    case 2:  // Ends in good order, but without [DONE].
      connection.Send(StreamHead() + HttpChunk(TokenEvent()) + std::string(kLastHttpChunk));
      break;
    case 3:  // Ends within a chunk.
      connection.Send(StreamHead() + "40\r\ndata: {");
      break;
    case 4:
      connection.Send(StreamHead() + HttpChunk("data: nonsense\n\n"));
      break;
    case 5:
      connection.Send(
          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
          "Content-Length: 2\r\n\r\n{}");
      break;
    case 6:  // No answer at all.
      connection.ResetOnClose();
      break;
    default:
      connection.Send(WholeStream(8, 4));
  }
}

TEST_F(LoadRunnerTest, CountsEachWayToFailByItsKind) {
  std::atomic<int> turn = 0;
  ScriptedServer server([&](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    Misbehave(turn++, connection);
  });
  RunnerOptions options = Options(server.url());
  options.keep_alive = false;
  const RunResult result = RunArrivals(options, 8);
  const std::map<Outcome, int> expected = {
      {Outcome::kHttpError, 1},    {Outcome::kErrorEvent, 1},    {Outcome::kTruncated, 2},
      {Outcome::kMalformedSse, 1}, {Outcome::kMalformedHttp, 1}, {Outcome::kReset, 1},
      {Outcome::kCompleted, 1}};
  EXPECT_EQ(Outcomes(result), expected);
  for (const RequestRecord& record : result.records) {
    if (record.outcome == Outcome::kHttpError) {
      EXPECT_EQ(record.http_status, 429);
      EXPECT_EQ(record.api_code, "queue_full");
    }
    if (record.outcome == Outcome::kErrorEvent) {
      EXPECT_EQ(record.http_status, 200);
      EXPECT_EQ(record.api_code, "lost");
    }
  }
}

TEST_F(LoadRunnerTest, CountsRefusedConnections) {
  std::string url;
  {
    ScriptedServer server(AnswerAll);
    url = server.url();
  }
  const RunResult result = RunArrivals(Options(url), 3);
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kConnect, 3}}));
}

TEST_F(LoadRunnerTest, OpenLoopDoesNotWaitForAnswers) {
  std::latch all_there(6);
  ScriptedServer server([&](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    all_there.arrive_and_wait();  // Nobody is answered before the last one has asked.
    connection.Send(WholeStream(8, 4));
  });
  const RunResult result = RunArrivals(Options(server.url()), 6);
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kCompleted, 6}}));
  EXPECT_EQ(result.in_flight_max, 6U);
}

TEST_F(LoadRunnerTest, ASlowStreamHoldsUpNobody) {
  std::atomic<int> turn = 0;
  std::latch others_done(3);
  ScriptedServer server([&](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    if (turn++ == 0) {
      connection.Send(StreamHead() + HttpChunk(TokenEvent()));
      others_done.wait();
      connection.Send(HttpChunk(TokenEvent()) + HttpChunk(kDoneEvent));
      connection.Send(kLastHttpChunk);
      return;
    }
    connection.Send(WholeStream(8, 4));
    connection.Drain();  // Returns when the client has taken all and closed.
    others_done.count_down();
  });
  RunnerOptions options = Options(server.url());
  options.keep_alive = false;
  const RunResult result = RunArrivals(options, 4);
  ASSERT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kCompleted, 4}}));
  EXPECT_EQ(result.records.back().chunks, 2U);
  EXPECT_FALSE(result.records.back().has_usage);
  EXPECT_EQ(result.records.back().output_tokens, 2U);
}

TEST_F(LoadRunnerTest, TimesOutWhereNoAnswerComes) {
  ScriptedServer server([](ScriptedServer::Connection& connection) { connection.Drain(); });
  RunnerOptions options = Options(server.url());
  options.timeout_s = 0.03;
  const RunResult result = RunUsers(options, {.users = 3});
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kTimeout, 3}}));
}

TEST_F(LoadRunnerTest, AFinishedStreamCountsEvenIfItsBodyNeverEnds) {
  ScriptedServer server([](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    connection.Send(StreamHead() + HttpChunk(TokenEvent()) + HttpChunk(kDoneEvent));
    connection.Drain();
  });
  RunnerOptions options = Options(server.url());
  options.timeout_s = 1.0;
  const RunResult result = RunUsers(options, {.users = 1});
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kCompleted, 1}}));
}

TEST_F(LoadRunnerTest, AnIdleConnectionThatTheServerClosedIsNoFailure) {
  ScriptedServer server([](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    connection.Send(WholeStream(8, 4));  // And closes, although it promised not to.
  });
  const RunResult result = RunUsers(Options(server.url()), {.users = 4, .requests_per_user = 5});
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kCompleted, 20}}));
  EXPECT_EQ(result.connections, 20U);
}

TEST_F(LoadRunnerTest, TakesAnAnswerThatComesBeforeAllIsSent) {
  ScriptedServer server([](ScriptedServer::Connection& connection) {
    connection.ReadHead();
    connection.Send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    connection.HoldWithoutReading();  // What the sockets do not hold stays unsent.
  });
  shape_.prompt_tokens = LengthDistribution(LengthDistribution::kTokensMax);
  const RunResult result = RunUsers(Options(server.url()), {.users = 1});
  ASSERT_EQ(result.records.size(), 1U);
  EXPECT_EQ(result.records[0].outcome, Outcome::kHttpError);
  EXPECT_EQ(result.records[0].http_status, 413);
}

TEST_F(LoadRunnerTest, EndsWhenTold) {
  const Descriptor stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  std::latch open(2);
  ScriptedServer server([&](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    connection.Send(StreamHead() + HttpChunk(TokenEvent()));
    open.count_down();
    connection.Drain();
  });
  RunnerOptions options = Options(server.url());
  options.stop_fd = stop.get();
  std::thread stopper([&] {
    open.wait();
    const uint64_t one = 1;
    EXPECT_EQ(::write(stop.get(), &one, sizeof(one)), ssize_t{sizeof(one)});
  });
  const RunResult result = RunUsers(options, {.users = 2, .requests_per_user = 100});
  stopper.join();
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kInterrupted, 2}}));
}

TEST_F(LoadRunnerTest, CutsOffAtItsLimit) {
  ScriptedServer server([](ScriptedServer::Connection& connection) { connection.Drain(); });
  RunnerOptions options = Options(server.url());
  options.limit_s = 0.2;
  const RunResult result = RunUsers(options, {.users = 2, .requests_per_user = 100});
  EXPECT_TRUE(result.limit_reached);
  EXPECT_EQ(Outcomes(result), (std::map<Outcome, int>{{Outcome::kCutOff, 2}}));
}

TEST_F(LoadRunnerTest, BeginsNothingAfterItsDuration) {
  ScriptedServer server(AnswerAll);
  RunnerOptions options = Options(server.url());
  options.duration_s = 0.1;
  const RunResult users = RunUsers(options, {.users = 2, .requests_per_user = 1'000'000});
  EXPECT_GE(users.records.size(), 2U);
  EXPECT_EQ(Outcomes(users).count(Outcome::kCompleted), Outcomes(users).size());
  const RunResult arrivals = RunArrivals(options, 1'000'000);
  EXPECT_EQ(arrivals.records.size(), 200U);  // 2000/s, at 0, 0.0005, … below 0.1.
}

TEST_F(LoadRunnerTest, SaysWhenItMayNotOpenMore) {
  std::latch refused(1);
  ScriptedServer server([&](ScriptedServer::Connection& connection) {
    connection.ReadRequest();
    refused.wait();
    connection.Send(WholeStream(8, 4));
  });
  RunnerOptions options = Options(server.url());
  options.connections_max = 2;
  options.progress_s = 0.01;
  bool counted = false;
  options.on_progress = [&](const RunProgress& progress) {
    if (progress.failed == 3 && !std::exchange(counted, true)) {
      refused.count_down();
    }
  };
  const RunResult result = RunArrivals(options, 5);
  EXPECT_EQ(Outcomes(result),
            (std::map<Outcome, int>{{Outcome::kCompleted, 2}, {Outcome::kClientLimit, 3}}));
}

}  // namespace
}  // namespace switchyard
