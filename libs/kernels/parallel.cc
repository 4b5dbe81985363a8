#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>

#include "libs/base/check.h"
#include "libs/kernels/kernels.h"

namespace switchyard {
namespace {

// Work of less is not handed over: to wake a sleeping thread costs some 10 us.
constexpr uint64_t kHandOverNs = 20'000;

// What one thread does, for that estimate: bytes of weights and multiply-adds per nanosecond
// (measured on Zen 5; a processor that is slower only hands over a little later).
constexpr uint64_t kBytesPerNs = 30;
constexpr uint64_t kF32PerNs = 100;
constexpr uint64_t kBf16PerNs = 200;
constexpr uint64_t kInt8PerNs = 300;
constexpr uint64_t kPassedPerNs = 4;

// Columns per tile are a multiple of this where there are enough of them: whole strips of the
// kernels and whole blocks of the depth of the next product.
constexpr uint32_t kColumnGrain = 64;

// Rows of one tile of RunRowTiles.
constexpr uint32_t kRowsPerTile = 8;

// Tiles for each thread: enough that none idles long at the end.
constexpr uint32_t kTilesPerThread = 8;

uint32_t CeilDivide(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

uint32_t RoundUp(uint32_t value, uint32_t step) { return CeilDivide(value, step) * step; }

// Splits `column_count` columns that take `work_ns` over threads.
uint32_t ColumnsPerTile(uint32_t column_count, uint64_t work_ns, uint32_t thread_count) {
  if (thread_count == 1 || work_ns < kHandOverNs) {
    return std::max(column_count, 1U);
  }
  const uint32_t wanted = CeilDivide(column_count, thread_count * kTilesPerThread);
  const uint32_t step = RoundUp(wanted, kColumnGrain);
  return CeilDivide(column_count, step) >= thread_count ? step : RoundUp(wanted, kPanelColumns);
}

// Shared by the tiles of one GroupedFfn call; lives on the caller's stack.
struct FfnRun {
  const Kernels& kernels;
  const GroupedFfnArgs& args;
  ActivationView product;  // [rows][intermediate], kF32: a view of scratch.gate.
  std::byte* product_data = nullptr;
  std::atomic<uint32_t>* pending = nullptr;  // For each group: its up tiles that are not done.
  uint32_t up_columns = 0;                   // Columns per tile.
  uint32_t up_tiles = 0;                     // Tiles per group.
  uint32_t down_columns = 0;
  uint32_t down_tiles = 0;

  // All up tiles come before all down tiles, and tiles are taken in order. So a down tile waits
  // only for tiles that other threads are at, which wait for none.
  void RunTile(uint32_t tile) const {
    const auto group_count = static_cast<uint32_t>(args.groups.size());
    if (tile < group_count * up_tiles) {
      const uint32_t group = tile / up_tiles;
      RunUpTile(args.groups[group], tile % up_tiles * up_columns);
      if (pending[group].fetch_sub(1, std::memory_order_acq_rel) == 1) {
        pending[group].notify_all();
      }
      return;
    }
    tile -= group_count * up_tiles;
    const uint32_t group = tile / down_tiles;
    for (;;) {
      const uint32_t left = pending[group].load(std::memory_order_acquire);
      if (left == 0) {
        break;
      }
      pending[group].wait(left, std::memory_order_acquire);
    }
    RunDownTile(args.groups[group], tile % down_tiles * down_columns);
  }

  void RunUpTile(const FfnGroup& group, uint32_t begin) const {
    const uint32_t end = std::min(begin + up_columns, args.intermediate_size);
    const size_t first = size_t{group.first_row} * args.intermediate_size;
    float* const gate = args.scratch->gate.data() + first;
    float* const up = args.scratch->up.data() + first;
    PackedGemmArgs gemm{.x = args.x.Rows(group.first_row, group.row_count),
                        .w = group.gate,
                        .y = gate,
                        .y_stride = args.intermediate_size,
                        .column_begin = begin,
                        .column_end = end};
    PackedGemm(kernels, gemm);
    gemm.w = group.up;
    gemm.y = up;
    PackedGemm(kernels, gemm);
    for (uint32_t row = 0; row < group.row_count; ++row) {
      const size_t offset = size_t{row} * args.intermediate_size + begin;
      kernels.silu_mul(gate + offset, up + offset, gate + offset, end - begin);
      if (product.form != ActivationForm::kF32) {
        PrepareProduct(group.first_row + row, begin, end);
      }
    }
  }

  // Columns [begin, end) of one row of the product; `begin` is a multiple of kDepthBlock, and so is
  // `end` unless it is the last.
  void PrepareProduct(uint32_t row, uint32_t begin, uint32_t end) const {
    constexpr uint32_t kPart = 512;
    alignas(64) std::array<std::byte, size_t{kPart} * 3> part;
    const float* const x = args.scratch->gate.data() + size_t{row} * args.intermediate_size;
    std::byte* const out = product_data + row * product.row_bytes;
    for (; begin < end; begin += kPart) {
      const uint32_t count = std::min(end - begin, kPart);
      const size_t padded = RoundUp(count, kDepthBlock);
      kernels.prepare_row(product.form, x + begin, count, part.data());
      if (product.form == ActivationForm::kBf16) {
        std::memcpy(out + size_t{begin} * 2, part.data(), padded * 2);
        continue;
      }
      // Codes, scales and offsets go to three places (packed_matrix.h).
      const size_t depth = RoundUp(args.intermediate_size, kDepthBlock);
      const size_t group_bytes = padded / kScaleGroup * sizeof(float);
      std::byte* const scales = out + depth + begin / kScaleGroup * sizeof(float);
      std::memcpy(out + begin, part.data(), padded);
      std::memcpy(scales, part.data() + padded, group_bytes);
      std::memcpy(scales + depth / kScaleGroup * sizeof(float), part.data() + padded + group_bytes,
                  group_bytes);
    }
  }

  void RunDownTile(const FfnGroup& group, uint32_t begin) const {
    PackedGemm(kernels, {.x = product.Rows(group.first_row, group.row_count),
                         .w = group.down,
                         .y = args.y + size_t{group.first_row} * args.hidden_size,
                         .y_stride = args.hidden_size,
                         .column_begin = begin,
                         .column_end = std::min(begin + down_columns, args.hidden_size)});
  }
};

// Tiles of `column_count` columns in each of many groups: never less than kColumnGrain columns, and
// no more cuts than balance needs.
uint32_t GroupColumns(uint32_t column_count, size_t group_count, uint32_t thread_count) {
  const uint64_t wanted =
      uint64_t{column_count} * group_count / (uint64_t{2} * thread_count * kTilesPerThread);
  const auto columns = static_cast<uint32_t>(std::min<uint64_t>(wanted + 1, column_count));
  return std::min(RoundUp(columns, kColumnGrain), RoundUp(column_count, kColumnGrain));
}

// Sleeps only after some 15 us: what is waited for is mostly shorter, and to wake takes as long.
void WaitUntilAtLeast(const std::atomic<uint32_t>& count, uint32_t least) {
  constexpr int kLooks = 1000;
  for (int i = 0; i < kLooks && count.load(std::memory_order_acquire) < least; ++i) {
    __builtin_ia32_pause();
  }
  for (;;) {
    const uint32_t seen = count.load(std::memory_order_acquire);
    if (seen >= least) {
      return;
    }
    count.wait(seen, std::memory_order_acquire);
  }
}

// The columns [tile * step, (tile + 1) * step) of what `args` (GemmArgs or PackedGemmArgs) asks
// for.
template <typename Args>
Args ColumnTile(const Args& args, uint32_t tile, uint32_t step) {
  Args part = args;
  part.column_begin += tile * step;
  part.column_end = std::min(part.column_begin + step, args.column_end);
  return part;
}

uint64_t PackedGemmNs(const PackedGemmArgs& args) {
  const uint32_t column_count = args.column_end - args.column_begin;
  return ProductNs(args.x.form, PackedBytes(args.w.format, column_count, args.w.columns),
                   uint64_t{column_count} * args.w.columns * args.x.row_count);
}

}  // namespace

uint64_t ProductNs(ActivationForm form, size_t weight_bytes, uint64_t multiply_adds) {
  uint64_t per_ns = kF32PerNs;
  if (form != ActivationForm::kF32) {
    per_ns = form == ActivationForm::kBf16 ? kBf16PerNs : kInt8PerNs;
  }
  return std::max(weight_bytes / kBytesPerNs, multiply_adds / per_ns);
}

uint64_t PassNs(uint64_t value_count) { return value_count / kPassedPerNs; }

void RunTiles(ComputePool& pool, uint32_t tile_count, uint64_t work_ns,
              absl::FunctionRef<void(uint32_t)> tile) {
  if (work_ns >= kHandOverNs) {
    pool.Run(tile_count, tile);
    return;
  }
  for (uint32_t i = 0; i < tile_count; ++i) {
    tile(i);
  }
}

void RunRowTiles(ComputePool& pool, uint32_t row_count, uint64_t work_ns,
                 absl::FunctionRef<void(uint32_t, uint32_t)> rows) {
  if (work_ns < kHandOverNs || pool.thread_count() == 1) {
    rows(0, row_count);
    return;
  }
  pool.Run(CeilDivide(row_count, kRowsPerTile), [&](uint32_t tile) {
    rows(tile * kRowsPerTile, std::min((tile + 1) * kRowsPerTile, row_count));
  });
}

void RunPhases(ComputePool& pool, std::span<const uint32_t> tile_counts, uint64_t work_ns,
               absl::FunctionRef<void(uint32_t, uint32_t)> tile) {
  const uint32_t total = std::accumulate(tile_counts.begin(), tile_counts.end(), 0U);
  std::atomic<uint32_t> done{0};
  // Tiles are taken in order, so a tile waits only for tiles that other threads are at.
  RunTiles(pool, total, work_ns, [&](uint32_t index) {
    uint32_t phase = 0;
    uint32_t begin = 0;
    for (; index - begin >= tile_counts[phase]; ++phase) {
      begin += tile_counts[phase];
    }
    WaitUntilAtLeast(done, begin);
    tile(phase, index - begin);
    done.fetch_add(1, std::memory_order_acq_rel);
    done.notify_all();
  });
}

void ParallelGemm(const Kernels& kernels, ComputePool& pool, const GemmArgs& args) {
  const uint32_t column_count = args.column_end - args.column_begin;
  const uint64_t weight_count = uint64_t{column_count} * args.w.columns;
  const uint64_t work = ProductNs(ActivationForm::kF32, weight_count * BytesOf(args.w.dtype),
                                  weight_count * args.row_count);
  const uint32_t step = ColumnsPerTile(column_count, work, pool.thread_count());
  RunTiles(pool, CeilDivide(column_count, step), work,
           [&](uint32_t tile) { kernels.gemm(ColumnTile(args, tile, step)); });
}

void PackedGemm(const Kernels& kernels, const PackedGemmArgs& args) {
  if (args.x.form != ActivationForm::kF32) {
    kernels.packed_gemm(args);
    return;
  }
  kernels.gemm({.x = reinterpret_cast<const float*>(args.x.data),
                .x_stride = args.x.row_bytes / sizeof(float),
                .row_count = args.x.row_count,
                .w = {.data = args.w.data,
                      .dtype = args.w.format == WeightFormat::kF32 ? Dtype::kF32 : Dtype::kF16,
                      .rows = args.w.rows,
                      .columns = args.w.columns},
                .bias = args.bias,
                .y = args.y,
                .y_stride = args.y_stride,
                .column_begin = args.column_begin,
                .column_end = args.column_end});
}

std::byte* ActivationBuffer::Reserve(size_t byte_count) {
  if (byte_count > byte_count_) {
    byte_count_ = byte_count;
    data_ = AllocateWeights(byte_count);
  }
  return data_.get();
}

ActivationView PrepareRows(const Kernels& kernels, ComputePool& pool, const PrepareArgs& args,
                           ActivationBuffer& buffer) {
  ActivationView view{.data = reinterpret_cast<const std::byte*>(args.x),
                      .form = args.form,
                      .row_bytes = args.x_stride * sizeof(float),
                      .row_count = args.row_count,
                      .columns = args.columns};
  if (args.form == ActivationForm::kF32) {
    return view;
  }
  view.row_bytes = ActivationRowBytes(args.form, args.columns);
  std::byte* const data = buffer.Reserve(view.row_bytes * args.row_count);
  view.data = data;
  RunRowTiles(pool, args.row_count, PassNs(uint64_t{args.row_count} * args.columns),
              [&](uint32_t begin, uint32_t end) {
                for (uint32_t row = begin; row < end; ++row) {
                  kernels.prepare_row(args.form, args.x + row * args.x_stride, args.columns,
                                      data + row * view.row_bytes);
                }
              });
  return view;
}

void ParallelPackedGemm(const Kernels& kernels, ComputePool& pool, const PackedGemmArgs& args) {
  ParallelPackedGemms(kernels, pool, {&args, 1});
}

void ParallelPackedGemms(const Kernels& kernels, ComputePool& pool,
                         std::span<const PackedGemmArgs> products) {
  uint64_t work = 0;
  for (const PackedGemmArgs& args : products) {
    work += PackedGemmNs(args);
  }
  const auto step_of = [&](const PackedGemmArgs& args) {
    return ColumnsPerTile(args.column_end - args.column_begin, work, pool.thread_count());
  };
  const auto tiles_of = [&](const PackedGemmArgs& args) {
    return CeilDivide(args.column_end - args.column_begin, step_of(args));
  };
  uint32_t tile_count = 0;
  for (const PackedGemmArgs& args : products) {
    tile_count += tiles_of(args);
  }
  RunTiles(pool, tile_count, work, [&](uint32_t tile) {
    const PackedGemmArgs* args = products.data();
    for (; tile >= tiles_of(*args); ++args) {
      tile -= tiles_of(*args);
    }
    PackedGemm(kernels, ColumnTile(*args, tile, step_of(*args)));
  });
}

void GroupedFfn(const Kernels& kernels, ComputePool& pool, const GroupedFfnArgs& args) {
  uint32_t row_end = 0;
  uint64_t row_count = 0;
  size_t weight_bytes = 0;
  for (const FfnGroup& group : args.groups) {
    row_end = std::max(row_end, group.first_row + group.row_count);
    row_count += group.row_count;
    weight_bytes += group.gate.byte_size() + group.up.byte_size() + group.down.byte_size();
  }
  if (row_count == 0) {
    return;
  }
  SY_CHECK(args.scratch != nullptr);
  FfnScratch& scratch = *args.scratch;
  const size_t product_size = size_t{row_end} * args.intermediate_size;
  if (scratch.gate.size() < product_size) {
    scratch.gate.resize(product_size);
    scratch.up.resize(product_size);
  }
  FfnRun run{.kernels = kernels, .args = args};
  run.product = {.data = reinterpret_cast<const std::byte*>(scratch.gate.data()),
                 .form = FormFor(args.groups[0].down.format),
                 .row_bytes = args.intermediate_size * sizeof(float),
                 .row_count = row_end,
                 .columns = args.intermediate_size};
  if (run.product.form != ActivationForm::kF32) {
    run.product.row_bytes = ActivationRowBytes(run.product.form, args.intermediate_size);
    run.product_data = scratch.product.Reserve(run.product.row_bytes * row_end);
    run.product.data = run.product_data;
  }
  const size_t group_count = args.groups.size();
  const uint64_t work = ProductNs(args.x.form, weight_bytes,
                                  3 * row_count * args.hidden_size * args.intermediate_size);
  const bool alone = pool.thread_count() == 1 || work < kHandOverNs;
  const uint32_t thread_count = alone ? 1 : pool.thread_count();
  run.up_columns = GroupColumns(args.intermediate_size, group_count, thread_count);
  run.up_tiles = CeilDivide(args.intermediate_size, run.up_columns);
  run.down_columns = GroupColumns(args.hidden_size, group_count, thread_count);
  run.down_tiles = CeilDivide(args.hidden_size, run.down_columns);
  run.pending = scratch.pending.Reserve(group_count);
  for (size_t group = 0; group < group_count; ++group) {
    run.pending[group].store(run.up_tiles, std::memory_order_relaxed);
  }
  const auto tile_count = static_cast<uint32_t>(group_count) * (run.up_tiles + run.down_tiles);
  if (alone) {
    for (uint32_t tile = 0; tile < tile_count; ++tile) {
      run.RunTile(tile);
    }
    return;
  }
  pool.Run(tile_count, [&run](uint32_t tile) { run.RunTile(tile); });
}

std::atomic<uint32_t>* FfnScratch::Counters::Reserve(size_t count) {
  if (count > count_) {
    data_ = std::make_unique<std::atomic<uint32_t>[]>(count);
    count_ = count;
  }
  return data_.get();
}

}  // namespace switchyard
