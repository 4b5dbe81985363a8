#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_TILES_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_TILES_H_

#include <cstddef>
#include <cstdint>

#include "libs/kernels/kernels.h"

// The innermost loops of products with packed weights: some rows by a strip of panels, whose sums
// stay in registers. What calls them, and the rules for both, are in packed_body.h.
//
// Any thread; functions without state.

#if defined(__clang__)
#define SY_UNROLL _Pragma("unroll")
#else
#define SY_UNROLL _Pragma("GCC unroll 16")
#endif

namespace switchyard::internal {

inline constexpr size_t kColumns = kPanelColumns;
inline constexpr size_t kLine = 64;
inline constexpr size_t kInt8Codes = size_t{kDepthBlock} * kColumns;
inline constexpr size_t kScales = size_t{kDepthBlock} / kScaleGroup * kColumns * 2;
inline constexpr size_t kPairBytes = kColumns * 4;  // Of two k in bf16.
inline constexpr size_t kQuadBytes = kColumns * 4;  // Of four k in 8 bits.
inline constexpr size_t kGroupsPerBlock = kDepthBlock / kScaleGroup;
inline constexpr size_t kQuads = kScaleGroup / 4;
inline constexpr size_t kPairStream = 8192;  // Bytes of kBf16 and kFp8 on the way from memory.
inline constexpr size_t kInt8Block = kInt8Codes + kScales;
inline constexpr size_t kInt4Block = kInt8Codes / 2 + kScales;

// One tile of work: rows of x by a strip of w over one block of the depth.
struct PackedTile {
  const char* x = nullptr;  // The first row at the block's first k.
  size_t x_stride = 0;
  const float* x_scales = nullptr;  // kInt8: of the first row and group; rows x_stride apart.
  const int32_t* x_offsets = nullptr;
  const char* w = nullptr;  // The first panel at the block's first k.
  size_t panel_stride = 0;
  size_t block_stride = 0;           // kInt8 and kInt4: from one 64 k of a panel to the next.
  const char* fp8_scales = nullptr;  // kFp8: of the first panel and block.
  size_t fp8_scale_stride = 0;
  size_t depth = 0;             // Of the block; a multiple of kDepthBlock.
  const float* bias = nullptr;  // Of the strip's first column; null but in the last block.
  float* y = nullptr;           // Of the first row and the strip's first column.
  size_t y_stride = 0;
  size_t column_count = 0;  // Valid columns of the strip.
  bool fresh = true;        // Sums start at zero instead of y.
  // See Fetch.
  size_t stream_bytes = 0;
  size_t far_bytes = 0;
  const char* ahead = nullptr;
};

// What a tile brings into the cache while it computes (each was the fastest for some format and
// number of rows).
enum class Fetch : uint8_t {
  kStream,       // Its own panels, `stream_bytes` ahead.
  kStreamTwice,  // Also `far_bytes` ahead: farther on, or in the next strip.
  kNextBlock,    // What follows `ahead`; its own block is there but for the first time.
};

template <typename V>
struct PackedTiles {
  using Float = typename V::Float;
  using Int = typename V::Int;

  static size_t Min(size_t a, size_t b) { return a < b ? a : b; }

  static size_t CeilDivide(size_t a, size_t b) { return (a + b - 1) / b; }

  static void Prefetch(const char* p) { __builtin_prefetch(p, 0, 3); }

  template <Fetch kFetch>
  static void FetchAhead(const PackedTile& tile, const char* source) {
    if (kFetch != Fetch::kNextBlock) {
      Prefetch(source + tile.stream_bytes);
    }
    if (kFetch == Fetch::kStreamTwice) {
      Prefetch(source + tile.far_bytes);
    }
  }

