#include "libs/base/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
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

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    return ErrnoStatus("open", path);
  }
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) {
    return ErrnoStatus("stat", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument("map {}: not a regular file", path);
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) {
    return MappedFile(path, nullptr, 0);
  }
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    return ErrnoStatus("map", path);
  }
  return MappedFile(path, data, size);
}

MappedFile::MappedFile(std::string path, void* data, size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

}  // namespace switchyard
