#include "libs/wire/frame.h"

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/wire/crc32c.h"
#include "libs/wire/hello.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

// Hello frames keep the layout of version 1 for ever, so that peers without a common version can
// say so.
bool SpeaksAnyVersion(FrameKind kind) {
  return kind == FrameKind::kHello || kind == FrameKind::kHelloAck || kind == FrameKind::kError;
}

absl::Status CheckHeader(const FrameHeader& header) {
  if (header.magic != kFrameMagic) {
    return InvalidArgument("frame: magic {:#010x}, expected {:#010x}", header.magic, kFrameMagic);
  }
  if (header.kind < FrameKind::kHello || header.kind > FrameKind::kError) {
    return InvalidArgument("frame: unknown kind {}", static_cast<unsigned>(header.kind));
  }
  if (!SpeaksAnyVersion(header.kind) &&
      (header.version < kWireVersionMin || header.version > kWireVersion)) {
    return InvalidArgument("frame: version {}, this build speaks {} to {}", header.version,
                           kWireVersionMin, kWireVersion);
  }
  if (!IsRowDtype(header.dtype)) {
    return InvalidArgument("frame: dtype {} is not one of rows",
                           static_cast<unsigned>(header.dtype));
  }
  if (header.status > FrameStatus::kRefused) {
    return InvalidArgument("frame: unknown status {}", static_cast<unsigned>(header.status));
  }
  if (header.key_epoch != 0) {
    return InvalidArgument("frame: key epoch {}, but this connection is not sealed",
                           header.key_epoch);
  }
  return absl::OkStatus();
}

// Table and payload fill the message exactly. Sums of 32-bit numbers in 64 bits cannot wrap.
absl::Status CheckLength(const FrameHeader& header, size_t message_bytes) {
  const uint64_t entries = header.kind == FrameKind::kDispatch ? header.entry_count : 0;
  const uint64_t wanted = sizeof(FrameHeader) + entries * sizeof(RouteEntry) + header.payload_bytes;
  if (wanted != message_bytes) {
    return InvalidArgument("frame: header says {} bytes, message has {}", wanted, message_bytes);
  }
  return absl::OkStatus();
}

absl::Status CheckRows(const FrameHeader& header, uint64_t row_count) {
  if (header.hidden_size == 0 || header.hidden_size > kHiddenSizeMax) {
    return InvalidArgument("frame: hidden size {}, limit {}", header.hidden_size, kHiddenSizeMax);
  }
  if (header.entry_count == 0 || header.entry_count > kFrameEntriesMax) {
    return InvalidArgument("frame: {} entries, must be 1 to {}", header.entry_count,
                           kFrameEntriesMax);
  }
  const uint64_t row_bytes = uint64_t{header.hidden_size} * BytesOf(header.dtype);
  if (header.entry_count * row_bytes > kFrameRowBytesMax) {
    return InvalidArgument("frame: {} rows of {} bytes in one answer, limit {} bytes",
                           header.entry_count, row_bytes, kFrameRowBytesMax);
  }
  if (header.row_count != row_count || header.payload_bytes != row_count * row_bytes) {
    return InvalidArgument("frame: {} rows in {} bytes, expected {} rows in {} bytes",
                           header.row_count, header.payload_bytes, row_count,
                           row_count * row_bytes);
  }
  return absl::OkStatus();
}

absl::Status CheckEntries(const RouteEntries& entries, uint32_t row_count) {
  RouteEntry previous;
  for (uint32_t i = 0; i < entries.size(); ++i) {
    const RouteEntry entry = entries[i];
    if (entry.row >= row_count || entry.slot >= kSlotsMax) {
      return InvalidArgument("frame: entry {} names row {} of {}, slot {} of {}", i, entry.row,
                             row_count, entry.slot, kSlotsMax);
    }
    const bool ascends = entry.expert > previous.expert ||
                         (entry.expert == previous.expert && entry.row > previous.row);
    if (i > 0 && !ascends) {
      return InvalidArgument("frame: entry {} (expert {}, row {}) is out of order", i, entry.expert,
                             entry.row);
    }
    previous = entry;
  }
  return absl::OkStatus();
}

