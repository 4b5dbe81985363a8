// Compiled for AVX-512 F, BW, VL and DQ; see kernel_body.h for what must stay out of this file.
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "libs/kernels/internal/kernel_body.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {
namespace {

// Sixteen lanes in one register. A value; the operations are those of ScalarVector.
struct Avx512Vector {
  static constexpr int kRowTileMax = 6;
  static constexpr int kColumnTile = 4;
  static constexpr int kSingleRowColumns = 8;

  __m512 v;

  static __mmask16 FirstLanes(size_t count) { return static_cast<__mmask16>((1U << count) - 1U); }

  static Avx512Vector WidenBf16(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }

  static Avx512Vector Set1(float value) { return {_mm512_set1_ps(value)}; }

  static Avx512Vector LoadF32(const char* p) { return {_mm512_loadu_ps(p)}; }

  static Avx512Vector LoadF32Part(const char* p, size_t count) {
    return {_mm512_maskz_loadu_ps(FirstLanes(count), p)};
  }

  static Avx512Vector LoadBf16(const char* p) {
    return WidenBf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  static Avx512Vector LoadBf16Part(const char* p, size_t count) {
    return WidenBf16(_mm256_maskz_loadu_epi16(FirstLanes(count), p));
  }

  static Avx512Vector LoadF16(const char* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }

  static Avx512Vector LoadF16Part(const char* p, size_t count) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(count), p))};
  }

  static void StoreF32(Avx512Vector a, float* p) { _mm512_storeu_ps(p, a.v); }

  static void StoreF32Part(Avx512Vector a, float* p, size_t count) {
    _mm512_mask_storeu_ps(p, FirstLanes(count), a.v);
  }

  static __m256i NarrowBf16(Avx512Vector a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
    const __m512i quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet));
  }

  static void StoreBf16(Avx512Vector a, uint16_t* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), NarrowBf16(a));
  }

  static void StoreBf16Part(Avx512Vector a, uint16_t* p, size_t count) {
    _mm256_mask_storeu_epi16(p, FirstLanes(count), NarrowBf16(a));
  }

  static Avx512Vector Add(Avx512Vector a, Avx512Vector b) { return {_mm512_add_ps(a.v, b.v)}; }

  static Avx512Vector Sub(Avx512Vector a, Avx512Vector b) { return {_mm512_sub_ps(a.v, b.v)}; }

  static Avx512Vector Mul(Avx512Vector a, Avx512Vector b) { return {_mm512_mul_ps(a.v, b.v)}; }

  static Avx512Vector Div(Avx512Vector a, Avx512Vector b) { return {_mm512_div_ps(a.v, b.v)}; }

  static Avx512Vector Fma(Avx512Vector a, Avx512Vector b, Avx512Vector c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }

  static Avx512Vector Min(Avx512Vector a, Avx512Vector b) { return {_mm512_min_ps(a.v, b.v)}; }

  static Avx512Vector Max(Avx512Vector a, Avx512Vector b) { return {_mm512_max_ps(a.v, b.v)}; }

  static Avx512Vector Keep(size_t count, Avx512Vector fresh, Avx512Vector old) {
    return {_mm512_mask_mov_ps(old.v, FirstLanes(count), fresh.v)};
  }

  static Avx512Vector ZeroIfLess(Avx512Vector x, Avx512Vector bound, Avx512Vector value) {
    const __mmask16 less = _mm512_cmp_ps_mask(x.v, bound.v, _CMP_LT_OQ);
    return {_mm512_maskz_mov_ps(static_cast<__mmask16>(~less), value.v)};
  }

  static Avx512Vector Pow2OfLowBits(Avx512Vector shifted) {
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
    return {_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23)))};
  }

  // Lanes (i, i + 8), then (i, i + 4).
  static __m128 FoldToFour(Avx512Vector a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }

  static float Sum(Avx512Vector a) {
    const __m128 four = FoldToFour(a);
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  static float Largest(Avx512Vector a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  // Four sums at once: a transpose turns the last two folds into whole-register additions.
  static void Sum4(const Avx512Vector* a, float* out) {
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

const Kernels kAvx512Kernels =
    KernelBody<Avx512Vector>::Table(InstructionSet::kAvx512, PackedGemmAvx512, PrepareRowAvx512);
const Kernels kAvx512Bf16Kernels = KernelBody<Avx512Vector>::Table(
    InstructionSet::kAvx512Bf16, PackedGemmAvx512Bf16, PrepareRowAvx512);

}  // namespace switchyard::internal
