#include "libs/text/incremental_decoder.h"

#include <cstddef>
#include <cstdint>

namespace switchyard {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// What the bytes at the front of a text are: `size` of them belong together.
struct Character {
  enum class Kind { kValid, kInvalid, kUnfinished } kind;
  size_t size;
};

struct Lead {
  size_t size;         // 0 for a byte that begins no character.
  uint8_t second_min;  // The second byte's range, which excludes overlong forms, surrogates and
  uint8_t second_max;  // code points past U+10FFFF (Unicode table 3-7).
};

Lead LeadOf(uint8_t byte) {
  if (byte >= 0xc2 && byte <= 0xdf) {
    return {2, 0x80, 0xbf};
  }
  if (byte >= 0xe0 && byte <= 0xef) {
    return {3, static_cast<uint8_t>(byte == 0xe0 ? 0xa0 : 0x80),
            static_cast<uint8_t>(byte == 0xed ? 0x9f : 0xbf)};
  }
  if (byte >= 0xf0 && byte <= 0xf4) {
    return {4, static_cast<uint8_t>(byte == 0xf0 ? 0x90 : 0x80),
            static_cast<uint8_t>(byte == 0xf4 ? 0x8f : 0xbf)};
  }
  return {0, 0, 0};
}

Character FrontOf(std::string_view bytes) {
  const auto at = [bytes](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  if (at(0) < 0x80) {
    return {Character::Kind::kValid, 1};
  }
  const Lead lead = LeadOf(at(0));
  if (lead.size == 0) {
    return {Character::Kind::kInvalid, 1};
  }
  for (size_t i = 1; i < lead.size; ++i) {
    if (i == bytes.size()) {
      return {Character::Kind::kUnfinished, i};
    }
    const uint8_t low = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.second_max : uint8_t{0xbf};
    if (at(i) < low || at(i) > high) {
      return {Character::Kind::kInvalid, i};
    }
  }
  return {Character::Kind::kValid, lead.size};
}

}  // namespace

std::string IncrementalDecoder::Feed(std::string_view bytes) {
  held_.append(bytes);
  std::string text;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Character front = FrontOf(rest);
    if (front.kind == Character::Kind::kUnfinished) {
      break;
    }
    text.append(front.kind == Character::Kind::kValid ? rest.substr(0, front.size) : kReplacement);
    rest.remove_prefix(front.size);
  }
  held_.erase(0, held_.size() - rest.size());
  return text;
}

std::string IncrementalDecoder::Flush() {
  const bool unfinished = !held_.empty();
  held_.clear();
  return unfinished ? std::string(kReplacement) : std::string();
}

}  // namespace switchyard
