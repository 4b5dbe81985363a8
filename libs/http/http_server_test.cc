#include "libs/http/http_server.h"

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dirent.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"

#include "libs/base/bounded_queue.h"
#include "libs/http/testing/raw_client.h"

namespace switchyard {
namespace {

using std::chrono::milliseconds;

size_t OpenDescriptors() {
  size_t count = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir) != nullptr) {
    ++count;
  }
  closedir(dir);
  return count;
}

HttpResponse Echo(const HttpRequest& request) {
  return HttpResponse::Text(200, request.method + " " + request.path + " " +
                                     std::to_string(request.body.size()) + " " +
                                     request.body.substr(0, 64));
}

// A server that echoes; "/hold" hands its writer to the test.
class HttpServerTest : public testing::Test {
 protected:
  void StartServer(HttpServerOptions options = {}) {
    server_ = std::make_unique<HttpServer>(std::move(options), registry_,
                                           [this](HttpRequest request, ResponseWriter writer) {
                                             if (request.path == "/hold") {
                                               EXPECT_TRUE(held_.TryPush(std::move(writer)));
                                             } else if (request.path != "/drop") {
                                               writer.Respond(Echo(request));
                                             }
                                           });
    ASSERT_TRUE(server_->Start().ok());
  }

  std::unique_ptr<ResponseWriter> TakeHeld() {
    std::optional<ResponseWriter> writer = held_.PopWithTimeout(absl::Seconds(10));
    return writer.has_value() ? std::make_unique<ResponseWriter>(*std::move(writer)) : nullptr;
  }

  Registry registry_;
  BoundedQueue<ResponseWriter> held_{1000};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersOnOneConnectionAgainAndAgain) {
  StartServer();
  RawClient client(server_->address());
  for (int i = 0; i < 3; ++i) {
    const RawClient::Response response = client.Fetch("POST", "/echo", "hello");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "POST /echo 5 hello");
    EXPECT_FALSE(response.Header("date").empty());
  }
  EXPECT_EQ(server_->connection_count(), 1U);
}

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  StartServer();
  RawClient client(server_->address());
  const RawClient::Response response = client.Fetch("HEAD", "/echo");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.Header("content-length"), "13");
  EXPECT_EQ(client.Fetch("GET", "/echo").body, "GET /echo 0 ");
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  StartServer();
  RawClient client(server_->address());
  std::string requests;
  for (int i = 0; i < 2000; ++i) {
    requests += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  }
  std::thread sender([&] { EXPECT_TRUE(client.Send(requests)); });
  for (int i = 0; i < 2000; ++i) {
    ASSERT_EQ(client.ReadResponse().body, "GET /" + std::to_string(i) + " 0 ");
  }
  sender.join();
}

TEST_F(HttpServerTest, PutsChunksTogether) {
  StartServer();
  RawClient client(server_->address());
  client.Send("POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  client.Send("2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "POST /e 5 abcde");
  EXPECT_EQ(client.ReadResponse().body, "GET /next 0 ");
}

