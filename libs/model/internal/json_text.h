#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_JSON_TEXT_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_JSON_TEXT_H_

#include <string>
#include <string_view>

#include <spdlog/fmt/fmt.h>

namespace switchyard::internal {

// `text`, which is UTF-8, as a JSON string with its quotes. Any thread.
inline std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      json += c;
    }
  }
  return json + "\"";
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_JSON_TEXT_H_
