#include "loadtest/http_response_parser.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace switchyard {
namespace {

constexpr size_t kHeadBytesMax = 64 << 10;
constexpr size_t kLineBytesMax = 16 << 10;

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return absl::EqualsIgnoreCase(ToAbsl(a), ToAbsl(b));
}

std::string_view Trim(std::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(ToAbsl(text));
  return {trimmed.data(), trimmed.size()};
}

// False unless all of `text` is one number of that base.
bool ReadNumber(std::string_view text, int base, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

size_t HttpResponseParser::Feed(std::string_view bytes, BodySink sink) {
  started_ = started_ || !bytes.empty();
  size_t used = 0;
  while (used < bytes.size() && state_ != State::kDone && state_ != State::kMalformed) {
    const std::string_view rest = bytes.substr(used);
    const bool in_body = state_ == State::kFixedBody || state_ == State::kBodyUntilClose ||
                         state_ == State::kChunkData;
    used += in_body ? FeedBody(rest, sink) : FeedLine(rest);
  }
  return used;
}

void HttpResponseParser::OnClose() {
  if (state_ == State::kBodyUntilClose) {
    state_ = State::kDone;
  }
}

size_t HttpResponseParser::FeedBody(std::string_view bytes, BodySink sink) {
  if (state_ == State::kBodyUntilClose) {
    sink(bytes);
    return bytes.size();
  }
  const size_t take = static_cast<size_t>(std::min<uint64_t>(body_left_, bytes.size()));
  body_left_ -= take;
  if (body_left_ == 0) {
    state_ = state_ == State::kChunkData ? State::kChunkEnd : State::kDone;
  }
  sink(bytes.substr(0, take));
  return take;
}

size_t HttpResponseParser::FeedLine(std::string_view bytes) {
  const size_t newline = bytes.find('\n');
  const size_t take = newline == std::string_view::npos ? bytes.size() : newline + 1;
  if (line_.size() + take > kLineBytesMax) {
    state_ = State::kMalformed;
    return take;
  }
  if (newline == std::string_view::npos) {
    line_.append(bytes);
    return take;
  }
  std::string_view line = bytes.substr(0, newline);
  if (!line_.empty()) {
    line_.append(line);
    line = line_;
  }
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  OnLine(line);
  line_.clear();
  return take;
}

void HttpResponseParser::OnLine(std::string_view line) {
  switch (state_) {
    case State::kStatusLine:
      OnStatusLine(line);
      return;
    case State::kHeaders:
      OnHeader(line);
      return;
    case State::kChunkSize:
      OnChunkSize(line);
      return;
    case State::kChunkEnd:
      state_ = line.empty() ? State::kChunkSize : State::kMalformed;
      return;
    case State::kTrailers:
      head_bytes_ += line.size() + 2;
      if (line.empty()) {
        state_ = State::kDone;
      } else if (head_bytes_ > kHeadBytesMax) {
        state_ = State::kMalformed;
      }
      return;
    default:
      return;
  }
}

void HttpResponseParser::OnStatusLine(std::string_view line) {
  uint64_t code = 0;
  if (line.size() < 12 || !line.starts_with("HTTP/1.") || line[8] != ' ' ||
      !ReadNumber(line.substr(9, 3), 10, &code) || code < 100 ||
      (line.size() > 12 && line[12] != ' ')) {
    state_ = State::kMalformed;
    return;
  }
  status_ = static_cast<int>(code);
  keep_alive_ = line[7] != '0';
  state_ = State::kHeaders;
}

void HttpResponseParser::OnHeader(std::string_view line) {
  head_bytes_ += line.size() + 2;
  if (line.empty()) {
    OnHeadEnd();
    return;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0 || head_bytes_ > kHeadBytesMax) {
    state_ = State::kMalformed;
    return;
  }
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trim(line.substr(colon + 1));
  if (EqualsIgnoreCase(name, "transfer-encoding")) {
    chunked_ = EqualsIgnoreCase(value, "chunked");
    if (!chunked_) {
      state_ = State::kMalformed;  // We offered no other coding.
    }
  } else if (EqualsIgnoreCase(name, "content-length")) {
    has_length_ = ReadNumber(value, 10, &body_left_);
    if (!has_length_) {
      state_ = State::kMalformed;
    }
  } else if (EqualsIgnoreCase(name, "connection")) {
    keep_alive_ =
        EqualsIgnoreCase(value, "keep-alive") || (keep_alive_ && !EqualsIgnoreCase(value, "close"));
  } else if (EqualsIgnoreCase(name, "content-type")) {
    is_event_stream_ =
        EqualsIgnoreCase(Trim(value.substr(0, value.find(';'))), "text/event-stream");
  }
}

void HttpResponseParser::OnHeadEnd() {
  if (status_ < 200) {  // An interim response: the real one follows.
    *this = HttpResponseParser();
    started_ = true;
  } else if (status_ == 204 || status_ == 304) {
    state_ = State::kDone;
  } else if (chunked_) {
    state_ = State::kChunkSize;
  } else if (has_length_) {
    state_ = body_left_ == 0 ? State::kDone : State::kFixedBody;
  } else {
    until_close_ = true;
    state_ = State::kBodyUntilClose;
  }
}

void HttpResponseParser::OnChunkSize(std::string_view line) {
  const std::string_view digits = Trim(line.substr(0, line.find(';')));
  if (digits.size() > 15 || !ReadNumber(digits, 16, &body_left_)) {
    state_ = State::kMalformed;
    return;
  }
  head_bytes_ = 0;
  state_ = body_left_ == 0 ? State::kTrailers : State::kChunkData;
}

}  // namespace switchyard
