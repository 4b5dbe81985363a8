#include "libs/base/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libs/base/status.h"

namespace switchyard {
namespace {

absl::Status ErrnoStatus(const std::string& action, const std::string& path) {
  const int error = errno;
  if (error == ENOENT) {
    return NotFound("{} {}: no such file", action, path);
  }
  return Unavailable("{} {}: {}", action, path, std::strerror(error));
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}

  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }

  int get() const { return fd_; }

 private:
  int fd_;
};

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    return ErrnoStatus("open", path);
  }
  std::string content;
  char chunk[65536];
  while (true) {
    const ssize_t got = ::read(file.get(), chunk, sizeof(chunk));
    if (got < 0) {
      return ErrnoStatus("read", path);
    }
    if (got == 0) {
      return content;
    }
    if (content.size() + static_cast<size_t>(got) > bytes_max) {
      return ResourceExhausted("read {}: larger than {} bytes", path, bytes_max);
    }
    content.append(chunk, static_cast<size_t>(got));
  }
}

absl::StatusOr<std::string> ReadRegularFile(const std::string& path, size_t bytes_max) {
  SY_ASSIGN_OR_RETURN(const InputFile file, InputFile::Open(path));
  if (file.size() > bytes_max) {
    return ResourceExhausted("read {}: larger than {} bytes", path, bytes_max);
  }
  std::string content(file.size(), '\0');
  SY_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(content))));
  return content;
}

absl::Status WriteFileAtomically(const std::string& path, const std::string& content) {
  const std::string temporary = path + ".tmp";
  {
    const Descriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0) {
      return ErrnoStatus("create", temporary);
    }
    size_t written = 0;
    while (written < content.size()) {
      const ssize_t put = ::write(file.get(), content.data() + written, content.size() - written);
      if (put < 0) {
        return ErrnoStatus("write", temporary);
      }
      written += static_cast<size_t>(put);
    }
    if (::fsync(file.get()) != 0) {
      return ErrnoStatus("fsync", temporary);
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus("rename", path);
  }
  return absl::OkStatus();
}

absl::StatusOr<InputFile> InputFile::Open(const std::string& path) {
  // Opening a pipe without O_NONBLOCK waits for a writer; regular files do not care.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return ErrnoStatus("open", path);
  }
  InputFile file(path, descriptor, 0, 0);
  struct stat info = {};
  if (::fstat(descriptor, &info) != 0) {
    return ErrnoStatus("stat", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument("open {}: not a regular file", path);
  }
  file.size_ = static_cast<uint64_t>(info.st_size);
  file.modified_ns_ = ModifiedNs(info);
  return file;
}

absl::Status InputFile::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::pread(descriptor_, out.data() + done, out.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return ErrnoStatus("read", path_);
    }
    if (got == 0) {
      return DataLoss("read {}: ends at byte {} of the {} it had", path_, offset + done, size_);
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status InputFile::CheckUnchanged() const {
  struct stat info = {};
  if (::fstat(descriptor_, &info) != 0) {
    return ErrnoStatus("stat", path_);
  }
  if (static_cast<uint64_t>(info.st_size) != size_ || ModifiedNs(info) != modified_ns_) {
    return DataLoss("{} was changed while it was read", path_);
  }
  return absl::OkStatus();
}

InputFile::InputFile(std::string path, int descriptor, uint64_t size, int64_t modified_ns)
    : path_(std::move(path)), descriptor_(descriptor), size_(size), modified_ns_(modified_ns) {}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      modified_ns_(other.modified_ns_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  std::swap(modified_ns_, other.modified_ns_);
  return *this;
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return ErrnoStatus("create", path);
  }
  return OutputFile(path, descriptor);
}

absl::Status OutputFile::Append(std::span<const std::byte> bytes) {
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t put = ::write(descriptor_, bytes.data() + written, bytes.size() - written);
    if (put < 0 && errno != EINTR) {
      return ErrnoStatus("write", path_);
    }
    written += put < 0 ? 0 : static_cast<size_t>(put);
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Finish() {
  if (::fsync(descriptor_) != 0) {
    return ErrnoStatus("fsync", path_);
  }
  return absl::OkStatus();
}

OutputFile::OutputFile(std::string path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

}  // namespace switchyard
