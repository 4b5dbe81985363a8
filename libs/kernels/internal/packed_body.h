#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_BODY_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_BODY_H_

#include <cstddef>
#include <cstdint>

#include "libs/kernels/internal/packed_tiles.h"
#include "libs/kernels/kernels.h"

// Products with packed weights (packed_matrix.h), written once over the lane operations V of an
// instruction set; PackedBody<V>::Gemm and PrepareRow are what a table needs. packed_scalar.cc is
// the definition, from which no bit differs.
//
// A strip is a few panels side by side, a tile some rows by one strip: its accumulators stay in
// registers. Few rows make one tile that streams the weights over the whole depth. Many rows take
// the depth in blocks whose weights stay in the first-level cache while all rows pass over them;
// between blocks the accumulators rest in y, which changes no bit.
//
// Any thread; functions without state. V must be local to its translation unit (an anonymous
// namespace), and nothing here calls an inline function of a shared header: see kernel_body.h.

namespace switchyard::internal {

template <typename V>
struct PackedBody {
  using Tiles = PackedTiles<V>;
  using Float = typename V::Float;

  // The formats: tiles for few rows, tiles for many, and what lies between.
  struct Bf16Format {
    static constexpr size_t kBlock = 256;  // k per block of many rows: 32 KiB for four panels.
    static constexpr bool kWidens = false;
    static constexpr bool kPanelsTogether = false;

    static constexpr int kManyPanels = V::kManyPairPanels;

    static constexpr int Panels(int rows) { return V::PairPanels(rows); }

    static constexpr size_t Bytes(size_t k) { return k * kColumns * 2; }

    static constexpr size_t StreamBytes(size_t panels) { return kPairStream / panels; }

    static size_t FarBytes(size_t strip_bytes) { return strip_bytes; }

    template <int kRows, int kPanels>
    static void Few(const PackedTile& tile) {
      Tiles::template Bf16Tile<kRows, kPanels, Fetch::kStream>(tile);
    }

    template <int kRows, int kPanels>
    static void Many(const PackedTile& tile) {
      Tiles::template Bf16Tile<kRows, kPanels, Fetch::kNextBlock>(tile);
    }
  };

  struct Fp8Format {
    static constexpr size_t kBlock = kFp8Block;
    static constexpr bool kWidens = true;
    static constexpr bool kPanelsTogether = false;

    static constexpr int kManyPanels = V::kManyPairPanels;

    static constexpr int Panels(int rows) { return V::Fp8Panels(rows); }

    static constexpr size_t Bytes(size_t k) { return k * kColumns; }

    static constexpr size_t StreamBytes(size_t panels) { return kPairStream / panels; }

    static size_t FarBytes(size_t strip_bytes) { return strip_bytes; }

    static constexpr size_t WideBytes(size_t k) { return k * kColumns * 2; }

    template <int kRows, int kPanels>
    static void Few(const PackedTile& tile) {
      Tiles::template Fp8Tile<kRows, kPanels>(tile);
    }

    template <int kRows, int kPanels>
    static void Many(const PackedTile& tile) {
      Tiles::template WideFp8Tile<kRows, kPanels>(tile);
    }

    static void Widen(const char* w, size_t depth, char* out) {
      for (size_t k = 0; k < depth; k += 4) {
        typename V::Bytes wide[2];
        V::WidenFp8(w, wide);
        V::StoreBytes(wide[0], out);
        V::StoreBytes(wide[1], out + kPairBytes);
        w += kPairBytes;
        out += 2 * kPairBytes;
      }
    }
  };

  // kInt8 and kInt4 (kNibbles).
  template <bool kNibbles>
  struct IntFormat {
    static constexpr size_t kBlock = kNibbles ? 1024 : 512;  // 17 or 18 KiB for two panels.
    static constexpr bool kWidens = false;
    static constexpr bool kPanelsTogether = true;

    static constexpr int kManyPanels = V::kManyIntPanels;

    static constexpr int Panels(int rows) { return V::IntPanels(rows); }

    static constexpr size_t Bytes(size_t k) {
      return k / kDepthBlock * (kNibbles ? kInt4Block : kInt8Block);
    }

    // Near and far: of 1 to 30 KiB ahead, once or twice, the fastest for most numbers of rows.
    static constexpr size_t StreamBytes(size_t) { return (kNibbles ? 4 : 2) * Bytes(kDepthBlock); }

    static size_t FarBytes(size_t) { return 8 * kInt8Block; }

    template <int kRows, int kPanels>
    static void Few(const PackedTile& tile) {
      Tiles::template IntTile<kRows, kPanels, Fetch::kStreamTwice, kNibbles>(tile);
    }

