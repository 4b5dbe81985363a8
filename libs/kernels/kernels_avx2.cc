// Compiled for AVX2, FMA and F16C; see kernel_body.h for what must stay out of this file.
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "libs/kernels/internal/kernel_body.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {
namespace {

// Sixteen lanes in two registers. A value; the operations are those of ScalarVector.
struct Avx2Vector {
  static constexpr int kRowTileMax = 3;
  static constexpr int kColumnTile = 2;
  static constexpr int kSingleRowColumns = 4;

  __m256 low;
  __m256 high;

  // All ones in the lanes [0, count) of eight; any `count`.
  static __m256i FirstLanes(size_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
  }

  static __m256i FirstLanesHigh(size_t count) { return FirstLanes(count < 8 ? 0 : count - 8); }

  static __m256 WidenBf16(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }

  static __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

  static Avx2Vector Set1(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }

  static Avx2Vector LoadF32(const char* p) {
    const auto* lanes = reinterpret_cast<const float*>(p);
    return {_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8)};
  }

  static Avx2Vector LoadF32Part(const char* p, size_t count) {
    float lanes[16] = {};
    __builtin_memcpy(lanes, p, count * sizeof(float));
    return {_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8)};
  }

  static Avx2Vector LoadBf16(const char* p) {
    return {WidenBf16(Load128(p)), WidenBf16(Load128(p + 16))};
  }

  static Avx2Vector LoadBf16Part(const char* p, size_t count) {
    uint16_t lanes[16] = {};
    __builtin_memcpy(lanes, p, count * sizeof(uint16_t));
    return {WidenBf16(Load128(lanes)), WidenBf16(Load128(lanes + 8))};
  }

  static Avx2Vector LoadF16(const char* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 16))};
  }

  static Avx2Vector LoadF16Part(const char* p, size_t count) {
    uint16_t lanes[16] = {};
    __builtin_memcpy(lanes, p, count * sizeof(uint16_t));
    return {_mm256_cvtph_ps(Load128(lanes)), _mm256_cvtph_ps(Load128(lanes + 8))};
  }

  static void StoreF32(Avx2Vector a, float* p) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
  }

  static void StoreF32Part(Avx2Vector a, float* p, size_t count) {
    float lanes[16];
    StoreF32(a, lanes);
    __builtin_memcpy(p, lanes, count * sizeof(float));
  }

  static __m256i NarrowBf16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i upper = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  }

  static void StoreBf16(Avx2Vector a, uint16_t* p) {
    // Packing works within halves of a register; the permutation puts the quarters in order.
    const __m256i packed = _mm256_packus_epi32(NarrowBf16(a.low), NarrowBf16(a.high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }

  static void StoreBf16Part(Avx2Vector a, uint16_t* p, size_t count) {
    uint16_t lanes[16];
    StoreBf16(a, lanes);
    __builtin_memcpy(p, lanes, count * sizeof(uint16_t));
  }

  static Avx2Vector Add(Avx2Vector a, Avx2Vector b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }

  static Avx2Vector Sub(Avx2Vector a, Avx2Vector b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }

  static Avx2Vector Mul(Avx2Vector a, Avx2Vector b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }

  static Avx2Vector Div(Avx2Vector a, Avx2Vector b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }

  static Avx2Vector Fma(Avx2Vector a, Avx2Vector b, Avx2Vector c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }

  static Avx2Vector Min(Avx2Vector a, Avx2Vector b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }

  static Avx2Vector Max(Avx2Vector a, Avx2Vector b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }

  static Avx2Vector Keep(size_t count, Avx2Vector fresh, Avx2Vector old) {
    const __m256 low_mask = _mm256_castsi256_ps(FirstLanes(count));
    const __m256 high_mask = _mm256_castsi256_ps(FirstLanesHigh(count));
    return {_mm256_blendv_ps(old.low, fresh.low, low_mask),
            _mm256_blendv_ps(old.high, fresh.high, high_mask)};
  }

  static Avx2Vector ZeroIfLess(Avx2Vector x, Avx2Vector bound, Avx2Vector value) {
    const __m256 low_less = _mm256_cmp_ps(x.low, bound.low, _CMP_LT_OQ);
    const __m256 high_less = _mm256_cmp_ps(x.high, bound.high, _CMP_LT_OQ);
    return {_mm256_andnot_ps(low_less, value.low), _mm256_andnot_ps(high_less, value.high)};
  }

  static __m256 Pow2Of(__m256 shifted) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)));
  }

  static Avx2Vector Pow2OfLowBits(Avx2Vector shifted) {
    return {Pow2Of(shifted.low), Pow2Of(shifted.high)};
  }

  // Lanes (i, i + 8), then (i, i + 4).
  static __m128 FoldToFour(Avx2Vector a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }

  static float Sum(Avx2Vector a) {
    const __m128 four = FoldToFour(a);
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  static float Largest(Avx2Vector a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  // Four sums at once: a transpose turns the last two folds into whole-register additions.
  static void Sum4(const Avx2Vector* a, float* out) {
    __m128 r0 = FoldToFour(a[0]);
    __m128 r1 = FoldToFour(a[1]);
    __m128 r2 = FoldToFour(a[2]);
    __m128 r3 = FoldToFour(a[3]);
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(r0, r2), _mm_add_ps(r1, r3)));
  }

  static float Sqrt(float value) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(value))); }
};

}  // namespace

const Kernels kAvx2Kernels =
    KernelBody<Avx2Vector>::Table(InstructionSet::kAvx2, PackedGemmAvx2, PrepareRowAvx2);

}  // namespace switchyard::internal
