#include "libs/model/testing/safetensors_writer.h"

#include <cstring>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "libs/base/check.h"

namespace switchyard {
namespace {

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
  std::string bytes;
  for (const float value : values) {
    if (dtype == Dtype::kF32) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint16_t bits = dtype == Dtype::kBf16 ? F32ToBf16(value) : F32ToF16(value);
      bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  AddRaw(name, shape, FormatName(dtype), bytes);
}

void SafetensorsWriter::AddRaw(const std::string& name, const std::vector<uint64_t>& shape,
                               std::string_view dtype, std::string_view bytes) {
  const size_t begin = data_.size();
  data_ += bytes;
  header_ += fmt::format("{}\"{}\":{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                         header_.empty() ? "" : ",", name, dtype, fmt::join(shape, ","), begin,
                         data_.size());
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
