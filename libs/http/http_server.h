#ifndef SWITCHYARD_LIBS_HTTP_HTTP_SERVER_H_
#define SWITCHYARD_LIBS_HTTP_HTTP_SERVER_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/http/http_message.h"
#include "libs/metrics/registry.h"

namespace switchyard {

namespace internal {
class Exchange;
class HttpServerImpl;
}  // namespace internal

// Sends `bytes` (a whole piece of the stream, such as ": ping\n\n") after each `after` of silence.
struct StreamFiller {
  Duration after = std::chrono::seconds(15);
  std::string bytes;
};

// ResponseWriter answers one request: either Respond, or StartStream, Write… and Finish.
//
// Any thread, one at a time per call; calls after the client left do nothing. A writer that is
// destroyed unanswered answers 500; one destroyed inside a stream cuts the connection, so the
// client sees that the stream is incomplete. It may outlive the server.
class ResponseWriter {
 public:
  explicit ResponseWriter(std::shared_ptr<internal::Exchange> exchange);
  ResponseWriter(ResponseWriter&&) noexcept;
  ResponseWriter& operator=(ResponseWriter&&) noexcept;
  ~ResponseWriter();

  void Respond(HttpResponse response);

  // `head.body` is the first piece of the stream and may be empty.
  void StartStream(HttpResponse head, StreamFiller filler = {});

  // False when the client is gone or its buffer (stream_buffer_bytes_max) is full: then the piece
  // is not sent and the caller gives up the stream.
  [[nodiscard]] bool Write(std::string_view piece);

  // Ends the stream in good order.
  void Finish();

  // Sends what is buffered, then cuts the connection without ending the stream.
  void Abort();

  // `callback` runs at most once, on the server's thread, when the client goes away before the
  // response is complete; at once, on the caller's thread, if it already has. It must not block.
  void OnClosed(std::function<void()> callback);

  // True once the client is gone or the response is complete.
  bool closed() const;

 private:
  std::shared_ptr<internal::Exchange> exchange_;
};

// Answers a request now or later, from any thread. Runs on a server thread and must not block.
using HttpHandler = std::function<void(HttpRequest request, ResponseWriter writer)>;

struct HttpServerOptions {
  std::string name = "api";             // Label of the metrics; short and fixed.
  std::string address = "127.0.0.1:0";  // "host:port" or "[v6]:port"; port 0 picks one.
  int threads = 1;
  size_t connections_max = 8192;                // More get 503 and are closed.
  size_t body_bytes_max = 8u << 20;             // More gets 413.
  size_t header_bytes_max = 32u << 10;          // Request line and headers; more gets 431.
  size_t headers_max = 100;                     // More gets 431.
  size_t stream_buffer_bytes_max = 256u << 10;  // Unsent bytes of a stream; then Write is false.
  Duration header_timeout = std::chrono::seconds(10);  // From the first byte; then 408.
  Duration body_timeout = std::chrono::seconds(60);    // For the whole body; then 408.
  Duration idle_timeout = std::chrono::seconds(75);    // Between requests; then closed.
  Duration write_timeout = std::chrono::seconds(30);   // For one write; then closed.
};

// HttpServer speaks HTTP/1.0 and 1.1 with keep-alive, and hides the library that does.
//
// What it refuses by itself: bad syntax and anything that two parsers could read differently (400),
// slow requests (408), large bodies (413), encoded bodies (415), unknown expectations (417), large
// headers (431), other versions (505). A client that closes its sending side counts as gone.
// Pipelined requests are answered in order, one at a time.
//
// Start and Stop belong to one owner; address() is valid after Start.
class HttpServer {
 public:
  HttpServer(HttpServerOptions options, Registry& registry, HttpHandler handler);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();  // Stops without grace.

  // Binds, listens and starts the threads. InvalidArgument for a bad address, Unavailable when it
  // cannot be bound.
  absl::Status Start();

  // Stops accepting, lets open requests finish for at most `grace`, cuts the rest, joins.
  // Idempotent.
  void Stop(Duration grace);

  // Bound "host:port".
  const std::string& address() const;

  // Open connections.
  size_t connection_count() const;

 private:
  std::unique_ptr<internal::HttpServerImpl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_HTTP_HTTP_SERVER_H_
