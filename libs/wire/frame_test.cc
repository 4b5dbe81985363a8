#include "libs/wire/frame.h"

#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/wire/crc32c.h"
#include "libs/wire/hello.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

std::string Hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  }
  return text;
}

// Two rows of two f32, three entries.
FrameHeader SmallHeader() {
  FrameHeader header;
  header.kind = FrameKind::kDispatch;
  header.placement_epoch = 3;
  header.sender_incarnation = 0x1122334455667788;
  header.sequence = 77;
  header.trace_id_high = 0xa1;
  header.trace_id_low = 0xb2;
  header.reply_id = 0x100000002;
  header.remaining_us = 5'000'000;
  header.row_count = 2;
  header.entry_count = 3;
  header.hidden_size = 2;
  header.layer = 4;
  header.fragment_index = 1;
  header.fragment_count = 2;
  header.micro_batch = 1;
  return header;
}

const std::vector<RouteEntry> kSmallEntries = {{.expert = 5, .slot = 0, .row = 0},
                                               {.expert = 5, .slot = 1, .row = 1},
                                               {.expert = 9, .slot = 0, .row = 1}};
const std::vector<float> kSmallRows = {1.0F, -2.0F, 0.5F, 3.0F};

Bytes Encode(FrameHeader header, std::span<const RouteEntry> entries, std::span<const float> rows) {
  const auto table = std::as_bytes(entries);
  const auto payload = std::as_bytes(rows);
  SealFrame(header, table.size(), {table, payload});
  Bytes message;
  for (const auto& part : {BytesOfValue(header), table, payload}) {
    message.insert(message.end(), part.begin(), part.end());
  }
  return message;
}

Bytes SmallFrame() { return Encode(SmallHeader(), kSmallEntries, kSmallRows); }

Bytes SmallHello(const HelloFrame& hello) {
  FrameHeader header;
  header.kind = FrameKind::kHello;
  header.sender_incarnation = 9;
  header.hidden_size = 16;
  Bytes message(kHelloFrameBytesMax);
  message.resize(EncodeHello(header, hello, message));
  return message;
}

HelloFrame RouterHello() {
  return {.body = {}, .numerics_id = "f32x16", .model_digest = "sha256:00", .text = ""};
}

TEST(Crc32c, KnownVectorsAndBothFormsAgree) {
  const std::string digits = "123456789";
  EXPECT_EQ(ExtendCrc32c(0, std::as_bytes(std::span(digits))), 0xe3069283U);
  const Bytes zeros(32);
  EXPECT_EQ(ExtendCrc32cPortable(0, zeros), 0x8a9136aaU);  // RFC 3720, B.4.
  Rng rng(1);
  Bytes bytes(1000);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(rng.Below(256));
  }
  for (size_t size = 0; size < 70; ++size) {
    const auto first = std::span(bytes).first(size);
    EXPECT_EQ(ExtendCrc32c(7, first), ExtendCrc32cPortable(7, first));
    EXPECT_EQ(ExtendCrc32c(ExtendCrc32c(0, first), std::span(bytes).subspan(size)),
              ExtendCrc32c(0, bytes));
  }
}

TEST(RowCodec, RoundTripsAndFindsWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  const float denormal = std::numeric_limits<float>::denorm_min();
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    SCOPED_TRACE(std::string(NameOf(dtype)));
    const std::vector<float> row = {0.0F, -1.5F, 256.0F, denormal, 3.0F};
    std::vector<float> back(row.size());
    alignas(4) std::byte bytes[5 * sizeof(float)];
    EXPECT_TRUE(EncodeRow(row, dtype, bytes));
    EXPECT_TRUE(DecodeRow(bytes, dtype, back));
    for (size_t i = 0; i < row.size(); ++i) {
      EXPECT_EQ(back[i], dtype == Dtype::kF32 ? row[i] : Bf16ToF32(F32ToBf16(row[i])));
    }
    for (const float bad : {infinity, -infinity, std::bit_cast<float>(0x7fffffffU),
                            std::bit_cast<float>(0xff800001U)}) {
      const std::vector<float> broken = {1.0F, bad, 1.0F};
      EXPECT_FALSE(EncodeRow(broken, dtype, bytes));
    }
    EXPECT_EQ(EncodeRow({&largest, 1}, dtype, bytes), dtype == Dtype::kF32);
    EXPECT_EQ(DecodeRow(bytes, dtype, {back.data(), 1}), dtype == Dtype::kF32);
  }
}

TEST(Frame, GoldenBytes) {
  EXPECT_EQ(Hex(SmallFrame()),
            "5359463101000300000000000000000003000000000000008877665544332211"
            "4d00000000000000a100000000000000b2000000000000000200000001000000"
            "25c84dc8404b4c00020000000300000002000000100000000400010002000000"
            "0000000001000000000000000000000000000000000000000000000000000000"
            "0500000000000000050001000100000009000000010000000000803f000000c0"
            "0000003f00004040");
}

