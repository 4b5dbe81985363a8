#include "libs/http/internal/exchange.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include <spdlog/fmt/fmt.h>

namespace switchyard::internal {
namespace {

// IMF-fixdate of RFC 9110, such as "Sun, 06 Nov 1994 08:49:37 GMT".
std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  const size_t size = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return std::string(text, size);
}

// A header's value must not be able to end its line.
std::string OneLine(std::string value) {
  std::erase_if(value, [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
  return value;
}

}  // namespace

Exchange::Exchange(ExchangeOptions options, std::function<void()> wake)
    : options_(options), wake_(std::move(wake)), keep_alive_(options.keep_alive) {}

void Exchange::AppendHead(const HttpResponse& head, bool streams) {
  if (streams && options_.http10) {
    keep_alive_ = false;
  }
  pending_ += fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", head.status, HttpReason(head.status),
                          HttpDate());
  for (const auto& [name, value] : head.headers) {
    pending_ += fmt::format("{}: {}\r\n", OneLine(name), OneLine(value));
  }
  if (!streams && head.status != 204) {
    pending_ += fmt::format("Content-Length: {}\r\n", head.body.size());
  } else if (streams && !options_.http10) {
    pending_ += "Transfer-Encoding: chunked\r\n";
  }
  if (!keep_alive_) {
    pending_ += "Connection: close\r\n";
  } else if (options_.http10) {
    pending_ += "Connection: keep-alive\r\n";
  }
  pending_ += "\r\n";
}

void Exchange::AppendPiece(std::string_view piece) {
  if (piece.empty() || options_.head_only) {
    return;
  }
  if (options_.http10) {
    pending_ += piece;
  } else {
    pending_ += fmt::format("{:x}\r\n", piece.size());
    pending_ += piece;
    pending_ += "\r\n";
  }
}

bool Exchange::NeedsWake() {
  const bool needs = !woken_ && !gone_;
  woken_ = true;
  return needs;
}

void Exchange::Respond(HttpResponse response) {
  std::function<void()> dropped;  // Destroyed without the lock: it may own the writer.
  {
    absl::MutexLock lock(&mutex_);
    if (gone_ || state_ != State::kUnanswered) {
      return;
    }
    AppendHead(response, false);
    if (!options_.head_only && response.status != 204) {
      pending_ += response.body;
    }
    state_ = State::kComplete;
    dropped.swap(on_closed_);
    if (!NeedsWake()) {
      return;
    }
  }
  wake_();
}

void Exchange::StartStream(HttpResponse head, StreamFiller filler) {
  {
    absl::MutexLock lock(&mutex_);
    if (gone_ || state_ != State::kUnanswered) {
      return;
    }
    AppendHead(head, true);
    AppendPiece(head.body);
    state_ = State::kStreaming;
    filler_ = std::move(filler);
    if (!NeedsWake()) {
      return;
    }
  }
  wake_();
}

bool Exchange::Write(std::string_view piece) {
  {
    absl::MutexLock lock(&mutex_);
    if (gone_ || state_ != State::kStreaming ||
        pending_.size() >= options_.buffer_bytes_max + largest_piece_) {
      return false;
    }
    largest_piece_ = std::max(largest_piece_, piece.size());
    AppendPiece(piece);
    if (!NeedsWake()) {
      return true;
    }
  }
  wake_();
  return true;
}

void Exchange::End(bool in_order) {
  if (in_order && !options_.http10 && !options_.head_only) {
    pending_ += "0\r\n\r\n";
  }
  keep_alive_ = keep_alive_ && in_order;
  state_ = State::kComplete;
}

void Exchange::Finish() {
  std::function<void()> dropped;
  {
    absl::MutexLock lock(&mutex_);
    if (gone_ || state_ != State::kStreaming) {
      return;
    }
    End(true);
    dropped.swap(on_closed_);
    if (!NeedsWake()) {
      return;
    }
  }
  wake_();
}

void Exchange::Abort() {
  std::function<void()> dropped;
  {
    absl::MutexLock lock(&mutex_);
    if (gone_ || state_ == State::kComplete) {
      return;
    }
    End(false);
    dropped.swap(on_closed_);
    if (!NeedsWake()) {
      return;
    }
  }
  wake_();
}

void Exchange::Abandon() {
  bool unanswered = false;
  {
    absl::MutexLock lock(&mutex_);
    unanswered = state_ == State::kUnanswered;
  }
  if (unanswered) {
    Respond(HttpResponse::Text(500, "internal error\n"));
  } else {
    Abort();
  }
}

void Exchange::OnClosed(std::function<void()> callback) {
  {
    absl::MutexLock lock(&mutex_);
    if (!gone_) {
      if (state_ != State::kComplete) {
        on_closed_.swap(callback);
      }
      return;
    }
  }
  callback();
}

bool Exchange::closed() const {
  absl::MutexLock lock(&mutex_);
  return gone_ || state_ == State::kComplete;
}

Exchange::Output Exchange::Take() {
  absl::MutexLock lock(&mutex_);
  woken_ = false;
  Output output{.bytes = std::move(pending_),
                .complete = state_ == State::kComplete,
                .keep_alive = keep_alive_,
                .streaming = state_ == State::kStreaming};
  pending_.clear();
  return output;
}

StreamFiller Exchange::filler() const {
  absl::MutexLock lock(&mutex_);
  return filler_;
}

void Exchange::ForbidKeepAlive() {
  absl::MutexLock lock(&mutex_);
  keep_alive_ = false;
}

void Exchange::MarkClosed() {
  std::function<void()> callback;
  {
    absl::MutexLock lock(&mutex_);
    if (gone_) {
      return;
    }
    gone_ = true;
    pending_.clear();
    callback.swap(on_closed_);
  }
  if (callback) {
    callback();
  }
}

}  // namespace switchyard::internal
