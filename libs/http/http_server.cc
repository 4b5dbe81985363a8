#include "libs/http/http_server.h"

#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "libs/base/log.h"
#include "libs/base/thread_name.h"
#include "libs/http/internal/exchange.h"
#include "libs/http/internal/growing_body.h"
#include "libs/http/internal/listener.h"
#include "libs/http/internal/request_head.h"
#include "libs/http/internal/server_context.h"

namespace switchyard {
namespace internal {
namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr size_t kReadBytes = 64u << 10;
constexpr size_t kPipelineBytesMax = 64u << 10;  // Read ahead of a response; then the client waits.
constexpr Duration kLingerTime = std::chrono::seconds(2);  // For the client to read a refusal.
constexpr Instant kNever = Instant::max();

class Connection;

// One thread and its connections. Shared with exchanges, whose writers may outlive the server: they
// can then still post, and nothing runs.
struct Worker {
  explicit Worker(ServerContext& context_in)
      : io(1), guard(asio::make_work_guard(io)), context(context_in) {}

  asio::io_context io;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> guard;
  ServerContext& context;
  std::unordered_set<Connection*> connections;  // Owner: this worker's thread, as all below.
  bool draining = false;
};

// One client's connection: reads a head, a body, hands the request out, sends what its Exchange
// has, and starts again. Owner: its worker's thread; kept alive by its own pending operations.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Worker> worker, int fd, std::string remote)
      : worker_(std::move(worker)),
        context_(worker_->context),
        remote_(std::move(remote)),
        socket_(worker_->io, remote_.starts_with('[') ? Tcp::v6() : Tcp::v4(), fd),
        timer_(worker_->io) {
    worker_->connections.insert(this);
    context_.metrics.connections.Add(1);
  }

  ~Connection() {
    worker_->connections.erase(this);
    context_.metrics.connections.Add(-1);
    context_.RemoveConnection();
  }

  void Start() {
    error_code ignored;
    socket_.non_blocking(true, ignored);
    SetDeadline(clock_.Now() + context_.options.idle_timeout);
    WaitReadable();
  }

  // No further request after the one in progress.
  void BeginDrain() {
    if (state_ == State::kHead && !head_started_) {
      Close();
    } else if (exchange_ != nullptr) {
      exchange_->ForbidKeepAlive();
    }
  }

  void Close() {
    if (state_ == State::kClosed) {
      return;
    }
    state_ = State::kClosed;
    error_code ignored;
    socket_.close(ignored);
    timer_.cancel();
    if (const auto exchange = std::exchange(exchange_, nullptr); exchange != nullptr) {
      exchange->MarkClosed();
    }
  }

  void OnWake() {
    if (state_ == State::kExchange) {
      Flush();
    }
  }

 private:
  enum class State { kHead, kBody, kExchange, kLinger, kClosed };

  void WaitReadable() {
    const bool read_ahead = state_ == State::kExchange && in_.size() >= kPipelineBytesMax;
    if (waiting_ || read_ahead || state_ == State::kClosed) {
      return;
    }
    waiting_ = true;
    socket_.async_wait(Tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
      self->waiting_ = false;
      if (!error) {
        self->OnReadable();
      }
    });
  }

  void OnReadable() {
    if (state_ == State::kClosed) {
      return;
    }
    std::array<char, kReadBytes> bytes;
    error_code error;
    const size_t size = socket_.read_some(asio::buffer(bytes), error);
    if (error == asio::error::would_block) {
      WaitReadable();
      return;
    }
    if (error) {
      Close();
      return;
    }
    if (state_ != State::kLinger) {
      in_.append(bytes.data(), size);
    }
    Advance();
  }

  void Advance() {
    while ((state_ == State::kHead && TakeHead()) || (state_ == State::kBody && TakeBody())) {
    }
    WaitReadable();
  }