    template <int kRows, int kPanels>
    static void Many(const PackedTile& tile) {
      Tiles::template IntTile<kRows, kPanels, Fetch::kNextBlock, kNibbles>(tile);
    }
  };

  // What all tiles of one call share.
  struct Call {
    explicit Call(const PackedGemmArgs& gemm)
        : args(gemm),
          x(reinterpret_cast<const char*>(gemm.x.data)),
          w(reinterpret_cast<const char*>(gemm.w.data)),
          depth(Tiles::CeilDivide(gemm.w.columns, kDepthBlock) * kDepthBlock),
          panel_stride(gemm.w.panel_bytes()) {}

    const PackedGemmArgs& args;
    const char* x;
    const char* w;
    size_t depth;
    size_t panel_stride;
  };

  // Where the panel of `column` begins and how it goes on.
  struct Place {
    const char* w;
    size_t panel_stride;
    size_t block_stride;
  };

  template <typename F>
  static Place PlaceOf(const Call& call, size_t column) {
    const size_t panel = column / kColumns;
    const size_t block = F::Bytes(kDepthBlock);
    if constexpr (F::kPanelsTogether) {
      const size_t first = panel / 2 * 2;
      const size_t together = (first + 1) * kColumns < call.args.w.rows ? 2 : 1;
      return {.w = call.w + first * call.panel_stride + panel % 2 * block,
              .panel_stride = block,
              .block_stride = together * block};
    }
    return {.w = call.w + panel * call.panel_stride,
            .panel_stride = call.panel_stride,
            .block_stride = block};
  }

  // The tile of row `row` on and of the strip at `column` over all of the depth.
  template <typename F, int kPanels>
  static PackedTile TileAt(const Call& call, size_t row, size_t column) {
    const PackedGemmArgs& args = call.args;
    const char* x = call.x + row * args.x.row_bytes;
    const Place place = PlaceOf<F>(call, column);
    const size_t group_count = call.depth / kScaleGroup;
    return {.x = x,
            .x_stride = args.x.row_bytes,
            .x_scales = reinterpret_cast<const float*>(x + call.depth),
            .x_offsets = reinterpret_cast<const int32_t*>(x + call.depth) + group_count,
            .w = place.w,
            .panel_stride = place.panel_stride,
            .block_stride = place.block_stride,
            .fp8_scales = place.w + call.depth * kColumns,
            .fp8_scale_stride = call.panel_stride,
            .depth = call.depth,
            .bias = args.bias == nullptr ? nullptr : args.bias + column,
            .y = args.y + row * args.y_stride + column,
            .y_stride = args.y_stride,
            .column_count = Tiles::Min(args.column_end - column, kPanels * kColumns),
            .stream_bytes = F::StreamBytes(kPanels),
            .far_bytes = F::FarBytes(kPanels * call.panel_stride)};
  }

  // Panels from `column` on as tiles of all rows; fewer panels a strip for what is left over.
  template <typename F, int kRows, int kPanels>
  static void FewStrips(const Call& call, size_t column) {
    const size_t end = Tiles::CeilDivide(call.args.column_end, kColumns) * kColumns;
    if (F::kPanelsTogether && kPanels == 2 && column / kColumns % 2 == 1 && column < end) {
      F::template Few<kRows, 1>(TileAt<F, 1>(call, 0, column));
      column += kColumns;
    }
    for (; column + kPanels * kColumns <= end; column += kPanels * kColumns) {
      F::template Few<kRows, kPanels>(TileAt<F, kPanels>(call, 0, column));
    }
    if constexpr (kPanels > 1) {
      FewStrips<F, kRows, kPanels / 2>(call, column);
    }
  }

  template <typename F>
  static void FewRows(const Call& call) {
    const size_t column = call.args.column_begin;
    static_assert(V::kRows <= 6);
    switch (call.args.x.row_count) {
      case 1:
        return FewStrips<F, 1, F::Panels(1)>(call, column);
      case 2:
        return FewStrips<F, 2, F::Panels(2)>(call, column);
      case 3:
        return FewStrips<F, 3, F::Panels(3)>(call, column);
      case 4:
        if constexpr (V::kRows >= 4) {
          return FewStrips<F, 4, F::Panels(4)>(call, column);
        }
        break;
      case 5:
        if constexpr (V::kRows >= 5) {
          return FewStrips<F, 5, F::Panels(5)>(call, column);
        }
        break;
      case 6:
        if constexpr (V::kRows >= 6) {
          return FewStrips<F, 6, F::Panels(6)>(call, column);
        }
        break;
      default:
        break;
    }
  }

