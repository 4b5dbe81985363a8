// StoredRows of weight_plan.h: reading rows of a checkpoint's tensor and refusing bad ones.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/model/weight_plan.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

using ScaleType = StoredSlice::ScaleType;

absl::Status ReadPart(const TensorCatalog::Place& place, const std::string& name, uint64_t offset,
                      std::span<std::byte> out) {
  SY_CHECK(offset + out.size() <= place.entry->byte_size());
  absl::Status status = place.file->file().ReadAt(place.entry->begin + offset, out);
  if (status.ok()) {
    status = place.file->file().CheckUnchanged();
  }
  return status.ok() ? status : Annotate(status, fmt::format("tensor {}", name));
}

size_t ScaleBytes(ScaleType type) {
  switch (type) {
    case ScaleType::kF32:
      return 4;
    case ScaleType::kF16:
      return 2;
    case ScaleType::kE8m0:
      return 1;
    case ScaleType::kNone:
      break;
  }
  return 0;
}

// 2^(code - 127); NaN for the code that means it.
float E8m0ToF32(uint8_t code) {
  if (code == 0xff) {
    return std::bit_cast<float>(0x7fc00000U);
  }
  return code == 0 ? std::bit_cast<float>(0x00400000U)
                   : std::bit_cast<float>(static_cast<uint32_t>(code) << 23);
}

bool HasByte(std::span<const std::byte> bytes, std::byte mask, std::byte value) {
  // Counted, not searched, so that the compiler makes vectors of it.
  size_t count = 0;
  for (const std::byte each : bytes) {
    count += (each & mask) == value ? 1U : 0U;
  }
  return count > 0;
}

absl::Status CheckF16Scales(const StoredSlice& source, std::span<const std::byte> bytes) {
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + i, sizeof(bits));
    if ((bits & 0x7c00U) == 0x7c00U) {
      return InvalidArgument("{}: a scale of tensor {} is not finite", source.scales.file->path(),
                             source.slice.name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status StoredRows::Read(const StoredSlice& source, uint32_t first, uint32_t count) {
  const TensorSlice& slice = source.slice;
  SY_CHECK(first % kFp8Block == 0 && first + count <= slice.rows);
  source_ = &source;
  values_.resize(StoredValueBytes(source.format, count, slice.columns));
  const uint64_t row_bytes = StoredValueBytes(source.format, 1, slice.columns);
  SY_RETURN_IF_ERROR(
      ReadPart(source.values, slice.name, (slice.first_row + first) * row_bytes, values_));
  stored_ = {
      .values = values_.data(), .format = source.format, .rows = count, .columns = slice.columns};
  if (source.scale_type == ScaleType::kNone) {
    return absl::OkStatus();
  }
  const bool blocks = source.format == WeightFormat::kFp8;
  const uint64_t edge = blocks ? kFp8Block : 1;
  const uint64_t scales_per_row = source.scales.entry->shape[1];
  const uint64_t scale_rows = (count + edge - 1) / edge;
  const size_t scale_row_bytes = scales_per_row * ScaleBytes(source.scale_type);
  scale_bytes_.resize(scale_rows * scale_row_bytes);
  return ReadPart(source.scales, slice.name, first / edge * scale_row_bytes, scale_bytes_);
}

absl::Status StoredRows::Check() {
  const StoredSlice& source = *source_;
  switch (source.format) {
    case WeightFormat::kFp8:
      break;
    case WeightFormat::kInt8:
      if (HasByte(values_, std::byte{0xff}, std::byte{0x80})) {
        return InvalidArgument("{}: tensor {} holds the code -128", source.values.file->path(),
                               source.slice.name);
      }
      [[fallthrough]];
    case WeightFormat::kInt4:
      stored_.scales = scale_bytes_.data();
      return CheckF16Scales(source, scale_bytes_);
    default:
      return absl::OkStatus();
  }
  if (HasByte(values_, std::byte{0x7f}, std::byte{0x7f})) {
    return InvalidArgument("{}: tensor {} holds a code that is not a number",
                           source.values.file->path(), source.slice.name);
  }
  const size_t scale_bytes = ScaleBytes(source.scale_type);
  scales_.resize(scale_bytes_.size() / scale_bytes);
  for (size_t i = 0; i < scales_.size(); ++i) {
    if (source.scale_type == ScaleType::kE8m0) {
      scales_[i] = E8m0ToF32(std::to_integer<uint8_t>(scale_bytes_[i]));
    } else {
      std::memcpy(&scales_[i], scale_bytes_.data() + i * scale_bytes, scale_bytes);
    }
    if (!std::isfinite(scales_[i]) || std::signbit(scales_[i])) {
      return InvalidArgument("{}: a scale of tensor {} is negative or not finite",
                             source.scales.file->path(), source.slice.name);
    }
  }
  stored_.scales = scales_.data();
  return absl::OkStatus();
}

}  // namespace switchyard