  // True when a head was taken and the body is next.
  bool TakeHead() {
    in_.erase(0, in_.find_first_not_of("\r\n"));
    if (in_.empty()) {
      return false;
    }
    if (!head_started_) {
      head_started_ = true;
      scanned_ = 0;
      SetDeadline(clock_.Now() + context_.options.header_timeout);
    }
    const std::optional<size_t> end = FindHeadEnd(in_, scanned_);
    scanned_ = in_.size();
    if (!end.has_value()) {
      if (in_.size() > context_.options.header_bytes_max) {
        Refuse(431, "the headers are too large");
      }
      return false;
    }
    head_ = ParseRequestHead(std::string_view(in_).substr(0, *end),
                             {.header_bytes_max = context_.options.header_bytes_max,
                              .headers_max = context_.options.headers_max,
                              .body_bytes_max = context_.options.body_bytes_max});
    if (head_.error != 0) {
      Refuse(head_.error, head_.why);
      return false;
    }
    parser_.emplace();
    parser_->eager(true);
    parser_->header_limit(static_cast<uint32_t>(context_.options.header_bytes_max + 1));
    parser_->body_limit(context_.options.body_bytes_max);
    state_ = State::kBody;
    SetDeadline(clock_.Now() + context_.options.body_timeout);
    if (head_.expects_continue && in_.size() == *end) {
      Send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    return true;
  }

  // True when the request was handed out; the state is then no longer kBody.
  bool TakeBody() {
    error_code error;
    const size_t used = parser_->put(asio::buffer(in_), error);
    in_.erase(0, used);
    if (error == beast_http::error::body_limit) {
      Refuse(413, "the body is too large");
    } else if (error && error != beast_http::error::need_more) {
      Refuse(400, "the request is malformed");
    } else if (parser_->is_done()) {
      HandOut();
      return true;
    } else if (in_.size() > context_.options.header_bytes_max) {
      Refuse(400, "a chunk's header is too large");
    }
    return false;
  }

  void HandOut() {
    HttpRequest request = std::move(head_.request);
    request.body = std::move(parser_->get().body());
    request.remote = remote_;
    parser_.reset();
    if (in_.empty()) {
      in_.shrink_to_fit();
    }
    state_ = State::kExchange;
    complete_ = false;
    SetDeadline(kNever);
    exchange_ = std::make_shared<Exchange>(
        ExchangeOptions{.http10 = head_.http10,
                        .head_only = request.method == "HEAD",
                        .keep_alive = head_.keep_alive && !worker_->draining,
                        .buffer_bytes_max = context_.options.stream_buffer_bytes_max},
        [worker = worker_, weak = weak_from_this()] {
          asio::post(worker->io, [weak] {
            if (const auto self = weak.lock(); self != nullptr) {
              self->OnWake();
            }
          });
        });
    context_.handler(std::move(request), ResponseWriter(exchange_));
  }

  void Flush() {
    if (writing_) {
      return;
    }
    Exchange::Output output = exchange_->Take();
    complete_ = output.complete;
    keep_alive_ = output.keep_alive;
    if (output.streaming && !streaming_) {
      streaming_ = true;
      filler_ = exchange_->filler();
    }
    if (!output.bytes.empty()) {
      SetDeadline(clock_.Now() + context_.options.write_timeout);
      Send(std::move(output.bytes));
    } else if (complete_) {
      EndExchange();
    } else {
      const bool fills = streaming_ && !filler_.bytes.empty();
      SetDeadline(fills ? clock_.Now() + filler_.after : kNever);
    }
  }

  void Send(std::string bytes) {
    writing_ = true;
    out_ = std::move(bytes);
    asio::async_write(socket_, asio::buffer(out_),
                      [self = shared_from_this()](error_code error, size_t) {
                        self->writing_ = false;
                        self->OnSent(error);
                      });
  }

  void OnSent(error_code error) {
    if (state_ == State::kClosed) {
      return;
    }
    if (error) {
      Close();
    } else if (state_ == State::kLinger) {
      BeginLinger();
    } else if (state_ == State::kExchange && complete_) {
      EndExchange();
    } else if (state_ == State::kExchange) {
      Flush();
    }
  }

  void EndExchange() {
    exchange_.reset();
    streaming_ = false;
    if (keep_alive_ && !worker_->draining) {
      state_ = State::kHead;
      head_started_ = false;
      SetDeadline(clock_.Now() + context_.options.idle_timeout);
      Advance();
    } else if (in_.empty()) {
      Close();
    } else {
      BeginLinger();
    }
  }

  // Answers by itself and ends the connection: what follows in it cannot be trusted.
  void Refuse(int status, std::string_view why) {
    context_.metrics.CountRefusal(status);
    parser_.reset();
    in_.clear();
    state_ = State::kLinger;
    SetDeadline(clock_.Now() + context_.options.write_timeout);
    if (writing_) {
      return;  // "100 Continue" is on its way; the connection ends after it.
    }
    Exchange refusal({.keep_alive = false}, [] {});
    refusal.Respond(HttpResponse::Json(
        status, fmt::format("{{\"error\":{{\"message\":\"{}\",\"type\":\"invalid_request_error\","
                            "\"param\":null,\"code\":{}}}}}",
                            why, status == 413 ? "\"request_too_large\"" : "null")));
    Send(refusal.Take().bytes);
  }

  // Closing with unread bytes would reset the connection and lose the answer: read them first.
  void BeginLinger() {
    state_ = State::kLinger;
    error_code ignored;
    socket_.shutdown(Tcp::socket::shutdown_send, ignored);
    SetDeadline(clock_.Now() + kLingerTime);
    WaitReadable();
  }

  void OnDeadline() {
    if (state_ == State::kHead && head_started_) {
      Refuse(408, "the headers took too long");
    } else if (state_ == State::kBody) {
      Refuse(408, "the body took too long");
    } else if (state_ == State::kExchange && !writing_) {
      static_cast<void>(exchange_->Write(filler_.bytes));
      SetDeadline(clock_.Now() + filler_.after);
    } else {
      Close();
    }
  }

  // One lazy timer: a later deadline only moves `deadline_`; the timer finds out when it fires.
  void SetDeadline(Instant deadline) {
    deadline_ = deadline;
    if (deadline_ < armed_until_) {
      Arm();
    }
  }

  void Arm() {
    armed_until_ = deadline_;
    timer_.expires_at(deadline_);
    timer_.async_wait([self = shared_from_this()](error_code error) {
      if (!error && self->state_ != State::kClosed) {
        self->OnTimer();
      }
    });
  }

  void OnTimer() {
    armed_until_ = kNever;
    if (deadline_ <= clock_.Now()) {
      deadline_ = kNever;
      OnDeadline();
    } else if (deadline_ != kNever) {
      Arm();
    }
  }

  const std::shared_ptr<Worker> worker_;
  ServerContext& context_;
  const SteadyClock clock_;
  const std::string remote_;
  Tcp::socket socket_;
  asio::steady_timer timer_;
  Instant deadline_ = kNever;
  Instant armed_until_ = kNever;
  State state_ = State::kHead;
  bool waiting_ = false;  // For the socket to become readable.
  bool writing_ = false;  // out_ is being sent.
  bool head_started_ = false;
  bool complete_ = false;  // Nothing comes after out_.
  bool keep_alive_ = false;
  bool streaming_ = false;
  std::string in_;
  std::string out_;
  size_t scanned_ = 0;  // Bytes of in_ without the end of a head.
  RequestHead head_;
  std::optional<beast_http::request_parser<GrowingBody>> parser_;
  StreamFiller filler_;
  std::shared_ptr<Exchange> exchange_;
};

constexpr std::string_view kTooManyConnections =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n"
    "Retry-After: 1\r\nConnection: close\r\n\r\ntoo many connections\n";

}  // namespace

