#ifndef SWITCHYARD_SERVICES_CLI_SSE_READER_H_
#define SWITCHYARD_SERVICES_CLI_SSE_READER_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace switchyard {

// SseReader picks the text out of a streamed chat completion, whatever the pieces it arrives in.
// One owner.
class SseReader {
 public:
  explicit SseReader(std::function<void(const std::string& delta)> on_delta);

  void Feed(std::string_view piece);

  // OK when the stream ended with [DONE]; else what the error event said, or that it broke off.
  absl::Status Finish() const;

 private:
  void OnData(const std::string& data);

  const std::function<void(const std::string&)> on_delta_;
  std::string buffer_;
  std::string error_;
  bool done_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_SSE_READER_H_
