#include "services/cli/sse_reader.h"

#include <string>
#include <string_view>
#include <utility>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include "libs/base/status.h"

namespace switchyard {
namespace {

// A line longer than this is not an event of ours.
constexpr size_t kLineBytesMax = 1 << 20;

}  // namespace

SseReader::SseReader(std::function<void(const std::string& delta)> on_delta)
    : on_delta_(std::move(on_delta)) {}

void SseReader::Feed(std::string_view piece) {
  buffer_.append(piece);
  size_t begin = 0;
  size_t end = 0;
  while ((end = buffer_.find('\n', begin)) != std::string::npos) {
    const std::string line = buffer_.substr(begin, end - begin);
    if (line.rfind("data: ", 0) == 0) {
      OnData(line.substr(6));
    }
    begin = end + 1;
  }
  buffer_.erase(0, begin);
  if (buffer_.size() > kLineBytesMax) {
    buffer_.clear();
    error_ = "an event of the stream is too long";
  }
}

absl::Status SseReader::Finish() const {
  if (!error_.empty()) {
    return Unavailable("{}", error_);
  }
  if (!done_) {
    return Unavailable("the stream broke off");
  }
  return absl::OkStatus();
}

void SseReader::OnData(const std::string& data) {
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  boost::json::error_code error;
  const boost::json::value event = boost::json::parse(data, error);
  if (error) {
    error_ = "an event of the stream is not json";
    return;
  }
  if (const auto* message = event.find_pointer("/error/message", error)) {
    error_ = message->is_string() ? std::string(message->get_string()) : "error";
    return;
  }
  const auto* content = event.find_pointer("/choices/0/delta/content", error);
  if (content != nullptr && content->is_string()) {
    on_delta_(std::string(content->get_string()));
  }
}

}  // namespace switchyard