class HttpServerImpl {
 public:
  HttpServerImpl(HttpServerOptions options, Registry& registry, HttpHandler handler)
      : context_(std::move(options), registry, std::move(handler)),
        listener_([this](int fd, std::string remote) { OnSocket(fd, std::move(remote)); }) {}

  absl::Status Start() {
    for (int i = 0; i < context_.options.threads; ++i) {
      workers_.push_back(std::make_shared<Worker>(context_));
    }
    if (absl::Status status =
            listener_.Start(context_.options.address, context_.options.name + "-accept");
        !status.ok()) {
      workers_.clear();
      return status;
    }
    for (size_t i = 0; i < workers_.size(); ++i) {
      threads_.emplace_back([worker = workers_[i], name = fmt::format("http-{}", i)] {
        SetThreadName(name);
        worker->io.run();
      });
    }
    return absl::OkStatus();
  }

  void Stop(Duration grace) {
    if (threads_.empty()) {
      return;
    }
    listener_.Stop();
    ForEachConnection([](Connection& connection) { connection.BeginDrain(); });
    {
      absl::MutexLock lock(&context_.mutex);
      context_.mutex.AwaitWithTimeout(absl::Condition(&HasNoConnections, &context_),
                                      absl::FromChrono(grace));
    }
    ForEachConnection([](Connection& connection) { connection.Close(); });
    for (const auto& worker : workers_) {
      asio::post(worker->io, [worker] { worker->guard.reset(); });
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
    workers_.clear();
  }

  const std::string& address() const { return listener_.address(); }

  size_t connection_count() {
    absl::MutexLock lock(&context_.mutex);
    return context_.connection_count;
  }

 private:
  static bool HasNoConnections(ServerContext* context)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(context->mutex) {
    return context->connection_count == 0;
  }

  // On the listener's thread; connections are dealt out in turn.
  void OnSocket(int fd, std::string remote) {
    if (!context_.AddConnection()) {
      context_.metrics.connections_rejected.Add();
      send(fd, kTooManyConnections.data(), kTooManyConnections.size(), MSG_NOSIGNAL);
      close(fd);
      return;
    }
    const std::shared_ptr<Worker>& worker = workers_[next_worker_++ % workers_.size()];
    asio::post(worker->io, [worker, fd, remote = std::move(remote)] {
      std::make_shared<Connection>(worker, fd, remote)->Start();
    });
  }

  // Runs `act` on each worker's thread, and marks the worker as draining.
  template <typename Act>
  void ForEachConnection(Act act) {
    for (const auto& worker : workers_) {
      asio::post(worker->io, [worker, act] {
        worker->draining = true;
        const std::vector<Connection*> connections(worker->connections.begin(),
                                                   worker->connections.end());
        for (Connection* connection : connections) {
          const std::shared_ptr<Connection> alive = connection->weak_from_this().lock();
          if (alive != nullptr) {
            act(*alive);
          }
        }
      });
    }
  }

  ServerContext context_;
  Listener listener_;
  std::vector<std::shared_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  size_t next_worker_ = 0;
};

}  // namespace internal