  template <typename F, int kPanels>
  static void ManyTile(const PackedTile& tile, size_t row_count) {
    switch (row_count) {
      case 1:
        return F::template Many<1, kPanels>(tile);
      case 2:
        return F::template Many<2, kPanels>(tile);
      case 3:
        return F::template Many<3, kPanels>(tile);
      case 4:
        if constexpr (V::kRows >= 4) {
          return F::template Many<4, kPanels>(tile);
        }
        break;
      case 5:
        if constexpr (V::kRows >= 5) {
          return F::template Many<5, kPanels>(tile);
        }
        break;
      case 6:
        if constexpr (V::kRows >= 6) {
          return F::template Many<6, kPanels>(tile);
        }
        break;
      default:
        break;
    }
  }

  // What RowTiles() goes over.
  struct Rows {
    size_t row_count;
    size_t k;           // The block's first.
    const char* ahead;  // The first panel of the next block.
  };

  // Rows [row, row_end) of one strip, block by block of the depth.
  template <typename F, int kPanels>
  static void ManyStrip(const Call& call, size_t row, size_t row_end, size_t column) {
    alignas(kLine) char wide[F::kWidens ? kPanels * F::kBlock * kColumns * 2 : kLine];
    const PackedTile whole = TileAt<F, kPanels>(call, row, column);
    const char* const next_strip = PlaceOf<F>(call, column + kPanels * kColumns).w;
    for (size_t k = 0; k < call.depth; k += F::kBlock) {
      PackedTile tile = whole;
      tile.depth = Tiles::Min(F::kBlock, call.depth - k);
      tile.w += k / kDepthBlock * whole.block_stride;
      const bool last = k + tile.depth == call.depth;
      const char* ahead =
          last ? next_strip : tile.w + tile.depth / kDepthBlock * whole.block_stride;
      if constexpr (F::kWidens) {
        for (int c = 0; c < kPanels; ++c) {
          F::Widen(tile.w + static_cast<size_t>(c) * call.panel_stride, tile.depth,
                   wide + static_cast<size_t>(c) * F::WideBytes(F::kBlock));
        }
        tile.w = wide;
        tile.panel_stride = F::WideBytes(F::kBlock);
      }
      tile.fp8_scales += k / kFp8Block * sizeof(float);
      tile.fresh = k == 0;
      tile.bias = last ? whole.bias : nullptr;
      RowTiles<F, kPanels>(call, tile, {.row_count = row_end - row, .k = k, .ahead = ahead});
    }
  }

  template <typename F, int kPanels>
  static void RowTiles(const Call& call, const PackedTile& first, const Rows& rows) {
    const size_t x_bytes = call.args.x.form == ActivationForm::kBf16 ? 2 : 1;
    size_t tile_index = 0;
    for (size_t row = 0; row < rows.row_count;) {
      // Tiles of nearly equal height: 8 rows are 4 + 4 rather than 6 + 2.
      const size_t left = rows.row_count - row;
      const size_t tile_count = Tiles::CeilDivide(left, V::kRows);
      const size_t height = Tiles::CeilDivide(left, tile_count);
      PackedTile tile = first;
      const size_t skip = row * first.x_stride;
      tile.x += skip + rows.k * x_bytes;
      const size_t group_skip = skip / sizeof(float) + rows.k / kScaleGroup;
      tile.x_scales += group_skip;
      tile.x_offsets += group_skip;
      tile.y += row * first.y_stride;
      // The first tiles fetch the next block: a panel each (or what one would take of panels that
      // lie together), or two if tiles are few.
      const size_t part = F::kPanelsTogether ? F::Bytes(tile.depth) : call.panel_stride;
      const size_t second = kPanels / 2 * part;
      tile.ahead = rows.ahead + (tile_index < kPanels ? tile_index * part : 0);
      tile.far_bytes = tile_index < kPanels / 2 && rows.row_count <= 3 * V::kRows ? second : 0;
      ++tile_index;
      ManyTile<F, kPanels>(tile, height);
      row += height;
    }
  }

  template <typename F, int kPanels>
  static void ManyStrips(const Call& call, size_t row, size_t row_end, size_t column) {
    const size_t end = Tiles::CeilDivide(call.args.column_end, kColumns) * kColumns;
    if (F::kPanelsTogether && kPanels == 2 && column / kColumns % 2 == 1 && column < end) {
      ManyStrip<F, 1>(call, row, row_end, column);
      column += kColumns;
    }
    for (; column + kPanels * kColumns <= end; column += kPanels * kColumns) {
      ManyStrip<F, kPanels>(call, row, row_end, column);
    }
    if constexpr (kPanels > 1) {
      ManyStrips<F, kPanels / 2>(call, row, row_end, column);
    }
  }

