#ifndef SWITCHYARD_LIBS_TEXT_INCREMENTAL_DECODER_H_
#define SWITCHYARD_LIBS_TEXT_INCREMENTAL_DECODER_H_

#include <string>
#include <string_view>

namespace switchyard {

// IncrementalDecoder turns a stream of token bytes into text, whole characters at a time.
//
// What it yields, put together, is the lossy decode of all the bytes: each maximal invalid part
// becomes one U+FFFD (Unicode's "substitution of maximal subparts", as browsers, Rust and Python
// do). One owner; it holds at most 3 bytes. Lives as long as one choice's output.
class IncrementalDecoder {
 public:
  // The text that `bytes` completes; bytes of an unfinished character stay behind.
  std::string Feed(std::string_view bytes);

  // The end: U+FFFD for an unfinished character, else nothing. The decoder is then as new.
  std::string Flush();

  // True between characters.
  bool empty() const { return held_.empty(); }

 private:
  std::string held_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TEXT_INCREMENTAL_DECODER_H_
