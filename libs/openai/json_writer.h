#ifndef SWITCHYARD_LIBS_OPENAI_JSON_WRITER_H_
#define SWITCHYARD_LIBS_OPENAI_JSON_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace switchyard {

// JsonWriter appends JSON to a string. It does not track nesting: callers write the punctuation.
//
// Numbers do not depend on the locale. One owner; the text moves out with Take().
class JsonWriter {
 public:
  // `text` as it is: punctuation, member names, ready JSON.
  JsonWriter& Raw(std::string_view text) {
    out_.append(text);
    return *this;
  }

  // Quoted and escaped. Bytes that are not UTF-8 become U+FFFD, so the output is always JSON.
  JsonWriter& String(std::string_view text);

  JsonWriter& Int(int64_t value);

  // The shortest digits that read back as the same float. JSON has no infinity: -infinity becomes
  // -9999.0 (what OpenAI writes for an impossible token), +infinity and NaN become null.
  JsonWriter& Float(float value);

  JsonWriter& Bool(bool value) { return Raw(value ? "true" : "false"); }

  std::string Take() { return std::exchange(out_, {}); }

 private:
  std::string out_;
};

// True if `text` is well-formed UTF-8.
bool IsUtf8(std::string_view text);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_OPENAI_JSON_WRITER_H_
