#include "libs/model/weight_plan.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

using ScaleType = StoredSlice::ScaleType;

std::string ShapeText(std::span<const uint64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

std::optional<WeightFormat> PlainFormat(std::string_view dtype) {
  if (dtype == "BF16") {
    return WeightFormat::kBf16;
  }
  if (dtype == "F32") {
    return WeightFormat::kF32;
  }
  if (dtype == "F16") {
    return WeightFormat::kF16;
  }
  return std::nullopt;
}

// What the dtype of a tensor means, given what config.json says of quantisation.
std::optional<WeightFormat> FormatOfDtype(std::string_view dtype,
                                          std::optional<WeightFormat> quantization) {
  if (const auto plain = PlainFormat(dtype); plain.has_value()) {
    return plain;
  }
  const bool ours = quantization == WeightFormat::kInt8 || quantization == WeightFormat::kInt4;
  if (dtype == "F8_E4M3" && quantization == WeightFormat::kFp8) {
    return WeightFormat::kFp8;
  }
  if (dtype == "I8" && ours) {
    return WeightFormat::kInt8;
  }
  if (dtype == "U8" && quantization == WeightFormat::kInt4) {
    return WeightFormat::kInt4;
  }
  return std::nullopt;
}

Dtype DtypeOf(WeightFormat plain) {
  switch (plain) {
    case WeightFormat::kBf16:
      return Dtype::kBf16;
    case WeightFormat::kF16:
      return Dtype::kF16;
    default:
      return Dtype::kF32;
  }
}

bool IsRowMajor(WeightFormat format) {
  return format == WeightFormat::kF32 || format == WeightFormat::kF16;
}

std::optional<ScaleType> ScaleTypeOf(WeightFormat format, std::string_view dtype) {
  if (format != WeightFormat::kFp8) {
    return dtype == "F16" ? std::optional(ScaleType::kF16) : std::nullopt;
  }
  if (dtype == "F32") {
    return ScaleType::kF32;
  }
  return dtype == "F8_E8M0" ? std::optional(ScaleType::kE8m0) : std::nullopt;
}

}  // namespace

uint64_t StoredSlice::byte_size() const {
  return StoredValueBytes(format, slice.rows, slice.columns) +
         (scales.entry == nullptr ? 0 : scales.entry->byte_size());
}

absl::StatusOr<StoredSlice> WeightPlan::Find(const TensorSlice& slice, WeightRole role) const {
  StoredSlice source{.slice = slice, .role = role, .values = catalog_.Find(slice.name)};
  const auto [file, entry] = source.values;
  if (file == nullptr) {
    return InvalidArgument("{}: tensor {} is missing", catalog_.dir(), slice.name);
  }
  const auto format = FormatOfDtype(entry->dtype, spec_.quantization);
  if (!format.has_value()) {
    return InvalidArgument(
        "{}: tensor {} has dtype {}; with quantization_config {} of config.json that is not "
        "supported",
        file->path(), slice.name, entry->dtype,
        spec_.quantization.has_value() ? NameOf(*spec_.quantization) : "none");
  }
  source.format = *format;
  std::vector<uint64_t> shape = slice.shape;
  if (source.format == WeightFormat::kInt4) {
    shape.back() = (shape.back() + 1) / 2;  // Two codes to a byte.
  }
  if (entry->shape != shape) {
    return InvalidArgument("{}: tensor {} has shape {}, config.json needs {}", file->path(),
                           slice.name, ShapeText(entry->shape), ShapeText(shape));
  }
  if (!IsPlain(source.format) && slice.shape.size() != 2) {
    return InvalidArgument("{}: tensor {} of rank {} has dtype {}, which only matrices may have",
                           file->path(), slice.name, slice.shape.size(), entry->dtype);
  }
  SY_RETURN_IF_ERROR(FindScales(source));
  return source;
}

absl::Status WeightPlan::FindScales(StoredSlice& source) const {
  const TensorSlice& slice = source.slice;
  const bool fp8 = source.format == WeightFormat::kFp8;
  const bool expected = !IsPlain(source.format);
  const std::string name = slice.name + (fp8 || !expected ? "_scale_inv" : "_scale");
  source.scales = catalog_.Find(name);
  const auto [file, entry] = source.scales;
  if (!expected) {
    if (file != nullptr) {
      return InvalidArgument("{}: tensor {} has dtype {} and yet scales, {}",
                             source.values.file->path(), slice.name, source.values.entry->dtype,
                             name);
    }
    return absl::OkStatus();
  }
  if (file == nullptr) {
    return InvalidArgument("{}: tensor {} has dtype {} but there is no tensor {}",
                           source.values.file->path(), slice.name, source.values.entry->dtype,
                           name);
  }
  const auto type = ScaleTypeOf(source.format, entry->dtype);
  if (!type.has_value()) {
    return InvalidArgument("{}: tensor {} has dtype {}, scales of {} are {}", file->path(), name,
                           entry->dtype, NameOf(source.format), fp8 ? "F32 or F8_E8M0" : "F16");
  }
  source.scale_type = *type;
  const std::vector<uint64_t> shape =
      fp8 ? std::vector<uint64_t>{(slice.rows + kFp8Block - 1) / kFp8Block,
                                  (slice.columns + kFp8Block - 1) / kFp8Block}
          : std::vector<uint64_t>{slice.rows, (slice.columns + kScaleGroup - 1) / kScaleGroup};
  if (entry->shape != shape) {
    return InvalidArgument("{}: tensor {} has shape {}, {} needs {}", file->path(), name,
                           ShapeText(entry->shape), slice.name, ShapeText(shape));
  }
  return absl::OkStatus();
}

