#include "libs/http/testing/raw_client.h"

#include <array>
#include <cstdlib>
#include <utility>

#include <netdb.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libs/http/host_port.h"

namespace switchyard {
namespace {

constexpr int kWaitMs = 10'000;

std::string Lower(std::string text) {
  for (char& c : text) {
    c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  return text;
}

}  // namespace

std::string RawClient::Response::Header(std::string_view name) const {
  const std::string wanted = fmt::format("\r\n{}:", name);
  const size_t at = Lower(head).find(wanted);
  if (at == std::string::npos) {
    return {};
  }
  const size_t begin = head.find_first_not_of(' ', at + wanted.size());
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

RawClient::RawClient(const std::string& address) {
  const auto host_port = ParseHostPort(address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (!host_port.ok() ||
      getaddrinfo(host_port->host.c_str(), std::to_string(host_port->port).c_str(), &hints,
                  &found) != 0) {
    return;
  }
  fd_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ >= 0 && connect(fd_, found->ai_addr, found->ai_addrlen) != 0) {
    close(fd_);
    fd_ = -1;
  }
  freeaddrinfo(found);
}

RawClient::~RawClient() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

bool RawClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

RawClient::Response RawClient::Fetch(std::string_view method, std::string_view target,
                                     std::string_view body, std::string_view headers) {
  Send(fmt::format("{} {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{}\r\n{}", method, target,
                   body.size(), headers, body));
  return ReadResponse(method != "HEAD");
}

bool RawClient::ReadMore() {
  pollfd fd{.fd = fd_, .events = POLLIN, .revents = 0};
  if (fd_ < 0 || poll(&fd, 1, kWaitMs) != 1) {
    return false;
  }
  std::array<char, 65536> bytes;
  const ssize_t size = recv(fd_, bytes.data(), bytes.size(), 0);
  if (size <= 0) {
    return false;
  }
  in_.append(bytes.data(), static_cast<size_t>(size));
  return true;
}

RawClient::Response RawClient::ReadResponse(bool has_body) {
  Response response;
  size_t end = 0;
  while ((end = in_.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore()) {
      return response;
    }
  }
  response.head = in_.substr(0, end + 2);
  in_.erase(0, end + 4);
  response.status = std::atoi(response.head.c_str() + sizeof("HTTP/1.1"));
  if (!has_body) {
    response.complete = true;
  } else if (response.Header("transfer-encoding") == "chunked") {
    response.complete = ReadChunks(&response);
  } else if (const std::string length = response.Header("content-length"); !length.empty()) {
    const size_t size = std::strtoull(length.c_str(), nullptr, 10);
    while (in_.size() < size && ReadMore()) {
    }
    response.complete = in_.size() >= size;
    response.body = in_.substr(0, size);
    in_.erase(0, size);
  } else {
    response.body = ReadAll();
    response.complete = true;
  }
  return response;
}

bool RawClient::ReadChunks(Response* response) {
  while (true) {
    const size_t line = in_.find("\r\n");
    const size_t size = line == std::string::npos ? 0 : std::strtoull(in_.c_str(), nullptr, 16);
    if (line == std::string::npos || in_.size() < line + size + 4) {
      if (!ReadMore()) {
        return false;
      }
      continue;
    }
    response->body += in_.substr(line + 2, size);
    in_.erase(0, line + size + 4);
    if (size == 0) {
      return true;
    }
  }
}

bool RawClient::ReadUntil(std::string_view text) {
  size_t found = 0;
  while ((found = in_.find(text)) == std::string::npos) {
    if (!ReadMore()) {
      return false;
    }
  }
  in_.erase(0, found + text.size());
  return true;
}

std::string RawClient::ReadAll() {
  while (ReadMore()) {
  }
  return std::exchange(in_, {});
}

bool RawClient::AtEnd() {
  pollfd fd{.fd = fd_, .events = POLLIN, .revents = 0};
  char byte = 0;
  return in_.empty() && poll(&fd, 1, kWaitMs) == 1 && recv(fd_, &byte, 1, MSG_PEEK) <= 0;
}

void RawClient::CloseSending() { shutdown(fd_, SHUT_WR); }

void RawClient::Reset() {
  const linger hard{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  close(fd_);
  fd_ = -1;
}

}  // namespace switchyard
