#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_KERNEL_BODY_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_KERNEL_BODY_H_

#include <cstddef>
#include <cstdint>

#include "libs/kernels/internal/exp.h"
#include "libs/kernels/kernels.h"

// The kernels, written once over a vector type V of 16 f32 lanes; a table is
// KernelBody<V>::Table(). Sharing the text is what makes the tables agree bit for bit: V supplies
// lane operations only.
//
// Any thread; functions without state. V must be local to its translation unit (an anonymous
// namespace), so that every instantiation is too: the linker must never merge code made for one
// instruction set into a file made for another. For the same reason nothing here calls an inline
// function of a shared header.

#if defined(__clang__)
#define SY_UNROLL _Pragma("unroll")
#else
#define SY_UNROLL _Pragma("GCC unroll 16")
#endif

namespace switchyard::internal {

inline constexpr size_t kLanes = 16;

template <typename V>
struct WeightF32 {
  static constexpr size_t kBytes = 4;

  static V Load(const char* p) { return V::LoadF32(p); }

  static V LoadPart(const char* p, size_t count) { return V::LoadF32Part(p, count); }
};

template <typename V>
struct WeightBf16 {
  static constexpr size_t kBytes = 2;

  static V Load(const char* p) { return V::LoadBf16(p); }

  static V LoadPart(const char* p, size_t count) { return V::LoadBf16Part(p, count); }
};

template <typename V>
struct WeightF16 {
  static constexpr size_t kBytes = 2;

  static V Load(const char* p) { return V::LoadF16(p); }

  static V LoadPart(const char* p, size_t count) { return V::LoadF16Part(p, count); }
};

template <typename V>
struct KernelBody {
  using F32 = WeightF32<V>;
  using Bf16 = WeightBf16<V>;

  static const char* Bytes(const void* p) { return static_cast<const char*>(p); }

