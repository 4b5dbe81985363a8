// What a frame costs: sealing (its checksum), parsing, and rows to and from their form on the wire.
// Rows are those of DeepSeek-V3.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <benchmark/benchmark.h>

#include "libs/base/check.h"
#include "libs/base/rng.h"
#include "libs/wire/frame.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

constexpr uint32_t kHidden = 7168;

std::vector<float> RandomRow() {
  Rng rng(1);
  std::vector<float> row(kHidden);
  for (float& value : row) {
    value = 2.0F * rng.Unit() - 1.0F;
  }
  return row;
}

Dtype DtypeOf(const benchmark::State& state) {
  return state.range(0) == 2 ? Dtype::kBf16 : Dtype::kF32;
}

// A dispatch frame of some rows, each for one expert; 9 of them fill a frame.
struct Parts {
  FrameHeader header;
  std::vector<RouteEntry> entries;
  std::vector<std::byte> rows;

  explicit Parts(uint32_t row_count) {
    for (uint32_t row = 0; row < row_count; ++row) {
      entries.push_back({.expert = static_cast<uint16_t>(row), .slot = 0, .row = row});
    }
    header.kind = FrameKind::kDispatch;
    header.dtype = Dtype::kBf16;
    header.row_count = row_count;
    header.entry_count = static_cast<uint32_t>(entries.size());
    header.hidden_size = kHidden;
    const std::vector<float> row = RandomRow();
    rows.resize(size_t{row_count} * kHidden * 2);
    for (uint32_t i = 0; i < row_count; ++i) {
      SY_CHECK(EncodeRow(row, Dtype::kBf16, rows.data() + size_t{i} * kHidden * 2));
    }
  }

  std::span<const std::byte> table() const { return std::as_bytes(std::span(entries)); }

  void Seal() { SealFrame(header, table().size(), {table(), rows}); }

  int64_t byte_size() const {
    return static_cast<int64_t>(sizeof(header) + table().size() + rows.size());
  }
};

void BM_SealFrame(benchmark::State& state) {
  Parts parts(static_cast<uint32_t>(state.range(0)));
  for (auto unused : state) {
    parts.Seal();
    benchmark::DoNotOptimize(parts.header.crc);
  }
  state.SetBytesProcessed(state.iterations() * parts.byte_size());
}

BENCHMARK(BM_SealFrame)->Arg(1)->Arg(4)->Arg(9)->ArgName("rows");

void BM_ParseFrame(benchmark::State& state) {
  Parts parts(static_cast<uint32_t>(state.range(0)));
  parts.Seal();
  std::vector<std::byte> message;
  for (const auto& part :
       {BytesOfValue(parts.header), parts.table(), std::span<const std::byte>(parts.rows)}) {
    message.insert(message.end(), part.begin(), part.end());
  }
  SY_CHECK(ParseFrame(message).ok());
  for (auto unused : state) {
    benchmark::DoNotOptimize(ParseFrame(message).ok());
  }
  state.SetBytesProcessed(state.iterations() * parts.byte_size());
}

BENCHMARK(BM_ParseFrame)->Arg(1)->Arg(4)->Arg(9)->ArgName("rows");

void BM_EncodeRow(benchmark::State& state) {
  const std::vector<float> row = RandomRow();
  std::vector<std::byte> bytes(row.size() * BytesOf(DtypeOf(state)));
  for (auto unused : state) {
    benchmark::DoNotOptimize(EncodeRow(row, DtypeOf(state), bytes.data()));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}

BENCHMARK(BM_EncodeRow)->Arg(2)->Arg(4)->ArgName("bytes_per_value");

void BM_DecodeRow(benchmark::State& state) {
  std::vector<float> row = RandomRow();
  std::vector<std::byte> bytes(row.size() * BytesOf(DtypeOf(state)));
  SY_CHECK(EncodeRow(row, DtypeOf(state), bytes.data()));
  for (auto unused : state) {
    benchmark::DoNotOptimize(DecodeRow(bytes.data(), DtypeOf(state), row));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}

BENCHMARK(BM_DecodeRow)->Arg(2)->Arg(4)->ArgName("bytes_per_value");

}  // namespace
}  // namespace switchyard
