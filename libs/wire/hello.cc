#include "libs/wire/hello.h"

#include <algorithm>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

void Append(std::span<const std::byte> bytes, std::span<std::byte> out, size_t& size) {
  SY_CHECK(size + bytes.size() <= out.size());
  std::ranges::copy(bytes, out.begin() + static_cast<ptrdiff_t>(size));
  size += bytes.size();
}

}  // namespace

absl::StatusOr<HelloFrame> ParseHello(const ParsedFrame& frame) {
  const std::span<const std::byte> payload = frame.payload;
  HelloFrame hello;
  if (payload.size() < sizeof(HelloBody)) {
    return InvalidArgument("hello: body of {} bytes, at least {}", payload.size(),
                           sizeof(HelloBody));
  }
  std::memcpy(&hello.body, payload.data(), sizeof(HelloBody));
  const HelloBody& body = hello.body;
  if (body.numerics_bytes > kNumericsIdBytesMax || body.digest_bytes > kModelDigestBytesMax ||
      body.text_bytes > kHelloTextBytesMax) {
    return InvalidArgument("hello: strings of {}, {} and {} bytes, limits {}, {} and {}",
                           body.numerics_bytes, body.digest_bytes, body.text_bytes,
                           kNumericsIdBytesMax, kModelDigestBytesMax, kHelloTextBytesMax);
  }
  const size_t wanted =
      sizeof(HelloBody) + body.numerics_bytes + body.digest_bytes + body.text_bytes;
  if (wanted != payload.size()) {
    return InvalidArgument("hello: strings end at {} of {} bytes", wanted, payload.size());
  }
  if (body.role != PeerRole::kRouter && body.role != PeerRole::kShard) {
    return InvalidArgument("hello: unknown role {}", static_cast<unsigned>(body.role));
  }
  if (body.version_min > body.version_max) {
    return InvalidArgument("hello: versions {} to {}", body.version_min, body.version_max);
  }
  const char* strings = reinterpret_cast<const char*>(payload.data()) + sizeof(HelloBody);
  hello.numerics_id = {strings, body.numerics_bytes};
  hello.model_digest = {strings + body.numerics_bytes, body.digest_bytes};
  hello.text = {strings + body.numerics_bytes + body.digest_bytes, body.text_bytes};
  return hello;
}

size_t EncodeHello(FrameHeader header, const HelloFrame& hello, std::span<std::byte> out) {
  const std::string_view numerics = hello.numerics_id.substr(0, kNumericsIdBytesMax);
  const std::string_view digest = hello.model_digest.substr(0, kModelDigestBytesMax);
  const std::string_view text = hello.text.substr(0, kHelloTextBytesMax);
  HelloBody body = hello.body;
  body.numerics_bytes = static_cast<uint16_t>(numerics.size());
  body.digest_bytes = static_cast<uint16_t>(digest.size());
  body.text_bytes = static_cast<uint16_t>(text.size());
  SealFrame(header, 0, {BytesOfValue(body), AsBytes(numerics), AsBytes(digest), AsBytes(text)});
  size_t size = 0;
  Append(BytesOfValue(header), out, size);
  Append(BytesOfValue(body), out, size);
  Append(AsBytes(numerics), out, size);
  Append(AsBytes(digest), out, size);
  Append(AsBytes(text), out, size);
  return size;
}

size_t EncodeError(FrameHeader header, std::string_view text, std::span<std::byte> out) {
  header.kind = FrameKind::kError;
  const std::string_view cut = text.substr(0, kErrorTextBytesMax);
  SealFrame(header, 0, {AsBytes(cut)});
  size_t size = 0;
  Append(BytesOfValue(header), out, size);
  Append(AsBytes(cut), out, size);
  return size;
}

absl::Status CheckHello(const FrameHeader& header, const HelloFrame& hello,
                        const HelloExpectation& expected) {
  const HelloBody& body = hello.body;
  if (body.role != expected.role) {
    return FailedPrecondition("peer has role {}, expected {}", static_cast<unsigned>(body.role),
                              static_cast<unsigned>(expected.role));
  }
  if (body.version_max < kWireVersionMin || body.version_min > kWireVersion) {
    return FailedPrecondition("peer speaks wire versions {} to {}, this side {} to {}",
                              body.version_min, body.version_max, kWireVersionMin, kWireVersion);
  }
  if (hello.model_digest != expected.model_digest) {
    return FailedPrecondition("peer has model digest '{}', this side '{}'",
                              Printable(hello.model_digest), expected.model_digest);
  }
  if (hello.numerics_id != expected.numerics_id) {
    return FailedPrecondition("peer has numerics id '{}', this side '{}'",
                              Printable(hello.numerics_id), expected.numerics_id);
  }
  if (header.hidden_size != expected.hidden_size) {
    return FailedPrecondition("peer has hidden size {}, this side {}", header.hidden_size,
                              expected.hidden_size);
  }
  if (header.dtype != expected.dtype) {
    return FailedPrecondition("peer sends rows as {}, this side {}", NameOf(header.dtype),
                              NameOf(expected.dtype));
  }
  return absl::OkStatus();
}

std::string Printable(std::string_view text) {
  std::string printable(text.substr(0, kErrorTextBytesMax));
  std::ranges::replace_if(printable, [](char c) { return c < ' ' || c > '~'; }, '?');
  return printable;
}

}  // namespace switchyard
