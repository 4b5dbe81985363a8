#include "libs/text/stop_matcher.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"

namespace switchyard {
namespace {

TEST(StopMatcher, PassesTextThroughWithoutStops) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Feed("abc").text, "abc");
  EXPECT_EQ(matcher.Flush(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, HoldsBackABeginningAndReleasesItWhenItIsNone) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Feed("a ST").text, "a ");
  EXPECT_EQ(matcher.Feed("O").text, "");
  EXPECT_EQ(matcher.Feed("ST").text, "STO");
  EXPECT_EQ(matcher.Flush(), "ST");
}

TEST(StopMatcher, FindsAStopThatCrossesBorders) {
  StopMatcher matcher({"\n\n", "STOP"});
  EXPECT_EQ(matcher.Feed("one S").text, "one ");
  EXPECT_EQ(matcher.Feed("TO").text, "");
  const StopMatcher::Result result = matcher.Feed("P two");
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.stop_index, 1U);
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.Feed("more").text, "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, LeavesTheStopInWhenAsked) {
  StopMatcher matcher({"END"}, /*include_stop=*/true);
  EXPECT_EQ(matcher.Feed("x E").text, "x ");
  EXPECT_EQ(matcher.Feed("ND y").text, "END");
}

TEST(StopMatcher, TheStopThatEndsFirstWinsThenTheLonger) {
  StopMatcher nested({"ab", "b"});
  const StopMatcher::Result result = nested.Feed("xab");
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.stop_index, 0U);
  StopMatcher prefix({"abc", "ab"});
  EXPECT_EQ(prefix.Feed("xabc").stop_index, 1U);
}

TEST(StopMatcher, IgnoresEmptyStops) {
  StopMatcher matcher({"", "z"});
  EXPECT_EQ(matcher.Feed("abc").text, "abc");
  EXPECT_EQ(matcher.Feed("z").stop_index, 1U);
}

TEST(StopMatcher, ResultDoesNotDependOnTheCuts) {
  const uint64_t seed = 7;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + rng.Below(3));
    for (std::string& stop : stops) {
      for (uint64_t n = 1 + rng.Below(4); n > 0; --n) {
        stop += static_cast<char>('a' + rng.Below(2));
      }
    }
    std::string text;
    for (uint64_t n = rng.Below(12); n > 0; --n) {
      text += static_cast<char>('a' + rng.Below(3));
    }
    StopMatcher whole(stops);
    const StopMatcher::Result expected = whole.Feed(text);
    const std::string expected_text = expected.text + whole.Flush();
    StopMatcher matcher(stops);
    std::string got;
    std::optional<size_t> stop_index;
    for (size_t at = 0; at < text.size() && !stop_index;) {
      const size_t size = 1 + rng.Below(3);
      const StopMatcher::Result part = matcher.Feed(std::string_view(text).substr(at, size));
      got += part.text;
      stop_index = part.stop_index;
      at += size;
    }
    got += matcher.Flush();
    ASSERT_EQ(got, expected_text) << "round " << round;
    ASSERT_EQ(stop_index, expected.stop_index) << "round " << round;
  }
}

}  // namespace
}  // namespace switchyard
