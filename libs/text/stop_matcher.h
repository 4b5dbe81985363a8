#ifndef SWITCHYARD_LIBS_TEXT_STOP_MATCHER_H_
#define SWITCHYARD_LIBS_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// StopMatcher ends a stream of text at the first of a few stop strings.
//
// Text that may be the beginning of a stop string is held back until it is known not to be, so no
// part of a stop string reaches a client. One owner; holds less than the longest stop string.
class StopMatcher {
 public:
  struct Result {
    std::string text;                  // Safe to emit.
    std::optional<size_t> stop_index;  // Set once: which stop string ended the stream.
  };

  // Empty stop strings are ignored. `include_stop` leaves the stop string in the text. Where two
  // match, the one that ends first wins, then the longer one.
  explicit StopMatcher(std::vector<std::string> stops, bool include_stop = false);

  // `text` is whole characters. After a stop nothing more is emitted.
  Result Feed(std::string_view text);

  // The end without a stop: what was held back. Empty after a stop.
  std::string Flush();

  bool stopped() const { return stopped_; }

 private:
  struct Match {
    size_t begin;
    size_t end;
    size_t index;
  };

  std::optional<Match> FirstMatch() const;
  size_t HeldSize() const;

  std::vector<std::string> stops_;
  bool include_stop_;
  bool stopped_ = false;
  std::string pending_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TEXT_STOP_MATCHER_H_
