#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_SHA256_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <openssl/evp.h>

#include "absl/status/statusor.h"

#include "libs/base/status.h"

namespace switchyard::internal {

// SHA-256 over what is added. One owner.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }

  void Add(std::span<const std::byte> bytes) {
    ok_ = ok_ && EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1;
  }

  void Add(std::string_view text) { Add(std::as_bytes(std::span(text))); }

  // A name, a zero byte and a size (u64, little-endian), so that neighbours cannot be confused.
  void AddFrame(std::string_view name, uint64_t size) {
    Add(name);
    std::array<std::byte, 9> frame = {};
    for (size_t i = 0; i < 8; ++i) {
      frame[i + 1] = static_cast<std::byte>(size >> (8 * i));
    }
    Add(frame);
  }

  // Hex; once.
  absl::StatusOr<std::string> Finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest = {};
    unsigned int size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1;
    if (!ok_) {
      return Internal("OpenSSL cannot compute SHA-256");
    }
    std::string hex;
    for (unsigned int i = 0; i < size; ++i) {
      hex += fmt::format("{:02x}", digest[i]);
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
  bool ok_ = false;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_SHA256_H_
