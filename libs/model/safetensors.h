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

// Parses the header of the whole file `file`:
//   file   = header_bytes:u64le  json[header_bytes]  data
//   json   = { "__metadata__"?: {string: string}, name: tensor, ... }
//   tensor = { "dtype": string, "shape": [u64...], "data_offsets": [begin, end] }
// where the tensors' ranges tile `data` exactly: no gap, no overlap, nothing left over, and each
// range has the size that dtype and shape say. Pure; InvalidArgument names the tensor.
absl::StatusOr<SafetensorsIndex> ParseSafetensors(std::span<const std::byte> file);

// SafetensorsFile is one mapped and checked file. Any thread; immutable.
class SafetensorsFile {
 public:
  // Errors name the file.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  // Null if there is no such tensor.
  const SafetensorsEntry* Find(std::string_view name) const;

  // The bytes of an entry of this file.
  std::span<const std::byte> BytesOf(const SafetensorsEntry& entry) const {
    return file_.bytes().subspan(entry.begin, entry.byte_size());
  }

  const SafetensorsIndex& index() const { return index_; }

  std::span<const std::byte> bytes() const { return file_.bytes(); }

  const std::string& path() const { return file_.path(); }

 private:
  SafetensorsFile(MappedFile file, SafetensorsIndex index);

  MappedFile file_;
  SafetensorsIndex index_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_SAFETENSORS_H_
