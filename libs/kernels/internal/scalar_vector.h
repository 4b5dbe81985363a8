#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_SCALAR_VECTOR_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_SCALAR_VECTOR_H_

#include <cstddef>
#include <cstdint>

// Sixteen lanes as an array: the definition of the lane operations that kernel_body.h needs.
//
// A value, any thread. Included only by files compiled for the base instruction set.
namespace switchyard::internal {
namespace {

template <size_t kLaneCount>
struct ScalarVector {
  static constexpr int kRowTileMax = 4;
  static constexpr int kColumnTile = 4;
  static constexpr int kSingleRowColumns = 4;

  float lane[kLaneCount];

  static float ToFloat(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
  }

  static uint32_t ToBits(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    return bits;
  }

  // Exact; a signalling NaN becomes quiet, as the hardware conversion does.
  static float WidenF16(uint32_t half) {
    const uint32_t sign = (half & 0x8000U) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fU;
    const uint32_t mantissa = half & 0x3ffU;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
      return ToFloat(ToBits(magnitude) | sign);
    }
    if (exponent == 0x1fU) {
      const uint32_t quiet = mantissa == 0 ? 0U : 0x400000U;
      return ToFloat(sign | 0x7f800000U | (mantissa << 13) | quiet);
    }
    return ToFloat(sign | ((exponent + 112U) << 23) | (mantissa << 13));
  }

  static uint16_t NarrowBf16(float value) {
    const uint32_t bits = ToBits(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
      return static_cast<uint16_t>((bits >> 16) | 0x0040U);
    }
    return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
  }

  template <typename F>
  static ScalarVector Each(F f) {
    ScalarVector result;
    for (size_t i = 0; i < kLaneCount; ++i) {
      result.lane[i] = f(i);
    }
    return result;
  }

  static ScalarVector Set1(float value) {
    return Each([&](size_t) { return value; });
  }

  static ScalarVector LoadF32(const char* p) { return LoadF32Part(p, kLaneCount); }

  static ScalarVector LoadF32Part(const char* p, size_t count) {
    ScalarVector result = Set1(0.0F);
    __builtin_memcpy(result.lane, p, count * sizeof(float));
    return result;
  }

  static ScalarVector LoadBf16(const char* p) { return LoadBf16Part(p, kLaneCount); }

  static ScalarVector LoadBf16Part(const char* p, size_t count) {
    uint16_t bits[kLaneCount] = {};
    __builtin_memcpy(bits, p, count * sizeof(uint16_t));
    return Each([&](size_t i) { return ToFloat(static_cast<uint32_t>(bits[i]) << 16); });
  }

  static ScalarVector LoadF16(const char* p) { return LoadF16Part(p, kLaneCount); }

  static ScalarVector LoadF16Part(const char* p, size_t count) {
    uint16_t bits[kLaneCount] = {};
    __builtin_memcpy(bits, p, count * sizeof(uint16_t));
    return Each([&](size_t i) { return WidenF16(bits[i]); });
  }

  static void StoreF32(ScalarVector v, float* p) { StoreF32Part(v, p, kLaneCount); }

  static void StoreF32Part(ScalarVector v, float* p, size_t count) {
    __builtin_memcpy(p, v.lane, count * sizeof(float));
  }

  static void StoreBf16(ScalarVector v, uint16_t* p) { StoreBf16Part(v, p, kLaneCount); }

  static void StoreBf16Part(ScalarVector v, uint16_t* p, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      p[i] = NarrowBf16(v.lane[i]);
    }
  }

  static ScalarVector Add(ScalarVector a, ScalarVector b) {
    return Each([&](size_t i) { return a.lane[i] + b.lane[i]; });
  }

  static ScalarVector Sub(ScalarVector a, ScalarVector b) {
    return Each([&](size_t i) { return a.lane[i] - b.lane[i]; });
  }

  static ScalarVector Mul(ScalarVector a, ScalarVector b) {
    return Each([&](size_t i) { return a.lane[i] * b.lane[i]; });
  }

  static ScalarVector Div(ScalarVector a, ScalarVector b) {
    return Each([&](size_t i) { return a.lane[i] / b.lane[i]; });
  }

  // a * b + c in one rounding.
  static ScalarVector Fma(ScalarVector a, ScalarVector b, ScalarVector c) {
    return Each([&](size_t i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }

  // b where the lanes are equal or one is NaN.
  static ScalarVector Min(ScalarVector a, ScalarVector b) {
    return Each([&](size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }

  static ScalarVector Max(ScalarVector a, ScalarVector b) {
    return Each([&](size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }

  // The first `count` lanes of `fresh`, the others of `old`.
  static ScalarVector Keep(size_t count, ScalarVector fresh, ScalarVector old) {
    return Each([&](size_t i) { return i < count ? fresh.lane[i] : old.lane[i]; });
  }

  // value, or 0 where x < bound.
  static ScalarVector ZeroIfLess(ScalarVector x, ScalarVector bound, ScalarVector value) {
    return Each([&](size_t i) { return x.lane[i] < bound.lane[i] ? 0.0F : value.lane[i]; });
  }

  // 2^n for the integer n that the low bits of `shifted` hold.
  static ScalarVector Pow2OfLowBits(ScalarVector shifted) {
    return Each([&](size_t i) { return ToFloat((ToBits(shifted.lane[i]) << 23) + (127U << 23)); });
  }

  static float Sum(ScalarVector v) {
    for (size_t distance = kLaneCount / 2; distance > 0; distance /= 2) {
      for (size_t i = 0; i < distance; ++i) {
        v.lane[i] += v.lane[i + distance];
      }
    }
    return v.lane[0];
  }

  static float Largest(ScalarVector v) {
    for (size_t distance = kLaneCount / 2; distance > 0; distance /= 2) {
      for (size_t i = 0; i < distance; ++i) {
        v.lane[i] = v.lane[i] > v.lane[i + distance] ? v.lane[i] : v.lane[i + distance];
      }
    }
    return v.lane[0];
  }

  static void Sum4(const ScalarVector* v, float* out) {
    for (size_t i = 0; i < 4; ++i) {
      out[i] = Sum(v[i]);
    }
  }

  static float Sqrt(float value) { return __builtin_sqrtf(value); }
};

}  // namespace
}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_SCALAR_VECTOR_H_
