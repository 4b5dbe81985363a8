#include "loadtest/response_reader.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <simdjson.h>
#include <spdlog/fmt/fmt.h>

namespace switchyard {
namespace {

using simdjson::dom::element;

constexpr size_t kErrorBodyBytesMax = 64 << 10;
constexpr size_t kCodeBytesMax = 64;

bool HasText(const element& object, const char* name) {
  std::string_view text;
  return object[name].get(text) == simdjson::SUCCESS && !text.empty();
}

// The choice of a text completion has `text`, that of a chat `delta`.
bool HasContent(const element& choice) {
  if (HasText(choice, "text")) {
    return true;
  }
  element delta;
  if (choice["delta"].get(delta) != simdjson::SUCCESS) {
    return false;
  }
  simdjson::dom::array calls;
  return HasText(delta, "content") || HasText(delta, "reasoning_content") ||
         HasText(delta, "reasoning") ||
         (delta["tool_calls"].get(calls) == simdjson::SUCCESS && calls.size() > 0);
}

uint32_t TokenCount(const element& object, std::string_view pointer) {
  uint64_t count = 0;
  if (object.at_pointer(pointer).get(count) != simdjson::SUCCESS) {
    return 0;
  }
  return static_cast<uint32_t>(std::min<uint64_t>(count, UINT32_MAX));
}

// A code is a word that a program wrote; anything else may quote a prompt and is not kept.
std::string CleanCode(std::string_view code) {
  const bool is_word = code.size() <= kCodeBytesMax && !code.empty() &&
                       std::all_of(code.begin(), code.end(), [](char c) {
                         return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
                       });
  return is_word ? std::string(code) : std::string();
}

std::string ErrorCode(const element& root) {
  element error = root;
  if (root["error"].get(error) != simdjson::SUCCESS) {
    error = root;  // "error: {…}" lines and flat error objects.
  }
  for (const char* name : {"code", "type"}) {
    std::string_view text;
    int64_t number = 0;
    if (error[name].get(text) == simdjson::SUCCESS && !CleanCode(text).empty()) {
      return CleanCode(text);
    }
    if (error[name].get(number) == simdjson::SUCCESS) {
      return fmt::format("{}", number);
    }
  }
  return "";
}

bool IsError(const element& root) {
  element error;
  std::string_view object;
  return (root["error"].get(error) == simdjson::SUCCESS && !error.is_null()) ||
         (root["object"].get(object) == simdjson::SUCCESS && object == "error");
}

}  // namespace

struct EventParser::Impl {
  simdjson::dom::parser parser;
};

EventParser::EventParser() : impl_(std::make_unique<Impl>()) {}

EventParser::~EventParser() = default;

EventParser::Event EventParser::Parse(std::string_view json) {
  Event event;
  element root;
  if (impl_->parser.parse(json.data(), json.size()).get(root) != simdjson::SUCCESS ||
      !root.is_object()) {
    return event;
  }
  event.valid = true;
  if (IsError(root)) {
    event.is_error = true;
    event.error_code = ErrorCode(root);
    return event;
  }
  simdjson::dom::array choices;
  const bool has_choices = root["choices"].get(choices) == simdjson::SUCCESS;
  if (has_choices) {
    for (const element choice : choices) {
      event.has_choice = true;
      event.has_content = event.has_content || HasContent(choice);
    }
  }
  element usage;
  if (root["usage"].get(usage) == simdjson::SUCCESS && usage.is_object()) {
    event.has_usage = true;
    event.prompt_tokens = TokenCount(usage, "/prompt_tokens");
    event.completion_tokens = TokenCount(usage, "/completion_tokens");
    event.cached_tokens = TokenCount(usage, "/prompt_tokens_details/cached_tokens");
  }
  event.valid = has_choices || event.has_usage;
  return event;
}

ResponseReader::ResponseReader(EventParser& parser, RequestRecord& record)
    : parser_(parser), record_(record) {}

uint32_t ResponseReader::Feed(std::string_view bytes, double now_s) {
  const uint32_t before = record_.chunks;
  const size_t used = http_.Feed(bytes, [&](std::string_view piece) { OnBody(piece, now_s); });
  excess_ = excess_ || used < bytes.size();
  return record_.chunks - before;
}

void ResponseReader::OnClose() { http_.OnClose(); }

void ResponseReader::OnBody(std::string_view bytes, double now_s) {
  if (http_.status() != 200 || !http_.is_event_stream()) {
    wrong_type_ = http_.status() == 200;
    error_body_.append(bytes.substr(0, kErrorBodyBytesMax - error_body_.size()));
    return;
  }
  if (saw_done_ || bad_event_ || saw_error_) {
    return;
  }
  sse_.Feed(bytes,
            [&](SseParser::Field field, std::string_view data) { OnEvent(field, data, now_s); });
  bad_event_ = bad_event_ || (sse_.malformed() && !saw_done_);
}

void ResponseReader::OnEvent(SseParser::Field field, std::string_view data, double now_s) {
  if (saw_done_ || bad_event_ || saw_error_) {
    return;
  }
  if (data == "[DONE]") {
    saw_done_ = true;
    done_s_ = now_s;
    return;
  }
  EventParser::Event event = parser_.Parse(data);
  if (event.is_error || field == SseParser::Field::kError) {
    saw_error_ = true;
    api_code_ = std::move(event.error_code);
    return;
  }
  if (!event.valid) {
    bad_event_ = true;
    return;
  }
  if (event.has_choice && first_choice_s_ < 0.0) {
    first_choice_s_ = now_s;
  }
  if (event.has_content) {
    OnContent(now_s);
  }
  if (event.has_usage) {
    record_.has_usage = true;
    record_.prompt_tokens = event.prompt_tokens;
    record_.output_tokens = event.completion_tokens;
    record_.cached_tokens = event.cached_tokens;
  }
}

void ResponseReader::OnContent(double now_s) {
  if (record_.chunks++ == 0) {
    record_.first_token_s = now_s;
    // One allocation for all gaps; what is asked for is bounded by the options.
    record_.gaps_ms.reserve(std::min<size_t>(record_.output_tokens_asked, 4096));
  } else {
    record_.gaps_ms.push_back(static_cast<float>((now_s - record_.last_token_s) * 1e3));
  }
  record_.last_token_s = now_s;
}

bool ResponseReader::done() const {
  return http_.done() || http_.malformed() || bad_event_ || saw_error_;
}

Outcome ResponseReader::Judge() const {
  if (saw_error_) {
    return Outcome::kErrorEvent;
  }
  if (bad_event_) {
    return Outcome::kMalformedSse;
  }
  if (saw_done_) {
    return Outcome::kCompleted;
  }
  if (http_.malformed() || wrong_type_) {
    return Outcome::kMalformedHttp;
  }
  if (!http_.has_head()) {
    return Outcome::kReset;
  }
  if (http_.status() != 200) {
    return Outcome::kHttpError;
  }
  return http_.is_event_stream() ? Outcome::kTruncated : Outcome::kMalformedHttp;
}

void ResponseReader::Close() {
  record_.http_status = http_.has_head() ? http_.status() : 0;
  if (!error_body_.empty() && record_.http_status != 200) {
    api_code_ = parser_.Parse(error_body_).error_code;
  }
  record_.api_code = std::move(api_code_);
  if (!record_.has_usage) {
    record_.prompt_tokens = record_.prompt_tokens_asked;
    record_.output_tokens = record_.chunks;
  }
  // A stream whose tokens all spelled nothing still had a first one.
  if (record_.chunks == 0 && first_choice_s_ >= 0.0) {
    record_.first_token_s = first_choice_s_;
    record_.last_token_s = first_choice_s_;
  }
}

}  // namespace switchyard