TEST(Frame, GoldenHelloBytes) {
  EXPECT_EQ(Hex(SmallHello(RouterHello())),
            "5359463101000100000000000000000000000000000000000900000000000000"
            "0000000000000000000000000000000000000000000000000000000000000000"
            "d57d9f8e000000000000000000000000100000002f0000000000000000000000"
            "0000000000000000000000000000000000000000000000000000000000000000"
            "0100010001000000000000000000000006000900000000000000000000000000"
            "6633327831367368613235363a3030");
}

TEST(Frame, ParsesWhatWasEncoded) {
  const Bytes message = SmallFrame();
  const absl::StatusOr<ParsedFrame> frame = ParseFrame(message);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->header.sequence, 77U);
  EXPECT_EQ(frame->header.layer, 4U);
  ASSERT_EQ(frame->entries.size(), 3U);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(frame->entries[i], kSmallEntries[i]);
  }
  std::vector<float> row(2);
  EXPECT_TRUE(DecodeRow(frame->row(1), Dtype::kF32, row));
  EXPECT_EQ(row, (std::vector<float>{0.5F, 3.0F}));
}

TEST(Frame, ParsesAnswersWithAndWithoutRows) {
  FrameHeader header = SmallHeader();
  header.kind = FrameKind::kCombine;
  header.row_count = 2;
  header.entry_count = 2;
  EXPECT_TRUE(ParseFrame(Encode(header, {}, kSmallRows)).ok());
  header.status = FrameStatus::kBusy;
  header.row_count = 0;
  EXPECT_TRUE(ParseFrame(Encode(header, {}, {})).ok());
  EXPECT_FALSE(ParseFrame(Encode(header, {}, kSmallRows)).ok());
}

TEST(Frame, RefusesEveryFlippedBit) {
  const Bytes good = SmallFrame();
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(ParseFrame(bad).ok()) << "bit " << bit;
  }
}

TEST(Frame, RefusesEveryOtherLength) {
  Bytes message = SmallFrame();
  for (size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(ParseFrame(std::span(message).first(size)).ok()) << size;
  }
  message.resize(message.size() + 8);
  EXPECT_EQ(ParseFrame(message).status().code(), absl::StatusCode::kInvalidArgument);
}

