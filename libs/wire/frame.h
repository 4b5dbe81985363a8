#ifndef SWITCHYARD_LIBS_WIRE_FRAME_H_
#define SWITCHYARD_LIBS_WIRE_FRAME_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/tensor/dtype.h"

// Frames of the data plane. All integers are little-endian; docs/wire-format.md is the full
// grammar.
//
//   frame    = header (128 bytes) table payload        the message of the transport is one frame
//   table    = entry_count * RouteEntry                only in dispatch frames
//   payload  = row_count * hidden_size * dtype         dispatch, combine with status ok
//            | hello body (hello.h)                    hello, hello_ack
//            | at most 256 bytes of text               error
//
// Values and pure functions: any thread.

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "frames are used in place");

constexpr uint32_t kFrameMagic = 0x31465953U;     // "SYF1"
constexpr uint16_t kWireVersion = 1;              // The newest this build speaks.
constexpr uint16_t kWireVersionMin = 1;           // The oldest.
constexpr size_t kFrameRowBytesMax = 128 * 1024;  // Rows of a frame, and rows of its answer.
constexpr uint32_t kFrameEntriesMax = 16384;
constexpr uint32_t kHiddenSizeMax = 32768;  // One f32 row fills a frame.
constexpr uint16_t kSlotsMax = 64;          // Experts per row.
constexpr size_t kErrorTextBytesMax = 256;

enum class FrameKind : uint8_t {
  kHello = 1,     // Router to shard, first.
  kHelloAck = 2,  // Shard to router; status ok or refused.
  kDispatch = 3,
  kCombine = 4,
  kError = 5,  // Why the sender closes the connection.
};

// Of combine and hello_ack frames; zero in others.
enum class FrameStatus : uint8_t {
  kOk = 0,
  kStaleEpoch = 1,     // The shard lacks an expert and knows a newer placement.
  kUnknownExpert = 2,  // The shard lacks an expert and knows no newer placement.
  kBusy = 3,           // Its queue is full; nothing was computed.
  kBadFrame = 4,       // Well-formed, but not for this model: layer, hidden size, dtype.
  kNotFinite = 5,      // The expert's output is NaN or infinite for a finite row.
  kRefused = 6,        // hello_ack: no common version, or another model or numerics.
};

std::string_view NameOf(FrameStatus status);

// InvalidArgument for a model whose rows, or whose experts per row, frames cannot carry.
absl::Status CheckRowLimits(uint32_t hidden_size, Dtype dtype, uint32_t top_k);

struct FrameHeader {
  uint32_t magic = kFrameMagic;
  uint16_t version = kWireVersion;
  FrameKind kind = FrameKind::kError;
  Dtype dtype = Dtype::kF32;     // Of the rows.
  uint64_t key_epoch = 0;        // Of the sealing key; 0 means not sealed.
  uint64_t placement_epoch = 0;  // dispatch: routed by; answers: newest that the shard knows.
  uint64_t sender_incarnation = 0;
  uint64_t sequence = 0;       // Of the call; unique for one sender incarnation, echoed.
  uint64_t trace_id_high = 0;  // W3C trace id; 0 means none.
  uint64_t trace_id_low = 0;
  uint64_t reply_id = 0;      // The sender's mark of the reserved reply room, echoed.
  uint32_t crc = 0;           // CRC-32C of the frame with this field zero.
  uint32_t remaining_us = 0;  // Time left until the caller gives up, at the time of sending.
  uint32_t row_count = 0;
  uint32_t entry_count = 0;  // dispatch: table; combine: rows asked for, echoed.
  uint32_t hidden_size = 0;
  uint32_t payload_bytes = 0;
  uint16_t layer = 0;
  uint16_t fragment_index = 0;
  uint16_t fragment_count = 0;  // Frames of this call to all shards; each stands alone.
  uint16_t model_slot = 0;
  uint32_t adapter = 0;
  uint16_t micro_batch = 0;
  uint8_t attempt = 0;   // 0 for the first sending of this fragment.
  uint8_t priority = 0;  // 0 is normal; higher first.
  FrameStatus status = FrameStatus::kOk;
  uint8_t more_follows = 0;   // dispatch: not 0 when frames of this call to this shard come next.
  uint8_t reserved[22] = {};  // Sent as zero, ignored when received.
};