  // A tile of kRows x kColumns outputs whose accumulators stay in registers over all of K.
  template <typename W, int kRows, int kColumns>
  static void Tile(const GemmArgs& args, size_t row, size_t column) {
    const size_t depth = args.w.columns;
    const size_t w_stride = depth * W::kBytes;
    const char* x = Bytes(args.x + row * args.x_stride);
    const size_t x_stride = args.x_stride * sizeof(float);
    const char* w = Bytes(args.w.data) + column * w_stride;
    const bool first_pass = row == 0;
    V sums[kRows][kColumns];
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SY_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] = V::Set1(0.0F);
      }
    }
    size_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
      V weights[kColumns];
      SY_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const char* const source = w + static_cast<size_t>(c) * w_stride + k * W::kBytes;
        weights[c] = W::Load(source);
        // The next strip, so that memory works while this one computes. Needs no bounds: a
        // prefetch of an address that is not there does nothing.
        if (first_pass) {
          __builtin_prefetch(source + kColumns * w_stride, 0, 2);
        }
      }
      SY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const V value = V::LoadF32(x + static_cast<size_t>(r) * x_stride + k * sizeof(float));
        SY_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          sums[r][c] = V::Fma(value, weights[c], sums[r][c]);
        }
      }
    }
    if (k < depth) {
      const size_t rest = depth - k;
      SY_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const V weight = W::LoadPart(w + static_cast<size_t>(c) * w_stride + k * W::kBytes, rest);
        SY_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const V value =
              V::LoadF32Part(x + static_cast<size_t>(r) * x_stride + k * sizeof(float), rest);
          sums[r][c] = V::Keep(rest, V::Fma(value, weight, sums[r][c]), sums[r][c]);
        }
      }
    }
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      StoreSums<kColumns>(sums[r], args, row + static_cast<size_t>(r), column);
    }
  }

  template <int kColumns>
  static void StoreSums(const V* sums, const GemmArgs& args, size_t row, size_t column) {
    float result[kColumns];
    if constexpr (kColumns % 4 == 0) {
      SY_UNROLL
      for (int c = 0; c < kColumns; c += 4) {
        V::Sum4(sums + c, result + c);
      }
    } else {
      SY_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        result[c] = V::Sum(sums[c]);
      }
    }
    float* y = args.y + row * args.y_stride + column;
    SY_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      y[c] =
          args.bias == nullptr ? result[c] : result[c] + args.bias[column + static_cast<size_t>(c)];
    }
  }

  template <typename W, int kColumns>
  static void TileOf(const GemmArgs& args, size_t row, size_t row_count, size_t column) {
    static_assert(V::kRowTileMax <= 6);
    switch (row_count) {
      case 1:
        return Tile<W, 1, kColumns>(args, row, column);
      case 2:
        return Tile<W, 2, kColumns>(args, row, column);
      case 3:
        return Tile<W, 3, kColumns>(args, row, column);
      case 4:
        if constexpr (V::kRowTileMax >= 4) {
          return Tile<W, 4, kColumns>(args, row, column);
        }
        break;
      case 5:
        if constexpr (V::kRowTileMax >= 5) {
          return Tile<W, 5, kColumns>(args, row, column);
        }
        break;
      case 6:
        if constexpr (V::kRowTileMax >= 6) {
          return Tile<W, 6, kColumns>(args, row, column);
        }
        break;
      default:
        break;
    }
    __builtin_unreachable();
  }

  template <typename W, int kColumns>
  static void ColumnStrip(const GemmArgs& args, size_t row_begin, size_t row_end, size_t column) {
    for (size_t row = row_begin; row < row_end;) {
      // Tiles of nearly equal height: 8 rows are 4 + 4 rather than 6 + 2.
      const size_t left = row_end - row;
      const size_t tile_count = (left + V::kRowTileMax - 1) / V::kRowTileMax;
      const size_t height = (left + tile_count - 1) / tile_count;
      TileOf<W, kColumns>(args, row, height, column);
      row += height;
    }
  }

  template <typename W>
  static void GemmOf(const GemmArgs& args) {
    // Rows of one block stay in the second-level cache while all columns pass over them.
    constexpr size_t kRowBlock = 48;
    const size_t row_count = args.row_count;
    for (size_t row = 0; row < row_count; row += kRowBlock) {
      const size_t row_end = row_count - row < kRowBlock ? row_count : row + kRowBlock;
      size_t column = args.column_begin;
      if (row_count == 1) {
        for (; column + V::kSingleRowColumns <= args.column_end; column += V::kSingleRowColumns) {
          Tile<W, 1, V::kSingleRowColumns>(args, 0, column);
        }
      }
      for (; column + V::kColumnTile <= args.column_end; column += V::kColumnTile) {
        ColumnStrip<W, V::kColumnTile>(args, row, row_end, column);
      }
      for (; column < args.column_end; ++column) {
        ColumnStrip<W, 1>(args, row, row_end, column);
      }
    }
  }

  static void Gemm(const GemmArgs& args) {
    switch (args.w.dtype) {
      case Dtype::kF32:
        return GemmOf<WeightF32<V>>(args);
      case Dtype::kBf16:
        return GemmOf<WeightBf16<V>>(args);
      case Dtype::kF16:
        return GemmOf<WeightF16<V>>(args);
    }
  }

  template <typename W>
  static float DotOf(const float* a, const void* b, size_t count) {
    const char* left = Bytes(a);
    const char* right = Bytes(b);
    V sum = V::Set1(0.0F);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      sum = V::Fma(V::LoadF32(left + i * sizeof(float)), W::Load(right + i * W::kBytes), sum);
    }
    if (i < count) {
      const size_t rest = count - i;
      const V next = V::Fma(V::LoadF32Part(left + i * sizeof(float), rest),
                            W::LoadPart(right + i * W::kBytes, rest), sum);
      sum = V::Keep(rest, next, sum);
    }
    return V::Sum(sum);
  }

  static float Dot(const float* a, const float* b, size_t count) { return DotOf<F32>(a, b, count); }

  static float DotBf16(const float* a, const uint16_t* b, size_t count) {
    return DotOf<Bf16>(a, b, count);
  }

  // y[i] = f(x[i], y[i]) by lanes, where x has W's element type.
  template <typename W, typename F>
  static void Map(const void* x, float* y, size_t count, F f) {
    const char* source = Bytes(x);
    const char* old = Bytes(y);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      V::StoreF32(f(W::Load(source + i * W::kBytes), V::LoadF32(old + i * sizeof(float))), y + i);
    }
    if (i < count) {
      const size_t rest = count - i;
      V::StoreF32Part(f(W::LoadPart(source + i * W::kBytes, rest),
                        V::LoadF32Part(old + i * sizeof(float), rest)),
                      y + i, rest);
    }
  }

  static void Axpy(float a, const float* x, float* y, size_t count) {
    const V factor = V::Set1(a);
    Map<F32>(x, y, count, [&](V value, V old) { return V::Fma(factor, value, old); });
  }

  static void AxpyBf16(float a, const uint16_t* x, float* y, size_t count) {
    const V factor = V::Set1(a);
    Map<Bf16>(x, y, count, [&](V value, V old) { return V::Fma(factor, value, old); });
  }

  // Rows x (one register of columns) whose sums stay in registers over all terms.
  template <typename W, int kRows>
  static void SumTile(const WeightedSumArgs& args, size_t row, size_t i, size_t lane_count) {
    const char* x = Bytes(args.x) + i * W::kBytes;
    const size_t x_stride = args.x_stride * W::kBytes;
    const float* weights = args.weights + row * args.weight_stride;
    float* y = args.y + row * args.y_stride + i;
    V sums[kRows];
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const char* old = Bytes(y + static_cast<size_t>(r) * args.y_stride);
      sums[r] = lane_count == kLanes ? V::LoadF32(old) : V::LoadF32Part(old, lane_count);
    }
    for (size_t t = 0; t < args.term_count; ++t) {
      const char* source = x + t * x_stride;
      const V value = lane_count == kLanes ? W::Load(source) : W::LoadPart(source, lane_count);
      SY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const V weight = V::Set1(weights[static_cast<size_t>(r) * args.weight_stride + t]);
        sums[r] = V::Fma(weight, value, sums[r]);
      }
    }
    SY_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float* target = y + static_cast<size_t>(r) * args.y_stride;
      if (lane_count == kLanes) {
        V::StoreF32(sums[r], target);
      } else {
        V::StoreF32Part(sums[r], target, lane_count);
      }
    }
  }

  template <typename W>
  static void WeightedSumOf(const WeightedSumArgs& args) {
    constexpr int kRowTile = 8;
    size_t row = 0;
    const auto each_strip = [&](auto tile) {
      for (size_t i = 0; i < args.count; i += kLanes) {
        tile(i, args.count - i < kLanes ? args.count - i : kLanes);
      }
    };
    for (; row + kRowTile <= args.row_count; row += kRowTile) {
      each_strip([&](size_t i, size_t lanes) { SumTile<W, kRowTile>(args, row, i, lanes); });
    }
    for (; row < args.row_count; ++row) {
      each_strip([&](size_t i, size_t lanes) { SumTile<W, 1>(args, row, i, lanes); });
    }
  }

  static void WeightedSum(const WeightedSumArgs& args) {
    switch (args.dtype) {
      case Dtype::kF32:
        return WeightedSumOf<WeightF32<V>>(args);
      case Dtype::kBf16:
        return WeightedSumOf<WeightBf16<V>>(args);
      case Dtype::kF16:
        return WeightedSumOf<WeightF16<V>>(args);
    }
  }

  static void Scale(float a, float* y, size_t count) {
    const V factor = V::Set1(a);
    Map<F32>(y, y, count, [&](V value, V) { return V::Mul(value, factor); });
  }

  static void Add(const float* x, float* y, size_t count) {
    Map<F32>(x, y, count, [](V value, V old) { return V::Add(old, value); });
  }

  static void RmsNorm(const float* x, const float* weight, float epsilon, float* y, size_t count) {
    const float mean = Dot(x, x, count) / static_cast<float>(count);
    const V inverse = V::Set1(1.0F / V::Sqrt(mean + epsilon));
    const char* source = Bytes(x);
    const char* factor = Bytes(weight);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const V normed = V::Mul(V::LoadF32(source + i * sizeof(float)), inverse);
      V::StoreF32(V::Mul(normed, V::LoadF32(factor + i * sizeof(float))), y + i);
    }
    if (i < count) {
      const size_t rest = count - i;
      const V normed = V::Mul(V::LoadF32Part(source + i * sizeof(float), rest), inverse);
      V::StoreF32Part(V::Mul(normed, V::LoadF32Part(factor + i * sizeof(float), rest)), y + i,
                      rest);
    }
  }

  // 1 + exp(-x), the denominator of sigmoid and silu.
  static V OnePlusExpOfMinus(V x) {
    return V::Add(ExpOf<V>(V::Sub(V::Set1(0.0F), x)), V::Set1(1.0F));
  }

  static V SiluMulOf(V gate, V up) { return V::Mul(V::Div(gate, OnePlusExpOfMinus(gate)), up); }

  static void SiluMul(const float* gate, const float* up, float* y, size_t count) {
    const char* left = Bytes(gate);
    const char* right = Bytes(up);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const size_t offset = i * sizeof(float);
      V::StoreF32(SiluMulOf(V::LoadF32(left + offset), V::LoadF32(right + offset)), y + i);
    }
    if (i < count) {
      const size_t rest = count - i;
      const size_t offset = i * sizeof(float);
      const V value =
          SiluMulOf(V::LoadF32Part(left + offset, rest), V::LoadF32Part(right + offset, rest));
      V::StoreF32Part(value, y + i, rest);
    }
  }

  static float ExpSum(float shift, float* x, size_t count) {
    const V offset = V::Set1(shift);
    const char* source = Bytes(x);
    V sum = V::Set1(0.0F);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const V value = ExpOf<V>(V::Sub(V::LoadF32(source + i * sizeof(float)), offset));
      V::StoreF32(value, x + i);
      sum = V::Add(sum, value);
    }
    if (i < count) {
      const size_t rest = count - i;
      const V value = ExpOf<V>(V::Sub(V::LoadF32Part(source + i * sizeof(float), rest), offset));
      V::StoreF32Part(value, x + i, rest);
      sum = V::Keep(rest, V::Add(sum, value), sum);
    }
    return V::Sum(sum);
  }

  static void Sigmoid(const float* x, float* y, size_t count) {
    Map<F32>(x, y, count,
             [](V value, V) { return V::Div(V::Set1(1.0F), OnePlusExpOfMinus(value)); });
  }

  static float Max(const float* x, size_t count) {
    const char* source = Bytes(x);
    V largest = V::Set1(-__builtin_inff());
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      largest = V::Max(largest, V::LoadF32(source + i * sizeof(float)));
    }
    if (i < count) {
      const size_t rest = count - i;
      const V next = V::Max(largest, V::LoadF32Part(source + i * sizeof(float), rest));
      largest = V::Keep(rest, next, largest);
    }
    return V::Largest(largest);
  }

  static void F32ToBf16(const float* x, uint16_t* y, size_t count) {
    const char* source = Bytes(x);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      V::StoreBf16(V::LoadF32(source + i * sizeof(float)), y + i);
    }
    if (i < count) {
      V::StoreBf16Part(V::LoadF32Part(source + i * sizeof(float), count - i), y + i, count - i);
    }
  }

  static void Bf16ToF32(const uint16_t* x, float* y, size_t count) {
    const char* source = Bytes(x);
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      V::StoreF32(V::LoadBf16(source + i * sizeof(uint16_t)), y + i);
    }
    if (i < count) {
      V::StoreF32Part(V::LoadBf16Part(source + i * sizeof(uint16_t), count - i), y + i, count - i);
    }
  }

  static constexpr Kernels Table(InstructionSet set, decltype(Kernels::packed_gemm) packed_gemm,
                                 decltype(Kernels::prepare_row) prepare_row) {
    return {.instruction_set = set,
            .gemm = Gemm,
            .packed_gemm = packed_gemm,
            .prepare_row = prepare_row,
            .dot = Dot,
            .dot_bf16 = DotBf16,
            .axpy = Axpy,
            .axpy_bf16 = AxpyBf16,
            .weighted_sum = WeightedSum,
            .scale = Scale,
            .add = Add,
            .rms_norm = RmsNorm,
            .silu_mul = SiluMul,
            .exp_sum = ExpSum,
            .sigmoid = Sigmoid,
            .max = Max,
            .f32_to_bf16 = F32ToBf16,
            .bf16_to_f32 = Bf16ToF32};
  }
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_KERNEL_BODY_H_
