#include "libs/text/incremental_decoder.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"

namespace switchyard {
namespace {

constexpr const char* kBad = "\xef\xbf\xbd";

std::string DecodeWhole(std::string_view bytes) {
  IncrementalDecoder decoder;
  std::string text = decoder.Feed(bytes);
  return text += decoder.Flush();
}

TEST(IncrementalDecoder, HoldsAnUnfinishedCharacterBack) {
  IncrementalDecoder decoder;
  EXPECT_EQ(decoder.Feed("a\xf0\x9f"), "a");
  EXPECT_FALSE(decoder.empty());
  EXPECT_EQ(decoder.Feed("\x98"), "");
  EXPECT_EQ(decoder.Feed("\x80!"), "\xf0\x9f\x98\x80!");
  EXPECT_TRUE(decoder.empty());
  EXPECT_EQ(decoder.Flush(), "");
}

TEST(IncrementalDecoder, FlushReplacesAnUnfinishedCharacterOnce) {
  IncrementalDecoder decoder;
  EXPECT_EQ(decoder.Feed("\xe4\xbd"), "");
  EXPECT_EQ(decoder.Flush(), kBad);
  EXPECT_EQ(decoder.Flush(), "");
  EXPECT_EQ(decoder.Feed("ok"), "ok");
}

// The expected texts are what Python's bytes.decode("utf-8", "replace") gives.
TEST(IncrementalDecoder, ReplacesMaximalInvalidParts) {
  const std::string bad = kBad;
  EXPECT_EQ(DecodeWhole("\xff"), bad);
  EXPECT_EQ(DecodeWhole("\x80\x80"), bad + bad);
  EXPECT_EQ(DecodeWhole("\xc0\xaf"), bad + bad);                      // Overlong.
  EXPECT_EQ(DecodeWhole("\xed\xa0\x80"), bad + bad + bad);            // A surrogate.
  EXPECT_EQ(DecodeWhole("\xf4\x90\x80\x80"), bad + bad + bad + bad);  // Past U+10FFFF.
  EXPECT_EQ(DecodeWhole("\xf0\x9f\x98"
                        "A"),
            bad + "A");
  EXPECT_EQ(DecodeWhole("\xe4\xbd\xe4\xbd\xa0"), bad + "\xe4\xbd\xa0");
  EXPECT_EQ(DecodeWhole("\xe0\x80\x80"), bad + bad + bad);
  EXPECT_EQ(DecodeWhole(std::string_view("\0x", 2)), std::string("\0x", 2));
}

TEST(IncrementalDecoder, AnyCutGivesTheWholeSequencesDecode) {
  const uint64_t seed = 20261122;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  const std::vector<std::string> pieces = {
      "a",    "\xc3\xa9", "\xe4\xbd\xa0", "\xf0\x9f\x98\x80", "\xff",
      "\x80", "\xf0\x9f", "\xe4",         "\xed\xa0\x80",     "\xc0"};
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (uint64_t n = rng.Below(12); n > 0; --n) {
      bytes += rng.Chance(0.1F) ? std::string(1, static_cast<char>(rng.Below(256)))
                                : pieces[rng.Below(pieces.size())];
    }
    IncrementalDecoder decoder;
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + rng.Below(5);
      const std::string part = decoder.Feed(std::string_view(bytes).substr(at, size));
      EXPECT_EQ(DecodeWhole(part), part);  // Whole characters only.
      text += part;
      at += size;
    }
    text += decoder.Flush();
    ASSERT_EQ(text, DecodeWhole(bytes)) << "round " << round;
  }
}

}  // namespace
}  // namespace switchyard
