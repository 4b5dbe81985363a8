#ifndef SWITCHYARD_LOADTEST_RESPONSE_READER_H_
#define SWITCHYARD_LOADTEST_RESPONSE_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "loadtest/http_response_parser.h"
#include "loadtest/request_record.h"
#include "loadtest/sse_parser.h"

namespace switchyard {

// EventParser takes one event of a completion stream apart. One owner; keeps its buffers, so that
// all streams of a generator share one.
class EventParser {
 public:
  struct Event {
    bool valid = false;
    bool has_choice = false;
    bool has_content = false;  // Text, reasoning or a tool call, not empty.
    bool is_error = false;
    bool has_usage = false;
    uint32_t prompt_tokens = 0;
    uint32_t completion_tokens = 0;
    uint32_t cached_tokens = 0;
    std::string error_code;
  };

  EventParser();
  EventParser(const EventParser&) = delete;
  EventParser& operator=(const EventParser&) = delete;
  ~EventParser();

  Event Parse(std::string_view json);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// ResponseReader turns the bytes of one response into a RequestRecord: HTTP, events, tokens and
// what went wrong. It reads no clock and no socket.
//
// One owner; `parser` and `record` outlive it.
class ResponseReader {
 public:
  ResponseReader(EventParser& parser, RequestRecord& record);

  // `now_s` is on the clock of the record. Returns how many chunks with content came.
  uint32_t Feed(std::string_view bytes, double now_s);
  void OnClose();

  // True when nothing more is wanted from the connection: the response is whole, or cannot be.
  bool done() const;

  // How the request ended, given that no more comes. kCompleted once [DONE] was seen.
  Outcome Judge() const;

  bool finished_stream() const { return saw_done_; }

  double done_s() const { return done_s_; }

  // Writes status, token counts and error code into the record.
  void Close();

  bool started() const { return http_.started(); }

  // True if the connection may be used again.
  bool reusable() const { return http_.done() && http_.keep_alive() && !excess_; }

 private:
  void OnBody(std::string_view bytes, double now_s);
  void OnEvent(SseParser::Field field, std::string_view data, double now_s);
  void OnContent(double now_s);

  EventParser& parser_;
  RequestRecord& record_;
  HttpResponseParser http_;
  SseParser sse_;
  std::string error_body_;  // The beginning of an answer that is no stream.
  std::string api_code_;
  double first_choice_s_ = -1.0;
  double done_s_ = -1.0;
  bool saw_done_ = false;
  bool saw_error_ = false;
  bool bad_event_ = false;
  bool wrong_type_ = false;  // 200, but no event stream.
  bool excess_ = false;      // Bytes after the response.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_RESPONSE_READER_H_