TEST_F(HttpServerTest, AsksForABodyThatWaitsForContinue) {
  StartServer();
  RawClient client(server_->address());
  client.Send("POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.ReadResponse(false).status, 100);
  client.Send("ok");
  EXPECT_EQ(client.ReadResponse().body, "POST /e 2 ok");
}

TEST_F(HttpServerTest, ClosesAfterHttp10) {
  StartServer();
  RawClient client(server_->address());
  client.Send("GET /old HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "GET /old 0 ");
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpServerTest, RefusesBadRequestsAndCloses) {
  StartServer({.body_bytes_max = 1000, .header_bytes_max = 2048});
  const std::string chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::vector<std::pair<std::string, int>> cases = {
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
       400},
      {"nonsense\r\n\r\n", 400},
      {"\x16\x03\x01\x02\n\n", 400},
      {"GET / HTTP/2.0\r\n\r\n", 505},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n\r\n", 415},
      {"GET / HTTP/1.1\r\nA: " + std::string(100'000, 'a'), 431},
      {chunked + "3e9\r\n" + std::string(1001, 'a') + "\r\n0\r\n\r\n", 413},
      {chunked + "fffffffffffffffff\r\n", 400},
      {chunked + "-1\r\n", 400},
      {chunked + "\r\n", 400},
      {chunked + "3\r\nabcd\r\n0\r\n\r\n", 400},
      {chunked + "3\nabc\r\n0\r\n\r\n", 400},
      {chunked + "3;" + std::string(200'000, 'e'), 400},
  };
  for (const auto& [bytes, status] : cases) {
    RawClient client(server_->address());
    client.Send(bytes);
    const RawClient::Response response = client.ReadResponse();
    EXPECT_EQ(response.status, status) << bytes.substr(0, 100);
    EXPECT_NE(response.body.find("\"error\""), std::string::npos);
    EXPECT_EQ(response.Header("connection"), "close");
    client.CloseSending();
    EXPECT_TRUE(client.AtEnd());
  }
  RawClient client(server_->address());
  EXPECT_EQ(client.Fetch("GET", "/alive").status, 200);
}

TEST_F(HttpServerTest, TakesABodyOfExactlyTheLimit) {
  StartServer({.body_bytes_max = 4u << 20});
  RawClient client(server_->address());
  const std::string body(4u << 20, 'b');
  EXPECT_EQ(client.Fetch("POST", "/big", body).body, "POST /big 4194304 " + std::string(64, 'b'));
}

TEST_F(HttpServerTest, TimesOutSlowHeadersAndBodies) {
  StartServer({.header_timeout = milliseconds(30), .body_timeout = milliseconds(30)});
  RawClient slow_head(server_->address());
  slow_head.Send("GET / HTT");
  EXPECT_EQ(slow_head.ReadResponse().status, 408);
  RawClient slow_body(server_->address());
  slow_body.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(slow_body.ReadResponse().status, 408);
}

TEST_F(HttpServerTest, ClosesIdleConnections) {
  StartServer({.idle_timeout = milliseconds(30)});
  RawClient idle(server_->address());
  EXPECT_TRUE(idle.AtEnd());
}

TEST_F(HttpServerTest, RefusesConnectionsOverTheLimit) {
  StartServer({.connections_max = 2});
  RawClient first(server_->address());
  RawClient second(server_->address());
  EXPECT_EQ(first.Fetch("GET", "/").status, 200);
  EXPECT_EQ(second.Fetch("GET", "/").status, 200);
  RawClient third(server_->address());
  EXPECT_EQ(third.ReadResponse().status, 503);
}

TEST_F(HttpServerTest, StreamsFromAnotherThread) {
  StartServer();
  RawClient client(server_->address());
  client.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  writer->StartStream({.headers = {{"Content-Type", "text/event-stream"}}, .body = "first "});
  EXPECT_TRUE(client.ReadUntil("first "));
  EXPECT_TRUE(writer->Write("data: 1\n\n"));
  EXPECT_TRUE(client.ReadUntil("data: 1\n\n"));
  EXPECT_TRUE(writer->Write("data: 2\n\n"));
  writer->Finish();
  EXPECT_TRUE(client.ReadUntil("data: 2\n\n\r\n0\r\n\r\n"));
  EXPECT_FALSE(writer->Write("late"));
  EXPECT_EQ(client.Fetch("GET", "/again").status, 200);
}

TEST_F(HttpServerTest, FillsSilence) {
  StartServer();
  RawClient client(server_->address());
  client.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  writer->StartStream({}, {.after = milliseconds(5), .bytes = ": ping\n\n"});
  EXPECT_TRUE(client.ReadUntil(": ping\n\n"));
  EXPECT_TRUE(client.ReadUntil(": ping\n\n"));
  writer->Finish();
  EXPECT_TRUE(client.ReadUntil("0\r\n\r\n"));
}

TEST_F(HttpServerTest, TellsWhenTheClientLeaves) {
  StartServer();
  for (const bool starts_stream : {false, true}) {
    auto client = std::make_unique<RawClient>(server_->address());
    client->Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    const auto writer = TakeHeld();
    ASSERT_NE(writer, nullptr);
    absl::Notification closed;
    writer->OnClosed([&closed] { closed.Notify(); });
    if (starts_stream) {
      writer->StartStream({});
      client->Reset();
    }
    client.reset();
    EXPECT_TRUE(closed.WaitForNotificationWithTimeout(absl::Seconds(10)));
    EXPECT_FALSE(writer->Write("nobody"));
    EXPECT_TRUE(writer->closed());
    bool at_once = false;
    writer->OnClosed([&at_once] { at_once = true; });
    EXPECT_TRUE(at_once);
  }
}

TEST_F(HttpServerTest, DoesNotCallOnClosedAfterACompleteResponse) {
  StartServer();
  auto client = std::make_unique<RawClient>(server_->address());
  client->Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  bool called = false;
  writer->OnClosed([&called] { called = true; });
  writer->Respond(HttpResponse::Text(200, "done"));
  EXPECT_EQ(client->ReadResponse().body, "done");
  client.reset();
  server_->Stop(std::chrono::seconds(5));
  EXPECT_FALSE(called);
}

TEST_F(HttpServerTest, AnswersForAHandlerThatDropsItsWriter) {
  StartServer();
  RawClient client(server_->address());
  EXPECT_EQ(client.Fetch("GET", "/drop").status, 500);
}

TEST_F(HttpServerTest, CutsAStreamWhoseWriterIsDropped) {
  StartServer();
  RawClient client(server_->address());
  client.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  writer->StartStream({.body = "part"});
  writer.reset();
  const RawClient::Response response = client.ReadResponse();
  EXPECT_EQ(response.body, "part");
  EXPECT_FALSE(response.complete);
}

TEST_F(HttpServerTest, BoundsWhatASlowReaderCosts) {
  StartServer({.stream_buffer_bytes_max = 64u << 10, .write_timeout = milliseconds(50)});
  RawClient client(server_->address());
  client.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  absl::Notification closed;
  writer->OnClosed([&closed] { closed.Notify(); });
  writer->StartStream({});
  const std::string piece(32u << 10, 'x');
  bool was_full = false;
  for (int i = 0; i < 10'000 && !closed.HasBeenNotified(); ++i) {
    if (!writer->Write(piece)) {
      was_full = true;
      closed.WaitForNotificationWithTimeout(absl::Milliseconds(1));
    }
  }
  EXPECT_TRUE(was_full);
  EXPECT_TRUE(closed.HasBeenNotified());
}

TEST_F(HttpServerTest, APieceLargerThanTheBufferDoesNotCutTheStream) {
  StartServer({.stream_buffer_bytes_max = 4096});
  RawClient client(server_->address());
  client.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  writer->StartStream({});
  EXPECT_TRUE(writer->Write(std::string(100'000, 'x')));
  EXPECT_TRUE(writer->Write("usage"));
  EXPECT_TRUE(writer->Write("done"));
  writer->Finish();
  const RawClient::Response response = client.ReadResponse();
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(response.body.size(), 100'000U + 9U);
}

TEST_F(HttpServerTest, ServesTwoHundredStreamsAndLeaksNoDescriptor) {
  const size_t before = OpenDescriptors();
  StartServer({.threads = 2});
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<std::unique_ptr<ResponseWriter>> writers;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->address()));
    clients.back()->Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    writers.push_back(TakeHeld());
    ASSERT_NE(writers.back(), nullptr);
    writers.back()->StartStream({});
  }
  for (int event = 0; event < 20; ++event) {
    for (const auto& writer : writers) {
      ASSERT_TRUE(writer->Write("data: " + std::to_string(event) + "\n\n"));
    }
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    writers[i]->Finish();
    const RawClient::Response response = clients[i]->ReadResponse();
    EXPECT_TRUE(response.complete);
    EXPECT_TRUE(response.body.ends_with("data: 18\n\ndata: 19\n\n"));
  }
  clients.clear();
  writers.clear();
  server_->Stop(std::chrono::seconds(10));
  EXPECT_EQ(server_->connection_count(), 0U);
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(HttpServerTest, LetsOpenRequestsFinishWhenItStops) {
  StartServer();
  RawClient idle(server_->address());
  EXPECT_EQ(idle.Fetch("GET", "/").status, 200);
  RawClient busy(server_->address());
  busy.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  std::thread stopper([this] { server_->Stop(std::chrono::seconds(30)); });
  EXPECT_TRUE(idle.AtEnd());
  writer->Respond(HttpResponse::Text(200, "last"));
  EXPECT_EQ(busy.ReadResponse().body, "last");
  EXPECT_TRUE(busy.AtEnd());
  stopper.join();
  EXPECT_FALSE(RawClient(server_->address()).connected());
}

TEST_F(HttpServerTest, CutsWhatOutlivesTheGraceOfAStop) {
  StartServer();
  RawClient client(server_->address());
  client.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto writer = TakeHeld();
  ASSERT_NE(writer, nullptr);
  server_->Stop(milliseconds(5));
  EXPECT_TRUE(client.AtEnd());
  writer->Respond(HttpResponse::Text(200, "too late"));
  EXPECT_TRUE(writer->closed());
}

TEST_F(HttpServerTest, CannotBindTwice) {
  StartServer();
  HttpServer second({.address = server_->address()}, registry_, [](HttpRequest, ResponseWriter) {});
  EXPECT_EQ(second.Start().code(), absl::StatusCode::kUnavailable);
  HttpServer bad({.address = "nowhere"}, registry_, [](HttpRequest, ResponseWriter) {});
  EXPECT_EQ(bad.Start().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard
