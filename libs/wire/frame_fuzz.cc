#include <cstdint>
#include <vector>

#include "libs/base/check.h"
#include "libs/wire/crc32c.h"
#include "libs/wire/frame.h"
#include "libs/wire/hello.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

// Reads everything that a parsed frame offers, as a router or shard would; the sum keeps it from
// being left out.
uint64_t Use(const ParsedFrame& frame) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < frame.entries.size(); ++i) {
    const RouteEntry entry = frame.entries[i];
    SY_CHECK(entry.row < frame.header.row_count && entry.slot < kSlotsMax);
    sum += entry.expert;
  }
  const bool rows =
      frame.header.kind == FrameKind::kDispatch ||
      (frame.header.kind == FrameKind::kCombine && frame.header.status == FrameStatus::kOk);
  std::vector<float> row(rows ? frame.header.hidden_size : 0);
  for (uint32_t i = 0; rows && i < frame.header.row_count; ++i) {
    sum += DecodeRow(frame.row(i), frame.header.dtype, row) ? 1 : 0;
  }
  if (frame.header.kind == FrameKind::kHello || frame.header.kind == FrameKind::kHelloAck) {
    const auto hello = ParseHello(frame);
    SY_CHECK(hello.ok());
    const HelloExpectation expected{.numerics_id = "n",
                                    .model_digest = "d",
                                    .hidden_size = 16,
                                    .dtype = Dtype::kF32,
                                    .role = PeerRole::kRouter};
    sum += CheckHello(frame.header, *hello, expected).message().size();
  }
  return sum;
}

// Gives the message the checksum it asks for, so that mutations get past it.
void FixChecksum(std::vector<std::byte>& message) {
  FrameHeader header;
  std::memcpy(&header, message.data(), sizeof(header));
  header.crc = 0;
  const uint32_t crc = ExtendCrc32c(ExtendCrc32c(0, BytesOfValue(header)),
                                    std::span(message).subspan(sizeof(header)));
  std::memcpy(message.data() + offsetof(FrameHeader, crc), &crc, sizeof(crc));
}

}  // namespace
}  // namespace switchyard

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> message(size);
  if (size > 0) {
    std::memcpy(message.data(), data, size);
  }
  uint64_t sum = 0;
  const auto as_is = switchyard::ParseFrame(message);
  if (as_is.ok()) {
    sum += switchyard::Use(*as_is);
  }
  if (size >= sizeof(switchyard::FrameHeader)) {
    switchyard::FixChecksum(message);
    const auto fixed = switchyard::ParseFrame(message);
    if (fixed.ok()) {
      sum += switchyard::Use(*fixed);
    }
  }
  SY_CHECK(sum != ~uint64_t{0});
  return 0;
}