absl::Status WeightPlan::Add(const TensorSlice& slice, WeightRole role, WeightArena& arena,
                             PackedMatrix& out) {
  SY_ASSIGN_OR_RETURN(StoredSlice source, Find(slice, role));
  const WeightFormat kept = FormatOf(choice_, role, source.format);
  out = arena.Reserve(kept, slice.rows, slice.columns);
  Target target{.packed = out};
  if (kept == source.format && IsRowMajor(kept) && out.data != nullptr) {
    target.copy = WeightArena::RowsOf(out, 0);
  }
  tensors_.push_back(
      {.source = std::move(source), .rounded = kept, .kept = kept, .kept_bytes = out.byte_size()});
  targets_.push_back(target);
  return absl::OkStatus();
}

absl::Status WeightPlan::AddHeads(const TensorSlice& slice, WeightArena& arena,
                                  std::vector<MlaHeadWeights>& out) {
  SY_ASSIGN_OR_RETURN(StoredSlice source, Find(slice, WeightRole::kLatent));
  const size_t before = arena.byte_count();
  const WeightFormat rounded = FormatOf(choice_, WeightRole::kLatent, source.format);
  out = ReserveMlaHeads(spec_, rounded, arena);
  tensors_.push_back({.source = std::move(source),
                      .rounded = rounded,
                      .kept = MlaHeadFormat(rounded),
                      .kept_bytes = arena.byte_count() - before});
  targets_.push_back({.heads = out});
  return absl::OkStatus();
}

absl::Status WeightPlan::AddPlain(const TensorSlice& slice, WeightRole role, WeightArena& arena,
                                  MatrixView& out) {
  SY_ASSIGN_OR_RETURN(StoredSlice source, Find(slice, role));
  if (!IsPlain(source.format)) {
    return InvalidArgument("{}: tensor {} has dtype {}, supported are BF16, F16 and F32",
                           source.values.file->path(), slice.name, source.values.entry->dtype);
  }
  const uint64_t bytes = source.byte_size();
  std::byte* const place = arena.ReserveBytes(bytes);
  out = {
      .data = place, .dtype = DtypeOf(source.format), .rows = slice.rows, .columns = slice.columns};
  const WeightFormat kept = source.format;
  tensors_.push_back(
      {.source = std::move(source), .rounded = kept, .kept = kept, .kept_bytes = bytes});
  targets_.push_back({.copy = place});
  return absl::OkStatus();
}

absl::Status WeightPlan::AddStored(const TensorSlice& slice, WeightRole role, WeightArena& arena,
                                   StoredMatrix& out) {
  SY_ASSIGN_OR_RETURN(StoredSlice source, Find(slice, role));
  const WeightFormat kept = FormatOf(choice_, role, source.format);
  if (!IsPlain(kept) && kept != WeightFormat::kInt8) {
    return InvalidArgument("{}: tensor {} has dtype {}, supported are BF16, F16, F32 and I8",
                           source.values.file->path(), slice.name, source.values.entry->dtype);
  }
  const uint64_t value_bytes = StoredValueBytes(kept, slice.rows, slice.columns);
  const uint64_t scale_bytes = StoredScaleBytes(kept, slice.rows, slice.columns);
  Target target{.copy = arena.ReserveBytes(value_bytes)};
  if (scale_bytes > 0) {
    target.copy_scales = arena.ReserveBytes(scale_bytes);
  }
  out = {.values = target.copy,
         .format = kept,
         .rows = slice.rows,
         .columns = slice.columns,
         .scales = target.copy_scales};
  tensors_.push_back({.source = std::move(source),
                      .rounded = kept,
                      .kept = kept,
                      .kept_bytes = value_bytes + scale_bytes});
  targets_.push_back(target);
  return absl::OkStatus();
}

absl::Status WeightPlan::AddVector(const std::string& name, uint32_t count,
                                   std::vector<float>& out) {
  SY_ASSIGN_OR_RETURN(
      StoredSlice source,
      Find({.name = name, .shape = {count}, .rows = 1, .columns = count}, WeightRole::kVector));
  out.resize(count);
  const WeightFormat rounded = source.format;
  tensors_.push_back({.source = std::move(source),
                      .rounded = rounded,
                      .kept = WeightFormat::kF32,
                      .kept_bytes = count * sizeof(float)});
  targets_.push_back({.vector = out});
  return absl::OkStatus();
}

}  // namespace switchyard
