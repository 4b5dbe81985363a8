#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "libs/base/check.h"
#include "libs/kernels/kernels.h"

namespace switchyard {
namespace {

// A hand-over to a sleeping thread costs about as much as this many multiply-adds (some 10 us).
constexpr uint64_t kParallelWorkMin = 400'000;

// Columns per tile are a multiple of this, so that tiles end where the kernels' strips do.
constexpr uint32_t kColumnGrain = 16;

uint32_t CeilDivide(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Splits `column_count` of a product with `work` multiply-adds so that each thread gets several
// tiles.
uint32_t ColumnsPerTile(uint32_t column_count, uint64_t work, uint32_t thread_count) {
  if (thread_count == 1 || work < kParallelWorkMin) {
    return std::max(column_count, 1U);
  }
  constexpr uint32_t kTilesPerThread = 6;
  const uint32_t wanted = CeilDivide(column_count, thread_count * kTilesPerThread);
  return std::max(CeilDivide(wanted, kColumnGrain), 1U) * kColumnGrain;
}

// Shared by the tiles of one GroupedFfn call; lives on the caller's stack.
struct FfnRun {
  const Kernels& kernels;
  const GroupedFfnArgs& args;
  float* gate = nullptr;  // [rows][intermediate]; the activated product replaces it.
  float* up = nullptr;    // [rows][intermediate]
  uint32_t columns_per_tile = 0;
  uint32_t tiles_per_group = 0;

  void RunUpTile(uint32_t tile) const {
    const FfnGroup& group = args.groups[tile / tiles_per_group];
    const uint32_t begin = (tile % tiles_per_group) * columns_per_tile;
    const uint32_t end = std::min(begin + columns_per_tile, args.intermediate_size);
    const size_t first = size_t{group.first_row} * args.intermediate_size;
    GemmArgs gemm{.x = args.x + size_t{group.first_row} * args.hidden_size,
                  .x_stride = args.hidden_size,
                  .row_count = group.row_count,
                  .w = group.gate,
                  .y = gate + first,
                  .y_stride = args.intermediate_size,
                  .column_begin = begin,
                  .column_end = end};
    kernels.gemm(gemm);
    gemm.w = group.up;
    gemm.y = up + first;
    kernels.gemm(gemm);
    for (uint32_t row = 0; row < group.row_count; ++row) {
      const size_t offset = first + size_t{row} * args.intermediate_size + begin;
      kernels.silu_mul(gate + offset, up + offset, gate + offset, end - begin);
    }
  }

  void RunDownTile(uint32_t tile) const {
    const FfnGroup& group = args.groups[tile / tiles_per_group];
    const uint32_t begin = (tile % tiles_per_group) * columns_per_tile;
    kernels.gemm({.x = gate + size_t{group.first_row} * args.intermediate_size,
                  .x_stride = args.intermediate_size,
                  .row_count = group.row_count,
                  .w = group.down,
                  .y = args.y + size_t{group.first_row} * args.hidden_size,
                  .y_stride = args.hidden_size,
                  .column_begin = begin,
                  .column_end = std::min(begin + columns_per_tile, args.hidden_size)});
  }
};

}  // namespace

void ParallelGemm(const Kernels& kernels, ComputePool& pool, const GemmArgs& args) {
  const uint32_t column_count = args.column_end - args.column_begin;
  const uint64_t work = uint64_t{args.row_count} * column_count * args.w.columns;
  const uint32_t step = ColumnsPerTile(column_count, work, pool.thread_count());
  if (step >= column_count) {
    kernels.gemm(args);
    return;
  }

  struct Context {
    const Kernels& kernels;
    const GemmArgs& args;
    uint32_t step;
  };

  const Context context{.kernels = kernels, .args = args, .step = step};
  pool.Run(CeilDivide(column_count, step), [&context](uint32_t tile) {
    GemmArgs part = context.args;
    part.column_begin += tile * context.step;
    part.column_end = std::min(part.column_begin + context.step, context.args.column_end);
    context.kernels.gemm(part);
  });
}

void GroupedFfn(const Kernels& kernels, ComputePool& pool, const GroupedFfnArgs& args) {
  uint32_t row_end = 0;
  uint64_t row_count = 0;
  for (const FfnGroup& group : args.groups) {
    row_end = std::max(row_end, group.first_row + group.row_count);
    row_count += group.row_count;
  }
  if (row_count == 0) {
    return;
  }
  SY_CHECK(args.scratch != nullptr);
  const size_t half = size_t{row_end} * args.intermediate_size;
  if (args.scratch->size() < 2 * half) {
    args.scratch->resize(2 * half);
  }
  const auto group_count = static_cast<uint32_t>(args.groups.size());
  const uint64_t work = row_count * args.hidden_size * args.intermediate_size;
  FfnRun run{.kernels = kernels,
             .args = args,
             .gate = args.scratch->data(),
             .up = args.scratch->data() + half};

  // Several groups already make several tiles, so columns are cut only as far as balance needs.
  const auto plan = [&](uint32_t column_count) {
    const uint64_t all_columns = uint64_t{column_count} * group_count;
    const uint32_t step =
        ColumnsPerTile(static_cast<uint32_t>(std::min<uint64_t>(all_columns, UINT32_MAX / 2)), work,
                       pool.thread_count());
    run.columns_per_tile = std::min(step, column_count);
    run.tiles_per_group = CeilDivide(column_count, run.columns_per_tile);
    return run.tiles_per_group * group_count;
  };
  const uint32_t up_tiles = plan(args.intermediate_size);
  const bool alone = work < kParallelWorkMin;
  const auto for_each = [&](uint32_t tile_count, const std::function<void(uint32_t)>& tile) {
    if (alone) {
      for (uint32_t i = 0; i < tile_count; ++i) {
        tile(i);
      }
      return;
    }
    pool.Run(tile_count, tile);
  };
  for_each(up_tiles, [&run](uint32_t tile) { run.RunUpTile(tile); });
  const uint32_t down_tiles = plan(args.hidden_size);
  for_each(down_tiles, [&run](uint32_t tile) { run.RunDownTile(tile); });
}

}  // namespace switchyard
