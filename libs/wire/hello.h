#ifndef SWITCHYARD_LIBS_WIRE_HELLO_H_
#define SWITCHYARD_LIBS_WIRE_HELLO_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/wire/frame.h"

// The first frame of each side: a router sends hello, a shard answers hello_ack. Incarnation,
// hidden size and dtype are in the header; a refusing hello_ack (status refused) says why in
// `text`.
//
//   hello body = version_min u16, version_max u16, role u8, zero u8, ordinal u32 (at 8),
//   entry_credits u32,
//                numerics_bytes u16, digest_bytes u16, text_bytes u16, zero u16, zero u64 (to 32),
//                numerics id, model digest, text
//
// Values and pure functions: any thread.

namespace switchyard {

constexpr size_t kNumericsIdBytesMax = 256;
constexpr size_t kModelDigestBytesMax = 128;
constexpr size_t kHelloTextBytesMax = 256;

enum class PeerRole : uint8_t { kRouter = 1, kShard = 2 };

struct HelloBody {
  uint16_t version_min = kWireVersionMin;
  uint16_t version_max = kWireVersion;
  PeerRole role = PeerRole::kRouter;
  uint8_t reserved_a[3] = {};
  uint32_t ordinal = 0;  // Of a shard.
  uint32_t entry_credits =
      0;  // Of a shard: entries a router may have in flight; 0 means one frame.
  uint16_t numerics_bytes = 0;
  uint16_t digest_bytes = 0;
  uint16_t text_bytes = 0;
  uint16_t reserved_b = 0;
  uint64_t reserved_c = 0;
};

static_assert(std::is_trivially_copyable_v<HelloBody> && sizeof(HelloBody) == 32);
static_assert(offsetof(HelloBody, version_max) == 2 && offsetof(HelloBody, role) == 4);
static_assert(offsetof(HelloBody, ordinal) == 8 && offsetof(HelloBody, entry_credits) == 12);
static_assert(offsetof(HelloBody, numerics_bytes) == 16 && offsetof(HelloBody, digest_bytes) == 18);
static_assert(offsetof(HelloBody, text_bytes) == 20 && offsetof(HelloBody, reserved_c) == 24);

constexpr size_t kHelloFrameBytesMax = sizeof(FrameHeader) + sizeof(HelloBody) +
                                       kNumericsIdBytesMax + kModelDigestBytesMax +
                                       kHelloTextBytesMax;

// Views into the message, or into the caller's strings when encoding. Text may hold any byte.
struct HelloFrame {
  HelloBody body;
  std::string_view numerics_id;
  std::string_view model_digest;
  std::string_view text;
};

// InvalidArgument when lengths or enumerations are off. ParseFrame() has already called it.
absl::StatusOr<HelloFrame> ParseHello(const ParsedFrame& frame);

// Writes a whole frame of `header.kind` to `out` (at least kHelloFrameBytesMax bytes) and returns
// its size. Strings beyond their limits are cut.
size_t EncodeHello(FrameHeader header, const HelloFrame& hello, std::span<std::byte> out);

// Writes an error frame to `out` (at least 128 + kErrorTextBytesMax bytes) and returns its size.
size_t EncodeError(FrameHeader header, std::string_view text, std::span<std::byte> out);

// What each side must agree on, and what this side has.
struct HelloExpectation {
  std::string_view numerics_id;
  std::string_view model_digest;
  uint32_t hidden_size = 0;
  Dtype dtype = Dtype::kF32;
  PeerRole role = PeerRole::kShard;  // The other side must be.
};

// FailedPrecondition naming the first difference with both values.
absl::Status CheckHello(const FrameHeader& header, const HelloFrame& hello,
                        const HelloExpectation& expected);

// Printable ASCII of a peer's text, cut to its limit: safe for logs and status pages.
std::string Printable(std::string_view text);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_WIRE_HELLO_H_
