#include "loadtest/testing/scripted_server.h"

#include <charconv>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>

#include "libs/base/check.h"

namespace switchyard {

bool ScriptedServer::Connection::ReadMore() {
  char buffer[16384];
  const ssize_t got = ::recv(fd_, buffer, sizeof(buffer), 0);
  if (got > 0) {
    in_.append(buffer, static_cast<size_t>(got));
  }
  return got > 0;
}

bool ScriptedServer::Connection::ReadHead() {
  size_t end = 0;
  while ((end = in_.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore()) {
      return false;
    }
  }
  head_ = in_.substr(0, end + 4);
  in_.erase(0, end + 4);
  return true;
}

bool ScriptedServer::Connection::ReadRequest() {
  if (!ReadHead()) {
    return false;
  }
  constexpr std::string_view kName = "Content-Length: ";
  size_t length = 0;
  const size_t at = head_.find(kName);
  if (at != std::string::npos) {
    std::from_chars(head_.data() + at + kName.size(), head_.data() + head_.size(), length);
  }
  while (in_.size() < length) {
    if (!ReadMore()) {
      return false;
    }
  }
  body_ = in_.substr(0, length);
  in_.erase(0, length);
  return true;
}

bool ScriptedServer::Connection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool ScriptedServer::Connection::SendByteByByte(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (!Send(bytes.substr(i, 1))) {
      return false;
    }
  }
  return true;
}

void ScriptedServer::Connection::Drain() {
  while (ReadMore()) {
    in_.clear();
  }
}

void ScriptedServer::Connection::HoldWithoutReading() {
  pollfd waiting{.fd = fd_, .events = 0, .revents = 0};
  ::poll(&waiting, 1, -1);
}

void ScriptedServer::Connection::ResetOnClose() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

ScriptedServer::ScriptedServer(Script script)
    : script_(std::move(script)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  SY_CHECK(::bind(listener_.get(), generic, size) == 0);
  SY_CHECK(::listen(listener_.get(), 1024) == 0);
  SY_CHECK(::getsockname(listener_.get(), generic, &size) == 0);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

void ScriptedServer::Accept() {
  while (true) {
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    const std::lock_guard lock(mutex_);
    if (fd < 0 || stopping_) {
      const Descriptor unwanted(fd);
      return;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    const size_t index = open_.size();
    open_.push_back(fd);
    threads_.emplace_back([this, fd, index] {
      Connection connection(fd);
      script_(connection);
      const std::lock_guard closing(mutex_);
      open_[index] = -1;
      const Descriptor close(fd);
    });
  }
}

ScriptedServer::~ScriptedServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const int fd : open_) {
      ::shutdown(fd, SHUT_RDWR);  // Of -1 it does nothing.
    }
  }
  ::shutdown(listener_.get(), SHUT_RDWR);
  acceptor_.join();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

std::string ScriptedServer::url() const { return fmt::format("http://127.0.0.1:{}", port_); }

std::string StreamHead() {
  return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
         "Transfer-Encoding: chunked\r\n\r\n";
}

std::string HttpChunk(std::string_view bytes) {
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

std::string TokenEvent() { return "data: {\"choices\":[{\"index\":0,\"text\":\"x\"}]}\n\n"; }

std::string UsageEvent(int prompt_tokens, int completion_tokens) {
  return fmt::format(
      "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{}}}}}\n\n",
      prompt_tokens, completion_tokens);
}

std::string WholeStream(int prompt_tokens, int tokens) {
  std::string text = StreamHead();
  for (int i = 0; i < tokens; ++i) {
    text += HttpChunk(TokenEvent());
  }
  text += HttpChunk(UsageEvent(prompt_tokens, tokens));
  text += HttpChunk(kDoneEvent);
  text += kLastHttpChunk;
  return text;
}

}  // namespace switchyard
