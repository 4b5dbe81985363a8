#include "libs/openai/json_writer.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>

#include <simdjson.h>

namespace switchyard {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

void AppendEscaped(std::string& out, char c) {
  constexpr std::string_view kHex = "0123456789abcdef";
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      out += "\\u00";
      out += kHex[static_cast<size_t>(c) >> 4U];
      out += kHex[static_cast<size_t>(c) & 15U];
  }
}

void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\') {
      continue;
    }
    out.append(text.substr(begin, i - begin));
    AppendEscaped(out, c);
    begin = i + 1;
  }
  out.append(text.substr(begin));
  out += '"';
}

// Keeps the well-formed characters and puts U+FFFD for each other byte.
std::string Repaired(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t size = 1;
    while (size <= 4 && size <= text.size() && !IsUtf8(text.substr(0, size))) {
      ++size;
    }
    const bool whole = size <= 4 && size <= text.size();
    out.append(whole ? text.substr(0, size) : kReplacement);
    text.remove_prefix(whole ? size : 1);
  }
  return out;
}

}  // namespace

bool IsUtf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

JsonWriter& JsonWriter::String(std::string_view text) {
  if (IsUtf8(text)) {
    AppendQuoted(out_, text);
  } else {
    AppendQuoted(out_, Repaired(text));
  }
  return *this;
}

JsonWriter& JsonWriter::Int(int64_t value) {
  std::array<char, 24> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out_.append(digits.data(), end.ptr);
  return *this;
}

JsonWriter& JsonWriter::Float(float value) {
  if (!std::isfinite(value)) {
    return Raw(value < 0 ? "-9999.0" : "null");
  }
  std::array<char, 48> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out_.append(digits.data(), end.ptr);
  return *this;
}

}  // namespace switchyard
