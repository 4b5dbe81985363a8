// StoredRows of weight_plan.h: reading rows of a checkpoint's tensor and refusing bad ones.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/model/convert_rows.h"
#include "libs/model/weight_plan.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

using ScaleType = StoredSlice::ScaleType;

constexpr float kFp8Largest = 448.0F;

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

// The largest 16-bit or 32-bit pattern without its sign: as a magnitude the largest value, NaN and
// infinity above all numbers.
template <typename Bits>
Bits LargestBits(std::span<const std::byte> bytes, Bits mask) {
  Bits largest = 0;
  for (size_t i = 0; i + sizeof(Bits) <= bytes.size(); i += sizeof(Bits)) {
    Bits bits = 0;
    std::memcpy(&bits, bytes.data() + i, sizeof(bits));
    largest = std::max(largest, static_cast<Bits>(bits & mask));
  }
  return largest;
}

bool HasByte(std::span<const std::byte> bytes, std::byte mask, std::byte value) {
  // Counted, not searched, so that the compiler makes vectors of it.
  size_t count = 0;
  for (const std::byte each : bytes) {
    count += (each & mask) == value ? 1U : 0U;
  }
  return count > 0;
}

float LargestF16(std::span<const std::byte> bytes) {
  return F16ToF32(LargestBits<uint16_t>(bytes, 0x7fff));
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

absl::Status StoredRows::Check(WeightFormat rounded) {
  const StoredSlice& source = *source_;
  SY_RETURN_IF_ERROR(CheckCodes());
  SY_ASSIGN_OR_RETURN(const float largest, LargestMagnitude());
  if (!std::isfinite(largest)) {
    return InvalidArgument("{}: tensor {} holds a value that is not finite",
                           source.values.file->path(), source.slice.name);
  }
  if (rounded != source.format && largest > LargestFor(rounded)) {
    return InvalidArgument("{}: tensor {} holds a value of up to {:g}, too large for {}",
                           source.values.file->path(), source.slice.name, largest, NameOf(rounded));
  }
  return absl::OkStatus();
}

absl::Status StoredRows::CheckCodes() const {
  const StoredSlice& source = *source_;
  if (source.format == WeightFormat::kInt8 && HasByte(values_, std::byte{0xff}, std::byte{0x80})) {
    return InvalidArgument("{}: tensor {} holds the code -128", source.values.file->path(),
                           source.slice.name);
  }
  if (source.format == WeightFormat::kFp8 && HasByte(values_, std::byte{0x7f}, std::byte{0x7f})) {
    return InvalidArgument("{}: tensor {} holds a code that is not a number",
                           source.values.file->path(), source.slice.name);
  }
  return absl::OkStatus();
}

absl::StatusOr<float> StoredRows::LargestMagnitude() {
  switch (source_->format) {
    case WeightFormat::kF32:
      return std::bit_cast<float>(LargestBits<uint32_t>(values_, 0x7fffffffU));
    case WeightFormat::kBf16:
      return Bf16ToF32(LargestBits<uint16_t>(values_, 0x7fff));
    case WeightFormat::kF16:
      return LargestF16(values_);
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      break;
    case WeightFormat::kFp8: {
      SY_ASSIGN_OR_RETURN(const float scale, WidenFp8Scales());
      return kFp8Largest * scale;
    }
  }
  stored_.scales = scale_bytes_.data();
  const float scale = LargestF16(scale_bytes_);
  if (!std::isfinite(scale)) {
    return InvalidArgument("{}: a scale of tensor {} is not finite", source_->scales.file->path(),
                           source_->slice.name);
  }
  return 127.0F * scale;
}

absl::StatusOr<float> StoredRows::WidenFp8Scales() {
  const size_t scale_bytes = ScaleBytes(source_->scale_type);
  scales_.resize(scale_bytes_.size() / scale_bytes);
  float largest = 0.0F;
  for (size_t i = 0; i < scales_.size(); ++i) {
    if (source_->scale_type == ScaleType::kE8m0) {
      scales_[i] = E8m0ToF32(std::to_integer<uint8_t>(scale_bytes_[i]));
    } else {
      std::memcpy(&scales_[i], scale_bytes_.data() + i * scale_bytes, scale_bytes);
    }
    if (!std::isfinite(scales_[i]) || std::signbit(scales_[i])) {
      return InvalidArgument("{}: a scale of tensor {} is negative or not finite",
                             source_->scales.file->path(), source_->slice.name);
    }
    largest = std::max(largest, scales_[i]);
  }
  stored_.scales = scales_.data();
  return largest;
}

}  // namespace switchyard
