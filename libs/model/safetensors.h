#ifndef SWITCHYARD_LIBS_MODEL_SAFETENSORS_H_
#define SWITCHYARD_LIBS_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "libs/base/file.h"

namespace switchyard {

// One tensor of a safetensors file. `dtype` is the format's own name ("BF16", "F8_E4M3"); formats
// this project cannot compute with are listed too, and refused when used.
struct SafetensorsEntry {
  std::string dtype;
  std::vector<uint64_t> shape;  // At most kSafetensorsRankMax.
  uint64_t begin = 0;           // Byte offsets into the file, header included.
  uint64_t end = 0;

  uint64_t byte_size() const { return end - begin; }
};

inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;  // As the format's own reader.
inline constexpr size_t kSafetensorsRankMax = 8;
inline constexpr size_t kSafetensorsTensorsMax = 1'000'000;

using SafetensorsIndex = absl::flat_hash_map<std::string, SafetensorsEntry>;

// Parses the beginning of a file of `file_bytes`: at least its header, or all of it.
//   file   = header_bytes:u64le  json[header_bytes]  data
//   json   = { "__metadata__"?: {string: string}, name: tensor, ... }
//   tensor = { "dtype": string, "shape": [u64...], "data_offsets": [begin, end] }
// where the tensors' ranges tile `data` exactly: no gap, no overlap, nothing left over, and each
// range has the size that dtype and shape say. Pure; InvalidArgument names the tensor.
absl::StatusOr<SafetensorsIndex> ParseSafetensors(std::span<const std::byte> beginning,
                                                  uint64_t file_bytes);

// The same, when all of the file is at hand.
absl::StatusOr<SafetensorsIndex> ParseSafetensors(std::span<const std::byte> file);

// SafetensorsFile is one open and checked file, of which only the header is in memory. Any thread;
// immutable.
class SafetensorsFile {
 public:
  // Errors name the file.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  // Null if there is no such tensor.
  const SafetensorsEntry* Find(std::string_view name) const;

  // The bytes of an entry of this file.
  absl::StatusOr<std::vector<std::byte>> Read(const SafetensorsEntry& entry) const;

  const SafetensorsIndex& index() const { return index_; }

  // Length word and JSON, as they are in the file.
  std::span<const std::byte> header() const { return header_; }

  const InputFile& file() const { return file_; }

  const std::string& path() const { return file_.path(); }

 private:
  SafetensorsFile(InputFile file, std::vector<std::byte> header, SafetensorsIndex index);

  InputFile file_;
  std::vector<std::byte> header_;
  SafetensorsIndex index_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_SAFETENSORS_H_