// Headers with a right checksum and a wrong meaning.
TEST(Frame, RefusesHostileHeaders) {
  struct Case {
    std::string what;
    void (*change)(FrameHeader&);
    std::string message;
  };

  constexpr uint32_t kHuge = std::numeric_limits<uint32_t>::max();
  const Case cases[] = {
      {"magic", [](FrameHeader& h) { h.magic = 0x53594631; }, "magic"},
      {"old version", [](FrameHeader& h) { h.version = 0; }, "version 0"},
      {"new version", [](FrameHeader& h) { h.version = 2; }, "version 2"},
      {"kind", [](FrameHeader& h) { h.kind = static_cast<FrameKind>(9); }, "unknown kind 9"},
      {"no kind", [](FrameHeader& h) { h.kind = static_cast<FrameKind>(0); }, "unknown kind 0"},
      {"dtype", [](FrameHeader& h) { h.dtype = Dtype::kF16; }, "dtype 2"},
      {"status", [](FrameHeader& h) { h.status = static_cast<FrameStatus>(77); }, "status 77"},
      {"key epoch", [](FrameHeader& h) { h.key_epoch = 1; }, "not sealed"},
      {"rows 0", [](FrameHeader& h) { h.row_count = 0; }, "0 rows"},
      {"rows", [](FrameHeader& h) { h.row_count = kHuge; }, "rows for 3 entries"},
      {"entries", [](FrameHeader& h) { h.entry_count = kHuge; }, "header says"},
      {"wrap", [](FrameHeader& h) { h.entry_count = 0x20000003; }, "header says"},
      {"hidden 0", [](FrameHeader& h) { h.hidden_size = 0; }, "hidden size 0"},
      {"hidden", [](FrameHeader& h) { h.hidden_size = kHuge; }, "hidden size 4294967295"},
      {"hidden wrap", [](FrameHeader& h) { h.hidden_size = 0x40000002; }, "hidden size"},
      {"hidden other", [](FrameHeader& h) { h.hidden_size = 4; }, "expected 2 rows in 32 bytes"},
      {"answer too large", [](FrameHeader& h) { h.hidden_size = 16384; }, "in one answer"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    FrameHeader header = SmallHeader();
    test.change(header);
    const absl::Status status = ParseFrame(Encode(header, kSmallEntries, kSmallRows)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(test.message));
  }
}

TEST(Frame, RefusesHostileTables) {
  struct Case {
    std::string what;
    std::vector<RouteEntry> entries;
    std::string message;
  };

  const RouteEntry a = kSmallEntries[0];
  const RouteEntry b = kSmallEntries[1];
  const RouteEntry c = kSmallEntries[2];
  const Case cases[] = {
      {"unsorted experts", {a, c, b}, "out of order"},
      {"unsorted rows", {b, a, c}, "out of order"},
      {"duplicate", {a, a, c}, "out of order"},
      {"row", {a, b, {.expert = 9, .slot = 0, .row = 2}}, "row 2 of 2"},
      {"huge row", {a, b, {.expert = 9, .slot = 0, .row = 0xffffffff}}, "of 2"},
      {"slot", {a, {.expert = 5, .slot = 64, .row = 1}, c}, "slot 64 of 64"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    const absl::Status status =
        ParseFrame(Encode(SmallHeader(), test.entries, kSmallRows)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(test.message));
  }
}

TEST(Frame, SaysWhichModelsItCannotCarry) {
  EXPECT_TRUE(CheckRowLimits(7168, Dtype::kBf16, 8).ok());
  EXPECT_TRUE(CheckRowLimits(kHiddenSizeMax, Dtype::kF32, kSlotsMax).ok());
  for (const absl::Status& status :
       {CheckRowLimits(0, Dtype::kF32, 8), CheckRowLimits(kHiddenSizeMax + 1, Dtype::kBf16, 8),
        CheckRowLimits(64, Dtype::kF16, 8), CheckRowLimits(64, Dtype::kF32, 0),
        CheckRowLimits(64, Dtype::kF32, kSlotsMax + 1)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST(Frame, AnErrorFrameCarriesText) {
  Bytes message(sizeof(FrameHeader) + kErrorTextBytesMax);
  message.resize(EncodeError(FrameHeader(), std::string(1000, 'x'), message));
  const absl::StatusOr<ParsedFrame> frame = ParseFrame(message);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->payload.size(), kErrorTextBytesMax);
}

TEST(Hello, ParsesWhatWasEncodedAndCutsLongStrings) {
  const std::string numerics(1000, 'n');
  HelloFrame hello = RouterHello();
  hello.numerics_id = numerics;
  const Bytes message = SmallHello(hello);
  const absl::StatusOr<ParsedFrame> frame = ParseFrame(message);
  ASSERT_TRUE(frame.ok()) << frame.status();
  const absl::StatusOr<HelloFrame> back = ParseHello(*frame);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->numerics_id.size(), kNumericsIdBytesMax);
  EXPECT_EQ(back->model_digest, "sha256:00");
}

TEST(Hello, RefusesHostileBodies) {
  const auto parse = [](const HelloBody& body, size_t extra) {
    FrameHeader header;
    header.kind = FrameKind::kHello;
    const Bytes strings(extra);
    SealFrame(header, 0, {BytesOfValue(body), strings});
    Bytes message;
    for (const std::span<const std::byte> part :
         {BytesOfValue(header), BytesOfValue(body), std::span<const std::byte>(strings)}) {
      message.insert(message.end(), part.begin(), part.end());
    }
    return ParseFrame(message).status();
  };
  EXPECT_TRUE(parse({}, 0).ok());
  EXPECT_FALSE(parse({}, 1).ok());
  EXPECT_TRUE(parse({.numerics_bytes = 4}, 4).ok());
  EXPECT_FALSE(parse({.numerics_bytes = 4}, 3).ok());
  EXPECT_FALSE(parse({.numerics_bytes = 0xffff}, 0xffff).ok());
  EXPECT_FALSE(parse({.digest_bytes = 129}, 129).ok());
  EXPECT_FALSE(parse({.text_bytes = 257}, 257).ok());
  EXPECT_FALSE(parse({.role = static_cast<PeerRole>(3)}, 0).ok());
  EXPECT_FALSE(parse({.version_min = 2, .version_max = 1}, 0).ok());
}

TEST(Hello, NamesTheFirstDifference) {
  const HelloExpectation expected{.numerics_id = "f32x16",
                                  .model_digest = "sha256:00",
                                  .hidden_size = 16,
                                  .dtype = Dtype::kF32,
                                  .role = PeerRole::kRouter};

  struct Case {
    void (*change)(FrameHeader&, HelloFrame&);
    std::string message;
  };

  const Case cases[] = {
      {[](FrameHeader&, HelloFrame& h) { h.body.role = PeerRole::kShard; }, "role 2, expected 1"},
      {[](FrameHeader&, HelloFrame& h) { h.body.version_min = h.body.version_max = 9; },
       "wire versions 9 to 9, this side 1 to 1"},
      {[](FrameHeader&, HelloFrame& h) { h.model_digest = "other\n"; },
       "model digest 'other?', this side 'sha256:00'"},
      {[](FrameHeader&, HelloFrame& h) { h.numerics_id = "avx"; },
       "numerics id 'avx', this side 'f32x16'"},
      {[](FrameHeader& h, HelloFrame&) { h.hidden_size = 8; }, "hidden size 8, this side 16"},
      {[](FrameHeader& h, HelloFrame&) { h.dtype = Dtype::kBf16; }, "rows as bf16, this side f32"},
  };
  FrameHeader header;
  header.hidden_size = 16;
  EXPECT_TRUE(CheckHello(header, RouterHello(), expected).ok());
  for (const Case& test : cases) {
    FrameHeader other = header;
    HelloFrame hello = RouterHello();
    test.change(other, hello);
    const absl::Status status = CheckHello(other, hello, expected);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(MessageOf(status), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace switchyard
