#include "libs/openai/json_writer.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

std::string Quoted(std::string_view text) { return JsonWriter().String(text).Take(); }

std::string Number(float value) { return JsonWriter().Float(value).Take(); }

TEST(JsonWriter, EscapesWhatJsonMust) {
  EXPECT_EQ(Quoted("a\"b\\c/\n\r\t"), R"("a\"b\\c/\n\r\t")");
  EXPECT_EQ(Quoted(std::string("\0\x1f\x7f", 3)), "\"\\u0000\\u001f\x7f\"");
  EXPECT_EQ(Quoted("é😀"), "\"é😀\"");
  EXPECT_EQ(Quoted(""), "\"\"");
}

TEST(JsonWriter, RepairsWhatIsNotUtf8) {
  EXPECT_EQ(Quoted("a\xff\xc3\xa9\xf0\x9f"), "\"a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(JsonWriter, WritesTheShortestFloat) {
  EXPECT_EQ(Number(-0.1F), "-0.1");
  EXPECT_EQ(Number(0.0F), "0");
  EXPECT_EQ(Number(-1e-7F), "-1e-07");
  EXPECT_EQ(Number(16777216.0F), "16777216");
  EXPECT_EQ(Number(-std::numeric_limits<float>::infinity()), "-9999.0");
  EXPECT_EQ(Number(std::numeric_limits<float>::quiet_NaN()), "null");
}

TEST(JsonWriter, FloatsReadBackTheSame) {
  for (float value = -40.0F; value < 0.0F; value = std::nextafter(value, 0.0F) * 0.97F) {
    EXPECT_EQ(std::stof(Number(value)), value);
    if (value > -1e-30F) {
      break;
    }
  }
}

TEST(JsonWriter, WritesIntegersAndBools) {
  EXPECT_EQ(JsonWriter().Int(std::numeric_limits<int64_t>::min()).Take(), "-9223372036854775808");
  EXPECT_EQ(JsonWriter().Bool(true).Raw(",").Bool(false).Take(), "true,false");
}

}  // namespace
}  // namespace switchyard
