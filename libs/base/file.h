#ifndef SWITCHYARD_LIBS_BASE_FILE_H_
#define SWITCHYARD_LIBS_BASE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// The whole file. NotFound if there is none, ResourceExhausted if it is larger than `bytes_max`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max);

// Replaces `path` atomically (temporary file, fsync, rename).
absl::Status WriteFileAtomically(const std::string& path, const std::string& content);

// MappedFile is a read-only memory map. Any thread; the bytes live as long as the object. The map
// is private: truncation of the file under it is not survivable, so checkpoints are replaced, never
// edited.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, void* data, size_t size);

  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_FILE_H_
