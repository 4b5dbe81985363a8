#ifndef SWITCHYARD_LOADTEST_HTTP_RESPONSE_PARSER_H_
#define SWITCHYARD_LOADTEST_HTTP_RESPONSE_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace switchyard {

// HttpResponseParser reads one HTTP/1.x response, in whatever pieces it arrives, and hands on the
// bytes of its body as they come. Bodies may be chunked, of a given length, or end with the
// connection.
//
// One owner. Holds a partial line, never a body; the head and each line are bounded.
class HttpResponseParser {
 public:
  using BodySink = absl::FunctionRef<void(std::string_view)>;

  // Reads `bytes`, calling `sink` for each piece of the body. Returns how many bytes belong to
  // this response: fewer than given only when it ended or is malformed.
  size_t Feed(std::string_view bytes, BodySink sink);

  // The server closed: ends a body that lasts until then.
  void OnClose();

  bool done() const { return state_ == State::kDone; }

  bool malformed() const { return state_ == State::kMalformed; }

  // True once the head was read.
  bool has_head() const { return state_ != State::kMalformed && state_ > State::kHeaders; }

  // True once any byte was read.
  bool started() const { return started_; }

  int status() const { return status_; }

  bool is_event_stream() const { return is_event_stream_; }

  // True if the connection may carry another request after done().
  bool keep_alive() const { return keep_alive_ && !until_close_; }

 private:
  enum class State : uint8_t {
    kStatusLine,
    kHeaders,
    kFixedBody,
    kBodyUntilClose,
    kChunkSize,
    kChunkData,
    kChunkEnd,
    kTrailers,
    kDone,
    kMalformed,
  };

  size_t FeedLine(std::string_view bytes);
  size_t FeedBody(std::string_view bytes, BodySink sink);
  void OnLine(std::string_view line);
  void OnStatusLine(std::string_view line);
  void OnHeader(std::string_view line);
  void OnHeadEnd();
  void OnChunkSize(std::string_view line);

  State state_ = State::kStatusLine;
  std::string line_;       // What of the current line came in earlier pieces.
  size_t head_bytes_ = 0;  // Of the head and of the trailers.
  uint64_t body_left_ = 0;
  int status_ = 0;
  bool started_ = false;
  bool keep_alive_ = true;
  bool chunked_ = false;
  bool has_length_ = false;
  bool until_close_ = false;
  bool is_event_stream_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_HTTP_RESPONSE_PARSER_H_