  template <int kRows, int kPanels>
  static void LoadSums(const PackedTile& tile, Float (&sums)[kRows][kPanels]) {
    const bool whole = tile.column_count == kPanels * kColumns;
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        const float* y =
            tile.y + static_cast<size_t>(r) * tile.y_stride + static_cast<size_t>(c) * kColumns;
        if (tile.fresh) {
          sums[r][c] = V::Zero();
        } else if (whole) {
          sums[r][c] = V::Load(y);
        } else {
          sums[r][c] = V::LoadPart(y, tile.column_count - static_cast<size_t>(c) * kColumns);
        }
      }
    }
  }

  template <int kRows, int kPanels>
  static void StoreSums(const PackedTile& tile, const Float (&sums)[kRows][kPanels]) {
    const bool whole = tile.column_count == kPanels * kColumns;
    SY_UNROLL
    for (int c = 0; c < kPanels; ++c) {
      const size_t first = static_cast<size_t>(c) * kColumns;
      const size_t count = Min(tile.column_count - first, kColumns);
      Float bias = V::Zero();
      if (tile.bias != nullptr) {
        bias = whole ? V::Load(tile.bias + first) : V::LoadPart(tile.bias + first, count);
      }
      SY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Float value = tile.bias != nullptr ? V::Add(sums[r][c], bias) : sums[r][c];
        float* y = tile.y + static_cast<size_t>(r) * tile.y_stride + first;
        if (whole) {
          V::Store(value, y);
        } else {
          V::StorePart(value, y, count);
        }
      }
    }
  }

  // sums += x . w over `depth` k of bf16 pairs. kStream: weights come from memory, fetched ahead.
  template <int kRows, int kPanels, Fetch kFetch>
  static void AddPairs(const PackedTile& tile, Float (&sums)[kRows][kPanels]) {
    const char* x = tile.x;
    const char* w = tile.w;
    const char* ahead = tile.ahead;
    for (size_t pair = 0; pair < tile.depth / 2; ++pair) {
      typename V::Pair weights[kPanels];
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        const char* source = w + static_cast<size_t>(c) * tile.panel_stride;
        weights[c] = V::ToPair(V::LoadBytes(source));
        FetchAhead<kFetch>(tile, source);
      }
      if (kFetch == Fetch::kNextBlock) {
        Prefetch(ahead);
        Prefetch(ahead + tile.far_bytes);
        ahead += kLine;
      }
      SY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const typename V::Pair value = V::SetPair(x + static_cast<size_t>(r) * tile.x_stride);
        SY_UNROLL
        for (int c = 0; c < kPanels; ++c) {
          sums[r][c] = V::DotPair(sums[r][c], value, weights[c]);
        }
      }
      x += 4;
      w += kPairBytes;
    }
  }

  template <int kRows, int kPanels, Fetch kFetch>
  static void Bf16Tile(const PackedTile& tile) {
    Float sums[kRows][kPanels];
    LoadSums(tile, sums);
    AddPairs<kRows, kPanels, kFetch>(tile, sums);
    StoreSums(tile, sums);
  }

  // sums = fma(float(parts) * x_scale, w_scale, sums) for one group.
  template <int kRows, int kPanels>
  static void AddScaled(const PackedTile& tile, size_t group, const Float (&scales)[kPanels],
                        const Int (&parts)[kRows][kPanels], Float (&sums)[kRows][kPanels]) {
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const char* row = reinterpret_cast<const char*>(tile.x_scales + group) +
                        static_cast<size_t>(r) * tile.x_stride;
      const Float x_scale = V::Set1(row);
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        sums[r][c] = V::Fma(V::Mul(V::ToFloat(parts[r][c]), x_scale), scales[c], sums[r][c]);
      }
    }
  }

  template <int kRows, int kPanels>
  static void StartParts(const PackedTile& tile, size_t group, Int (&parts)[kRows][kPanels]) {
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const char* row = reinterpret_cast<const char*>(tile.x_offsets + group) +
                        static_cast<size_t>(r) * tile.x_stride;
      const Int start = V::StartOf(row);
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        parts[r][c] = start;
      }
    }
  }

  template <int kRows, int kPanels>
  static void AddQuad(const PackedTile& tile, const char* x,
                      const typename V::Quad (&weights)[kPanels], Int (&parts)[kRows][kPanels]) {
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Int value = V::SetQuad(x + static_cast<size_t>(r) * tile.x_stride);
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        parts[r][c] = V::DotQuad(parts[r][c], value, weights[c]);
      }
    }
  }

  // parts += x . w for one group of kInt8; w: its codes.
  template <int kRows, int kPanels, Fetch kFetch>
  static void AddInt8Group(const PackedTile& tile, const char* x, const char* w,
                           Int (&parts)[kRows][kPanels]) {
    SY_UNROLL
    for (size_t quad = 0; quad < kQuads; ++quad) {
      typename V::Quad weights[kPanels];
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        const char* source = w + static_cast<size_t>(c) * kInt8Block + quad * kQuadBytes;
        weights[c] = V::ToQuad(V::LoadBytes(source));
        FetchAhead<kFetch>(tile, source);
      }
      AddQuad(tile, x + quad * 4, weights, parts);
    }
  }

  // The same for kInt4.
  template <int kRows, int kPanels, Fetch kFetch>
  static void AddInt4Group(const PackedTile& tile, const char* x, const char* w,
                           Int (&parts)[kRows][kPanels]) {
    SY_UNROLL
    for (size_t step = 0; step < kQuads / 2; ++step) {
      typename V::Quad low[kPanels];
      typename V::Quad high[kPanels];
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        const char* source = w + static_cast<size_t>(c) * kInt4Block + step * kQuadBytes;
        const typename V::Bytes both = V::LoadBytes(source);
        low[c] = V::ToQuad(V::LowLevels(both));
        high[c] = V::ToQuad(V::HighLevels(both));
        FetchAhead<kFetch>(tile, source);
      }
      AddQuad(tile, x + step * 4, low, parts);
      AddQuad(tile, x + kScaleGroup / 2 + step * 4, high, parts);
    }
  }

  // One panel, or the two that lie together.
  template <int kRows, int kPanels, Fetch kFetch, bool kNibbles>
  static void IntTile(const PackedTile& tile) {
    static_assert(kPanels <= 2);
    constexpr size_t kBlock = kNibbles ? kInt4Block : kInt8Block;
    constexpr size_t kCodes = kBlock - kScales;
    const size_t stride = kPanels == 2 ? 2 * kBlock : tile.block_stride;
    Float sums[kRows][kPanels];
    LoadSums(tile, sums);
    const char* x = tile.x;
    const char* w = tile.w;
    const char* ahead = tile.ahead;
    size_t group = 0;
    for (size_t k = 0; k < tile.depth; k += kDepthBlock) {
      SY_UNROLL
      for (size_t half = 0; half < kGroupsPerBlock; ++half) {
        Int parts[kRows][kPanels];
        StartParts(tile, group, parts);
        const char* codes = w + half * (kCodes / kGroupsPerBlock);
        if constexpr (kNibbles) {
          AddInt4Group<kRows, kPanels, kFetch>(tile, x, codes, parts);
        } else {
          AddInt8Group<kRows, kPanels, kFetch>(tile, x, codes, parts);
        }
        Float scales[kPanels];
        SY_UNROLL
        for (int c = 0; c < kPanels; ++c) {
          const char* source = w + static_cast<size_t>(c) * kBlock + kCodes;
          scales[c] = V::LoadF16(source + half * (kScales / kGroupsPerBlock));
          if (half == 0) {
            FetchAhead<kFetch>(tile, source);
          }
        }
        AddScaled(tile, group, scales, parts, sums);
        x += kScaleGroup;
        ++group;
      }
      if (kFetch == Fetch::kNextBlock) {
        SY_UNROLL
        for (size_t line = 0; line < kBlock / kLine; ++line) {
          Prefetch(ahead + line * kLine);
        }
        ahead += kPanels == 2 ? kBlock : stride;
      }
      w += stride;
    }
    StoreSums(tile, sums);
  }

  // Weights of kFp8 widened on the way, for few rows.
  template <int kRows, int kPanels>
  static void Fp8Tile(const PackedTile& tile) {
    Float sums[kRows][kPanels];
    LoadSums(tile, sums);
    const char* x = tile.x;
    const char* w = tile.w;
    for (size_t k = 0; k < tile.depth; k += kFp8Block) {
      const size_t depth = Min(kFp8Block, tile.depth - k);
      Float parts[kRows][kPanels];
      SY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        SY_UNROLL
        for (int c = 0; c < kPanels; ++c) {
          parts[r][c] = V::Zero();
        }
      }
      for (size_t i = 0; i < depth; i += 4) {
        typename V::Pair first[kPanels];
        typename V::Pair second[kPanels];
        SY_UNROLL
        for (int c = 0; c < kPanels; ++c) {
          const char* source = w + static_cast<size_t>(c) * tile.panel_stride;
          typename V::Bytes wide[2];
          V::WidenFp8(source, wide);
          first[c] = V::ToPair(wide[0]);
          second[c] = V::ToPair(wide[1]);
          FetchAhead<Fetch::kStreamTwice>(tile, source);
        }
        SY_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const char* source = x + static_cast<size_t>(r) * tile.x_stride;
          const typename V::Pair value = V::SetPair(source);
          const typename V::Pair next = V::SetPair(source + 4);
          SY_UNROLL
          for (int c = 0; c < kPanels; ++c) {
            parts[r][c] = V::DotPair(parts[r][c], value, first[c]);
            parts[r][c] = V::DotPair(parts[r][c], next, second[c]);
          }
        }
        x += 8;
        w += kPairBytes;
      }
      AddFp8Block(tile, k / kFp8Block, parts, sums);
    }
    StoreSums(tile, sums);
  }

  template <int kRows, int kPanels>
  static void AddFp8Block(const PackedTile& tile, size_t block,
                          const Float (&parts)[kRows][kPanels], Float (&sums)[kRows][kPanels]) {
    SY_UNROLL
    for (int c = 0; c < kPanels; ++c) {
      const Float scale = V::Set1(tile.fp8_scales + static_cast<size_t>(c) * tile.fp8_scale_stride +
                                  block * sizeof(float));
      SY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        sums[r][c] = V::Fma(parts[r][c], scale, sums[r][c]);
      }
    }
  }

  // One block of kFp8, its weights already widened: tile.w is bf16 pairs.
  template <int kRows, int kPanels>
  static void WideFp8Tile(const PackedTile& tile) {
    Float parts[kRows][kPanels];
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SY_UNROLL
      for (int c = 0; c < kPanels; ++c) {
        parts[r][c] = V::Zero();
      }
    }
    AddPairs<kRows, kPanels, Fetch::kNextBlock>(tile, parts);
    Float sums[kRows][kPanels];
    LoadSums(tile, sums);
    AddFp8Block(tile, 0, parts, sums);
    StoreSums(tile, sums);
  }
};

}  // namespace switchyard::internal

#undef SY_UNROLL

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_TILES_H_
