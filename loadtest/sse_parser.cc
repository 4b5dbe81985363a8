#include "loadtest/sse_parser.h"

namespace switchyard {
namespace {

constexpr size_t kEventBytesMax = 4 << 20;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

void SseParser::Feed(std::string_view bytes, EventSink sink) {
  while (!bytes.empty() && !malformed_) {
    if (skip_newline_) {
      skip_newline_ = false;
      if (bytes[0] == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + piece.size() + data_.size() > kEventBytesMax) {
      malformed_ = true;
      return;
    }
    if (end == std::string_view::npos) {
      line_.append(piece);
      return;
    }
    skip_newline_ = bytes[end] == '\r';
    if (line_.empty()) {
      OnLine(piece, sink);
    } else {
      line_.append(piece);
      OnLine(line_, sink);
      line_.clear();
    }
    bytes.remove_prefix(end + 1);
  }
}

void SseParser::OnLine(std::string_view line, EventSink sink) {
  if (at_start_ && line.starts_with(kByteOrderMark)) {
    line.remove_prefix(kByteOrderMark.size());
  }
  at_start_ = false;
  if (line.empty()) {
    if (has_data_) {
      sink(field_, data_);
    }
    data_.clear();
    has_data_ = false;
    field_ = Field::kData;
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  if (name == "data" || name == "error") {
    std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
    if (value.starts_with(' ')) {
      value.remove_prefix(1);
    }
    if (has_data_) {
      data_.push_back('\n');
    }
    data_.append(value);
    has_data_ = true;
    field_ = name == "error" ? Field::kError : field_;
    return;
  }
  malformed_ = !(name.empty() || name == "event" || name == "id" || name == "retry");
}

}  // namespace switchyard
