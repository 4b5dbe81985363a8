#include "libs/model/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include <simdjson.h>

#include "libs/base/status.h"
#include "libs/model/internal/printable.h"

namespace switchyard {
namespace {

using internal::Printable;
namespace dom = simdjson::dom;

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kJsonDepthMax = 8;  // The format needs 3.

struct DtypeBits {
  std::string_view name;
  uint32_t bits;
};

constexpr std::array<DtypeBits, 20> kDtypes = {{
    {"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
    {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},
    {"F32", 32}, {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};

std::optional<uint32_t> BitsOf(std::string_view dtype) {
  const auto* found = std::find_if(kDtypes.begin(), kDtypes.end(),
                                   [dtype](const DtypeBits& each) { return each.name == dtype; });
  if (found == kDtypes.end()) {
    return std::nullopt;
  }
  return found->bits;
}

// Bytes of `shape` elements of `bits` each; nullopt on overflow or when the bits do not fill whole
// bytes.
std::optional<uint64_t> ByteSize(const std::vector<uint64_t>& shape, uint32_t bits) {
  uint64_t size = bits;
  for (const uint64_t extent : shape) {
    if (__builtin_mul_overflow(size, extent, &size)) {
      return std::nullopt;
    }
  }
  if (size % 8 != 0) {
    return std::nullopt;
  }
  return size / 8;
}

absl::StatusOr<std::vector<uint64_t>> ParseIntegers(const dom::element& value, size_t count_max) {
  dom::array array;
  if (value.get(array) != simdjson::SUCCESS) {
    return InvalidArgument("is not an array");
  }
  std::vector<uint64_t> numbers;
  for (const dom::element each : array) {
    uint64_t number = 0;
    if (each.get(number) != simdjson::SUCCESS) {
      return InvalidArgument("holds something else than non-negative integers");
    }
    if (numbers.size() == count_max) {
      return InvalidArgument("has more than {} numbers", count_max);
    }
    numbers.push_back(number);
  }
  return numbers;
}

// The three fields of one tensor, each exactly once.
struct RawEntry {
  std::optional<std::string_view> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

absl::Status ReadField(const dom::key_value_pair& field, RawEntry& raw) {
  if (field.key == "dtype" && !raw.dtype.has_value()) {
    std::string_view text;
    if (field.value.get(text) != simdjson::SUCCESS) {
      return InvalidArgument("dtype is not a string");
    }
    raw.dtype = text;
    return absl::OkStatus();
  }
  if (field.key == "shape" && !raw.shape.has_value()) {
    auto shape = ParseIntegers(field.value, kSafetensorsRankMax);
    if (!shape.ok()) {
      return InvalidArgument("shape {}", MessageOf(shape.status()));
    }
    raw.shape = *std::move(shape);
    return absl::OkStatus();
  }
  if (field.key == "data_offsets" && !raw.offsets.has_value()) {
    auto offsets = ParseIntegers(field.value, 2);
    if (!offsets.ok()) {
      return InvalidArgument("data_offsets {}", MessageOf(offsets.status()));
    }
    raw.offsets = *std::move(offsets);
    return absl::OkStatus();
  }
  return InvalidArgument("field '{}' is unknown or given twice", Printable(field.key));
}

// `data_begin` is where the data starts in the file, `data_bytes` how much there is.
absl::StatusOr<SafetensorsEntry> ParseEntry(const dom::element& value, uint64_t data_begin,
                                            uint64_t data_bytes) {
  dom::object object;
  if (value.get(object) != simdjson::SUCCESS) {
    return InvalidArgument("is not an object");
  }
  RawEntry raw;
  for (const dom::key_value_pair field : object) {
    SY_RETURN_IF_ERROR(ReadField(field, raw));
  }
  if (!raw.dtype.has_value() || !raw.shape.has_value() || !raw.offsets.has_value()) {
    return InvalidArgument("lacks dtype, shape or data_offsets");
  }
  const std::optional<uint32_t> bits = BitsOf(*raw.dtype);
  if (!bits.has_value()) {
    return InvalidArgument("dtype '{}' is unknown", Printable(*raw.dtype));
  }
  if (raw.offsets->size() != 2) {
    return InvalidArgument("data_offsets has {} numbers, not 2", raw.offsets->size());
  }
  const uint64_t begin = (*raw.offsets)[0];
  const uint64_t end = (*raw.offsets)[1];
  if (begin > end || end > data_bytes) {
    return InvalidArgument("data_offsets [{}, {}] reversed or beyond the {} bytes of data", begin,
                           end, data_bytes);
  }
  const std::optional<uint64_t> expected = ByteSize(*raw.shape, *bits);
  if (!expected.has_value()) {
    return InvalidArgument("shape overflows or does not fill whole bytes");
  }
  if (*expected != end - begin) {
    return InvalidArgument("shape and dtype need {} bytes, data_offsets give {}", *expected,
                           end - begin);
  }
  return SafetensorsEntry{.dtype = std::string(*raw.dtype),
                          .shape = *std::move(raw.shape),
                          .begin = data_begin + begin,
                          .end = data_begin + end};
}

absl::Status CheckMetadata(const dom::element& value) {
  dom::object object;
  if (value.get(object) != simdjson::SUCCESS) {
    return InvalidArgument("__metadata__ is not an object");
  }
  for (const dom::key_value_pair field : object) {
    if (!field.value.is_string()) {
      return InvalidArgument("__metadata__ holds something else than strings");
    }
  }
  return absl::OkStatus();
}

// The ranges tile [data_begin, file_bytes).
absl::Status CheckTiling(const SafetensorsIndex& index, uint64_t data_begin, uint64_t file_bytes) {
  std::vector<const SafetensorsIndex::value_type*> order;
  order.reserve(index.size());
  for (const auto& entry : index) {
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t covered = data_begin;
  for (const auto* entry : order) {
    if (entry->second.begin != covered) {
      return InvalidArgument(
          "tensor {}: data_offsets leave a gap or overlap (starts at byte {}, expected {})",
          Printable(entry->first), entry->second.begin - data_begin, covered - data_begin);
    }
    covered = entry->second.end;
  }
  if (covered != file_bytes) {
    return InvalidArgument("{} bytes of data belong to no tensor", file_bytes - covered);
  }
  return absl::OkStatus();
}

// Bytes of the JSON, which end inside the file.
absl::StatusOr<uint64_t> HeaderBytes(std::span<const std::byte> beginning, uint64_t file_bytes) {
  if (file_bytes < kLengthBytes || beginning.size() < kLengthBytes) {
    return InvalidArgument("{} bytes are too few for a header length", file_bytes);
  }
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    header_bytes |= std::to_integer<uint64_t>(beginning[i]) << (8 * i);
  }
  if (header_bytes == 0 || header_bytes > kSafetensorsHeaderBytesMax) {
    return InvalidArgument("header length {} is not in [1, {}]", header_bytes,
                           kSafetensorsHeaderBytesMax);
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    return InvalidArgument("header length {} exceeds the file's {} bytes", header_bytes,
                           file_bytes);
  }
  return header_bytes;
}

// Length word and JSON.
absl::StatusOr<std::vector<std::byte>> ReadHeader(const InputFile& file) {
  std::vector<std::byte> header(std::min<uint64_t>(file.size(), kLengthBytes));
  SY_RETURN_IF_ERROR(file.ReadAt(0, header));
  const auto header_bytes = HeaderBytes(header, file.size());
  if (!header_bytes.ok()) {
    return Annotate(header_bytes.status(), file.path());
  }
  header.resize(kLengthBytes + *header_bytes);
  SY_RETURN_IF_ERROR(file.ReadAt(0, header));
  return header;
}

}  // namespace

absl::StatusOr<SafetensorsIndex> ParseSafetensors(std::span<const std::byte> beginning,
                                                  uint64_t file_bytes) {
  SY_ASSIGN_OR_RETURN(const uint64_t header_bytes, HeaderBytes(beginning, file_bytes));
  const uint64_t data_begin = kLengthBytes + header_bytes;
  const simdjson::padded_string json(reinterpret_cast<const char*>(beginning.data()) + kLengthBytes,
                                     header_bytes);
  dom::parser parser;
  if (parser.allocate(header_bytes, kJsonDepthMax) != simdjson::SUCCESS) {
    return ResourceExhausted("no memory for a header of {} bytes", header_bytes);
  }
  dom::object root;
  if (const auto error = parser.parse(json).get(root); error != simdjson::SUCCESS) {
    return InvalidArgument("header is not a JSON object: {}", simdjson::error_message(error));
  }
  SafetensorsIndex index;
  bool has_metadata = false;
  for (const dom::key_value_pair field : root) {
    if (field.key == "__metadata__") {
      if (std::exchange(has_metadata, true)) {
        return InvalidArgument("__metadata__ is given twice");
      }
      SY_RETURN_IF_ERROR(CheckMetadata(field.value));
      continue;
    }
    if (index.size() == kSafetensorsTensorsMax) {
      return InvalidArgument("more than {} tensors", kSafetensorsTensorsMax);
    }
    auto entry = ParseEntry(field.value, data_begin, file_bytes - data_begin);
    if (!entry.ok()) {
      return Annotate(entry.status(), fmt::format("tensor {}", Printable(field.key)));
    }
    if (!index.emplace(std::string(field.key), *std::move(entry)).second) {
      return InvalidArgument("tensor {}: given twice", Printable(field.key));
    }
  }
  SY_RETURN_IF_ERROR(CheckTiling(index, data_begin, file_bytes));
  return index;
}

absl::StatusOr<SafetensorsIndex> ParseSafetensors(std::span<const std::byte> file) {
  return ParseSafetensors(file, file.size());
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SY_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  SY_ASSIGN_OR_RETURN(std::vector<std::byte> header, ReadHeader(file));
  auto index = ParseSafetensors(header, file.size());
  if (!index.ok()) {
    return Annotate(index.status(), path);
  }
  return SafetensorsFile(std::move(file), std::move(header), *std::move(index));
}

SafetensorsFile::SafetensorsFile(InputFile file, std::vector<std::byte> header,
                                 SafetensorsIndex index)
    : file_(std::move(file)), header_(std::move(header)), index_(std::move(index)) {}

absl::StatusOr<std::vector<std::byte>> SafetensorsFile::Read(const SafetensorsEntry& entry) const {
  std::vector<std::byte> bytes(entry.byte_size());
  SY_RETURN_IF_ERROR(file_.ReadAt(entry.begin, bytes));
  SY_RETURN_IF_ERROR(file_.CheckUnchanged());
  return bytes;
}

const SafetensorsEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto found = index_.find(absl::string_view(name.data(), name.size()));
  return found == index_.end() ? nullptr : &found->second;
}

}  // namespace switchyard
