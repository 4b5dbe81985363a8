#ifndef SWITCHYARD_LOADTEST_SSE_PARSER_H_
#define SWITCHYARD_LOADTEST_SSE_PARSER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace switchyard {

// SseParser takes a stream of server-sent events apart, in whatever pieces it arrives: lines end in
// LF, CR or CRLF, data lines of one event are joined with LF, comments are skipped. Unlike a
// browser it does not forgive: a line that is no field makes the stream malformed, since a server
// that writes one is broken.
//
// One owner. Holds one event at most, of a bounded size.
class SseParser {
 public:
  enum class Field : uint8_t {
    kData,
    kError,  // "error: …", which some servers write in the place of data.
  };
  using EventSink = absl::FunctionRef<void(Field, std::string_view)>;

  // Calls `sink` for each event that has data.
  void Feed(std::string_view bytes, EventSink sink);

  bool malformed() const { return malformed_; }

  // True when the stream stands within an event: one that ends here was cut off.
  bool mid_event() const { return !line_.empty() || has_data_; }

 private:
  void OnLine(std::string_view line, EventSink sink);

  std::string line_;  // What of the current line came in earlier pieces.
  std::string data_;
  Field field_ = Field::kData;
  bool has_data_ = false;
  bool skip_newline_ = false;  // The last line ended in CR; an LF now belongs to it.
  bool at_start_ = true;
  bool malformed_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_SSE_PARSER_H_
