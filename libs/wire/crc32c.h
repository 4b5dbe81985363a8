#ifndef SWITCHYARD_LIBS_WIRE_CRC32C_H_
#define SWITCHYARD_LIBS_WIRE_CRC32C_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace switchyard {

// CRC-32C (Castagnoli) of the bytes seen so far and `bytes`; begin with 0. Any thread; pure.
uint32_t ExtendCrc32c(uint32_t crc, std::span<const std::byte> bytes);

// The same without special instructions; the reference twin.
uint32_t ExtendCrc32cPortable(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_WIRE_CRC32C_H_