absl::Status CheckBody(const ParsedFrame& frame) {
  const FrameHeader& header = frame.header;
  switch (header.kind) {
    case FrameKind::kDispatch:
      if (header.row_count == 0 || header.row_count > header.entry_count) {
        return InvalidArgument("frame: {} rows for {} entries", header.row_count,
                               header.entry_count);
      }
      SY_RETURN_IF_ERROR(CheckRows(header, header.row_count));
      return CheckEntries(frame.entries, header.row_count);
    case FrameKind::kCombine:
      return CheckRows(header, header.status == FrameStatus::kOk ? header.entry_count : 0);
    case FrameKind::kHello:
    case FrameKind::kHelloAck:
      return ParseHello(frame).status();
    case FrameKind::kError:
      if (header.payload_bytes > kErrorTextBytesMax) {
        return InvalidArgument("frame: error text of {} bytes, limit {}", header.payload_bytes,
                               kErrorTextBytesMax);
      }
      return absl::OkStatus();
  }
  return Internal("frame: kind {} was not checked", static_cast<unsigned>(header.kind));
}

uint32_t CrcOfHeader(FrameHeader header) {
  header.crc = 0;
  return ExtendCrc32c(0, BytesOfValue(header));
}

}  // namespace

absl::Status CheckRowLimits(uint32_t hidden_size, Dtype dtype, uint32_t top_k) {
  if (!IsRowDtype(dtype)) {
    return InvalidArgument("wire: rows cannot be {}", NameOf(dtype));
  }
  const uint64_t row_bytes = uint64_t{hidden_size} * BytesOf(dtype);
  if (hidden_size == 0 || hidden_size > kHiddenSizeMax || row_bytes > kFrameRowBytesMax) {
    return InvalidArgument("wire: rows of {} {}, limits {} and {} bytes", hidden_size,
                           NameOf(dtype), kHiddenSizeMax, kFrameRowBytesMax);
  }
  if (top_k == 0 || top_k > kSlotsMax) {
    return InvalidArgument("wire: {} experts per row, limit {}", top_k, kSlotsMax);
  }
  return absl::OkStatus();
}

std::string_view NameOf(FrameStatus status) {
  switch (status) {
    case FrameStatus::kOk:
      return "ok";
    case FrameStatus::kStaleEpoch:
      return "stale epoch";
    case FrameStatus::kUnknownExpert:
      return "unknown expert";
    case FrameStatus::kBusy:
      return "busy";
    case FrameStatus::kBadFrame:
      return "bad frame";
    case FrameStatus::kNotFinite:
      return "not finite";
    case FrameStatus::kRefused:
      return "refused";
  }
  return "unknown";
}

absl::StatusOr<ParsedFrame> ParseFrame(std::span<const std::byte> message) {
  if (message.size() < sizeof(FrameHeader)) {
    return InvalidArgument("frame: {} bytes, a header has {}", message.size(), sizeof(FrameHeader));
  }
  ParsedFrame frame;
  // Enumerations are bytes on the wire: any value may be loaded, and is checked before it is used.
  std::memcpy(&frame.header, message.data(), sizeof(FrameHeader));
  SY_RETURN_IF_ERROR(CheckHeader(frame.header));
  SY_RETURN_IF_ERROR(CheckLength(frame.header, message.size()));
  const uint32_t crc =
      ExtendCrc32c(CrcOfHeader(frame.header), message.subspan(sizeof(FrameHeader)));
  if (crc != frame.header.crc) {
    return DataLoss("frame: checksum {:#010x}, header says {:#010x}", crc, frame.header.crc);
  }
  const std::span<const std::byte> body = message.subspan(sizeof(FrameHeader));
  const size_t table_bytes = body.size() - frame.header.payload_bytes;
  if (frame.header.kind == FrameKind::kDispatch) {
    frame.entries = RouteEntries(body.data(), frame.header.entry_count);
  }
  frame.payload = body.subspan(table_bytes);
  SY_RETURN_IF_ERROR(CheckBody(frame));
  return frame;
}

void SealFrame(FrameHeader& header, size_t table_bytes,
               std::initializer_list<std::span<const std::byte>> parts) {
  size_t bytes = 0;
  for (const auto& part : parts) {
    bytes += part.size();
  }
  SY_CHECK(bytes >= table_bytes);
  header.payload_bytes = static_cast<uint32_t>(bytes - table_bytes);
  uint32_t crc = CrcOfHeader(header);
  for (const auto& part : parts) {
    crc = ExtendCrc32c(crc, part);
  }
  header.crc = crc;
}

}  // namespace switchyard
