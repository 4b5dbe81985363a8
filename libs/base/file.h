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

// The same, but refuses what is not a regular file, such as a pipe, which could let a reader wait
// for ever.
absl::StatusOr<std::string> ReadRegularFile(const std::string& path, size_t bytes_max);

// Replaces `path` atomically (temporary file, fsync, rename).
absl::Status WriteFileAtomically(const std::string& path, const std::string& content);

// InputFile is a regular file open for reading at any offset. It remembers what the file was when
// it was opened, so that a change while it is read is noticed. A file that is replaced by rename
// goes on being read as it was.
//
// Any thread; the descriptor closes with the object.
class InputFile {
 public:
  static absl::StatusOr<InputFile> Open(const std::string& path);

  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  ~InputFile();

  // Fills `out` from `offset`. DataLoss when the file ends before that, naming it.
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;

  // DataLoss when size or modification time are no longer those at Open().
  absl::Status CheckUnchanged() const;

  uint64_t size() const { return size_; }

  const std::string& path() const { return path_; }

 private:
  InputFile(std::string path, int descriptor, uint64_t size, int64_t modified_ns);

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  int64_t modified_ns_ = 0;
};

// OutputFile is a new file that is written from its beginning. One owner; what Finish() did not
// confirm may be incomplete.
class OutputFile {
 public:
  // Replaces what is there.
  static absl::StatusOr<OutputFile> Create(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) = delete;
  ~OutputFile();

  absl::Status Append(std::span<const std::byte> bytes);

  // On disk once this is OK.
  absl::Status Finish();

 private:
  OutputFile(std::string path, int descriptor);

  std::string path_;
  int descriptor_ = -1;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_FILE_H_
