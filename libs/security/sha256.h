#ifndef SWITCHYARD_LIBS_SECURITY_SHA256_H_
#define SWITCHYARD_LIBS_SECURITY_SHA256_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace switchyard {

using Sha256Digest = std::array<uint8_t, 32>;

// SHA-256 (FIPS 180-4) of `bytes`. Any thread.
Sha256Digest Sha256(std::string_view bytes);

// 64 lower-case hexadecimal digits.
std::string ToHex(const Sha256Digest& digest);

// Nothing unless `hex` is 64 hexadecimal digits of either case.
std::optional<Sha256Digest> DigestFromHex(std::string_view hex);

// Compares in a time that does not depend on where the digests differ.
bool ConstantTimeEqual(const Sha256Digest& a, const Sha256Digest& b);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_SECURITY_SHA256_H_
