#include "libs/model/testing/safetensors_writer.h"

#include <bit>
#include <cmath>
#include <cstring>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "libs/base/check.h"

namespace switchyard {
namespace {

uint16_t F32ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const float magnitude = std::fabs(value);
  if (magnitude < 6.103515625e-05F) {  // Subnormal: multiples of 2^-24.
    return static_cast<uint16_t>(sign |
                                 static_cast<uint16_t>(std::nearbyint(magnitude * 16777216.0F)));
  }
  SY_CHECK(magnitude < 65520.0F);
  const uint32_t rounded = (bits & 0x7fffffffU) + 0xfffU + ((bits >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

std::string_view FormatName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "F32";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kF16:
      return "F16";
  }
  return "";
}

}  // namespace

void SafetensorsWriter::Add(const std::string& name, const std::vector<uint64_t>& shape,
                            Dtype dtype, const std::vector<float>& values) {
  uint64_t count = 1;
  for (const uint64_t extent : shape) {
    count *= extent;
  }
  SY_CHECK(count == values.size());
  const size_t begin = data_.size();
  for (const float value : values) {
    if (dtype == Dtype::kF32) {
      data_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint16_t bits = dtype == Dtype::kBf16 ? F32ToBf16(value) : F32ToF16(value);
      data_.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  header_ += fmt::format("{}\"{}\":{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                         header_.empty() ? "" : ",", name, FormatName(dtype), fmt::join(shape, ","),
                         begin, data_.size());
}

std::string SafetensorsWriter::Render() const {
  return SafetensorsBytes("{" + header_ + "}", data_);
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string file(sizeof(size), '\0');
  std::memcpy(file.data(), &size, sizeof(size));
  return file + header + data;
}

}  // namespace switchyard