  template <typename F>
  static void Run(const PackedGemmArgs& args) {
    const Call call(args);
    if (args.x.row_count <= V::kRows) {
      FewRows<F>(call);
      return;
    }
    // A block of so many rows stays in the second-level cache.
    constexpr size_t kRowBlock = 384;
    for (size_t row = 0; row < args.x.row_count; row += kRowBlock) {
      const size_t row_end = Tiles::Min(row + kRowBlock, args.x.row_count);
      ManyStrips<F, F::kManyPanels>(call, row, row_end, args.column_begin);
    }
  }

  // Subnormal numbers count as zero in the orders of bf16 pairs.
  template <typename F>
  static void RunFlushed(const PackedGemmArgs& args) {
    const unsigned saved = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(saved | 0x8040U);
    // Opaque, so that no arithmetic moves out from between the two.
    void (*volatile run)(const PackedGemmArgs&) = &Run<F>;
    run(args);
    __builtin_ia32_ldmxcsr(saved);
  }

  static void Gemm(const PackedGemmArgs& args) {
    switch (args.w.format) {
      case WeightFormat::kBf16:
        return RunFlushed<Bf16Format>(args);
      case WeightFormat::kFp8:
        return RunFlushed<Fp8Format>(args);
      case WeightFormat::kInt8:
        return Run<IntFormat<false>>(args);
      case WeightFormat::kInt4:
        return Run<IntFormat<true>>(args);
      case WeightFormat::kF32:
      case WeightFormat::kF16:
        break;
    }
  }

  // Zeros up to the padded depth.
  static void PrepareBf16(const float* x, size_t columns, char* out) {
    const size_t padded = Tiles::CeilDivide(columns, kDepthBlock) * kDepthBlock;
    for (size_t k = 0; k < padded; k += kColumns) {
      Float value = V::Zero();
      if (k + kColumns <= columns) {
        value = V::Load(x + k);
      } else if (k < columns) {
        value = V::LoadPart(x + k, columns - k);
      }
      V::StoreBf16(value, out + k * 2);
    }
  }

  static void PrepareInt8(const float* x, size_t columns, char* out) {
    const size_t padded = Tiles::CeilDivide(columns, kDepthBlock) * kDepthBlock;
    const size_t group_count = padded / kScaleGroup;
    char* const scales = out + padded;
    char* const offsets = scales + group_count * sizeof(float);
    for (size_t group = 0; group < group_count; ++group) {
      const size_t k = group * kScaleGroup;
      Float low = V::Zero();
      Float high = V::Zero();
      if (k + kScaleGroup <= columns) {
        low = V::Load(x + k);
        high = V::Load(x + k + kColumns);
      } else if (k < columns) {
        low = V::LoadPart(x + k, Tiles::Min(columns - k, kColumns));
        high =
            columns - k > kColumns ? V::LoadPart(x + k + kColumns, columns - k - kColumns) : high;
      }
      const float largest = V::LargestMagnitude(low, high);
      const bool zero = largest < kTiniest;
      const float scale = zero ? 0.0F : largest / 127.0F;
      const float inverse = zero ? 0.0F : 127.0F / largest;
      const int32_t sum = V::StoreCodes(low, high, inverse, out + k);
      const int32_t offset = kFloatOffset - 128 * sum;
      __builtin_memcpy(scales + group * sizeof(scale), &scale, sizeof(scale));
      __builtin_memcpy(offsets + group * sizeof(offset), &offset, sizeof(offset));
    }
  }

  static constexpr float kTiniest = 1e-30F;
  static constexpr int32_t kFloatOffset = 0x4b400000;

  static void PrepareRow(ActivationForm form, const float* x, uint32_t columns, std::byte* out) {
    char* const target = reinterpret_cast<char*>(out);
    if (form == ActivationForm::kInt8) {
      PrepareInt8(x, columns, target);
    } else {
      PrepareBf16(x, columns, target);
    }
    // Rows are compared and sent as bytes, so none may be left over from before.
    const size_t padded = Tiles::CeilDivide(columns, kDepthBlock) * kDepthBlock;
    const size_t used =
        form == ActivationForm::kInt8 ? padded + padded / kScaleGroup * 8 : padded * 2;
    __builtin_memset(target + used, 0, ActivationRowBytes(form, columns) - used);
  }
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_BODY_H_