static_assert(std::is_trivially_copyable_v<FrameHeader> && sizeof(FrameHeader) == 128);
static_assert(offsetof(FrameHeader, magic) == 0 && offsetof(FrameHeader, version) == 4);
static_assert(offsetof(FrameHeader, kind) == 6 && offsetof(FrameHeader, dtype) == 7);
static_assert(offsetof(FrameHeader, key_epoch) == 8);
static_assert(offsetof(FrameHeader, placement_epoch) == 16);
static_assert(offsetof(FrameHeader, sender_incarnation) == 24);
static_assert(offsetof(FrameHeader, sequence) == 32);
static_assert(offsetof(FrameHeader, trace_id_high) == 40);
static_assert(offsetof(FrameHeader, trace_id_low) == 48);
static_assert(offsetof(FrameHeader, reply_id) == 56 && offsetof(FrameHeader, crc) == 64);
static_assert(offsetof(FrameHeader, remaining_us) == 68);
static_assert(offsetof(FrameHeader, row_count) == 72);
static_assert(offsetof(FrameHeader, entry_count) == 76);
static_assert(offsetof(FrameHeader, hidden_size) == 80);
static_assert(offsetof(FrameHeader, payload_bytes) == 84);
static_assert(offsetof(FrameHeader, layer) == 88 && offsetof(FrameHeader, fragment_index) == 90);
static_assert(offsetof(FrameHeader, fragment_count) == 92);
static_assert(offsetof(FrameHeader, model_slot) == 94 && offsetof(FrameHeader, adapter) == 96);
static_assert(offsetof(FrameHeader, micro_batch) == 100 && offsetof(FrameHeader, attempt) == 102);
static_assert(offsetof(FrameHeader, priority) == 103 && offsetof(FrameHeader, status) == 104);
static_assert(offsetof(FrameHeader, more_follows) == 105 && offsetof(FrameHeader, reserved) == 106);

// "Compute `expert` of row `row` of this frame." The answer to entry i is row i of the combine
// frame.
struct RouteEntry {
  uint16_t expert = 0;
  uint16_t slot = 0;  // Of the expert among those of the row.
  uint32_t row = 0;

  friend bool operator==(const RouteEntry&, const RouteEntry&) = default;
};

static_assert(std::is_trivially_copyable_v<RouteEntry> && sizeof(RouteEntry) == 8);
static_assert(offsetof(RouteEntry, slot) == 2 && offsetof(RouteEntry, row) == 4);

// The routing table inside a message, which may lie at any address. A view.
class RouteEntries {
 public:
  RouteEntries() = default;

  RouteEntries(const std::byte* data, uint32_t count) : data_(data), count_(count) {}

  uint32_t size() const { return count_; }

  RouteEntry operator[](uint32_t index) const {
    RouteEntry entry;
    std::memcpy(&entry, data_ + size_t{index} * sizeof(entry), sizeof(entry));
    return entry;
  }

 private:
  const std::byte* data_ = nullptr;
  uint32_t count_ = 0;
};

// What a checked message says. Views live as long as the message.
struct ParsedFrame {
  FrameHeader header;
  RouteEntries entries;  // dispatch
  std::span<const std::byte> payload;

  const std::byte* row(uint32_t index) const {
    return payload.data() + size_t{index} * header.hidden_size * BytesOf(header.dtype);
  }
};

// Checks lengths, enumerations, order of the table and the checksum. InvalidArgument for what
// breaks the grammar, DataLoss for the checksum. Entries are strictly ascending by (expert, row)
// and their rows lie in the frame; whether experts and layers exist is the caller's to check.
absl::StatusOr<ParsedFrame> ParseFrame(std::span<const std::byte> message);

// Sets payload_bytes and crc for a frame whose table and payload are `parts`, in this order.
// `table_bytes` of them are the table.
void SealFrame(FrameHeader& header, size_t table_bytes,
               std::initializer_list<std::span<const std::byte>> parts);

template <typename T>
std::span<const std::byte> BytesOfValue(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_WIRE_FRAME_H_