ResponseWriter::ResponseWriter(std::shared_ptr<internal::Exchange> exchange)
    : exchange_(std::move(exchange)) {}

ResponseWriter::ResponseWriter(ResponseWriter&&) noexcept = default;

ResponseWriter& ResponseWriter::operator=(ResponseWriter&& other) noexcept {
  if (this != &other) {
    if (exchange_ != nullptr) {
      exchange_->Abandon();
    }
    exchange_ = std::move(other.exchange_);
  }
  return *this;
}

ResponseWriter::~ResponseWriter() {
  if (exchange_ != nullptr) {
    exchange_->Abandon();
  }
}

void ResponseWriter::Respond(HttpResponse response) { exchange_->Respond(std::move(response)); }

void ResponseWriter::StartStream(HttpResponse head, StreamFiller filler) {
  exchange_->StartStream(std::move(head), std::move(filler));
}

bool ResponseWriter::Write(std::string_view piece) { return exchange_->Write(piece); }

void ResponseWriter::Finish() { exchange_->Finish(); }

void ResponseWriter::Abort() { exchange_->Abort(); }

void ResponseWriter::OnClosed(std::function<void()> callback) {
  exchange_->OnClosed(std::move(callback));
}

bool ResponseWriter::closed() const { return exchange_->closed(); }

HttpServer::HttpServer(HttpServerOptions options, Registry& registry, HttpHandler handler)
    : impl_(std::make_unique<internal::HttpServerImpl>(std::move(options), registry,
                                                       std::move(handler))) {}

HttpServer::~HttpServer() { Stop(Duration::zero()); }

absl::Status HttpServer::Start() { return impl_->Start(); }

void HttpServer::Stop(Duration grace) { impl_->Stop(grace); }

const std::string& HttpServer::address() const { return impl_->address(); }

size_t HttpServer::connection_count() const { return impl_->connection_count(); }

}  // namespace switchyard
