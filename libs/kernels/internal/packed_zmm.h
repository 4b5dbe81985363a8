#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_ZMM_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_ZMM_H_

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "libs/kernels/internal/tables.h"

// The lane operations of packed_body.h that all AVX-512 tables share (F, BW, VL, DQ, VNNI).
//
// A value type without state, any thread. Local to each file that includes it, see kernel_body.h.
namespace switchyard::internal {
namespace {

struct ZmmLanes {
  using Float = __m512;
  using Int = __m512i;
  using Bytes = __m512i;
  using Quad = __m512i;  // u8 code + 128 of 16 outputs and four k.

  // 32 registers: sums, integer parts, weights of each panel, one value of x.
  static constexpr int kRows = 6;

  static constexpr int kManyIntPanels = 2;

  static constexpr int IntPanels(int) { return 2; }

  static __mmask16 FirstLanes(size_t count) {
    return static_cast<__mmask16>(count >= 16 ? 0xffffU : (1U << count) - 1U);
  }

  static Float Zero() { return _mm512_setzero_ps(); }

  static Float Set1(const char* p) { return _mm512_castsi512_ps(SetQuad(p)); }

  static Float Load(const float* p) { return _mm512_loadu_ps(p); }

  static Float LoadPart(const float* p, size_t count) {
    return _mm512_maskz_loadu_ps(FirstLanes(count), p);
  }

  static void Store(Float a, float* p) { _mm512_storeu_ps(p, a); }

  static void StorePart(Float a, float* p, size_t count) {
    _mm512_mask_storeu_ps(p, FirstLanes(count), a);
  }

  static Float Add(Float a, Float b) { return _mm512_add_ps(a, b); }

  static Float Mul(Float a, Float b) { return _mm512_mul_ps(a, b); }

  static Float Fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }

  // Of a sum that began at StartOf(): a subtraction, because conversions take the place of
  // products.
  static Float ToFloat(Int a) {
    return _mm512_sub_ps(_mm512_castsi512_ps(a), _mm512_set1_ps(12582912.0F));
  }

  static Float LoadF16(const char* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
  }

  // Four bytes in every lane.
  static Int SetQuad(const char* p) {
    int bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    return _mm512_set1_epi32(bits);
  }

  // Where a sum of products starts: what cancels the 128 in all codes, and 1.5 x 2^23 as a float.
  static Int StartOf(const char* offset) { return SetQuad(offset); }

  static Bytes LoadBytes(const char* p) { return _mm512_load_si512(p); }

  static void StoreBytes(Bytes a, char* p) { _mm512_store_si512(p, a); }

  static Quad ToQuad(Bytes a) { return a; }

  static Int DotQuad(Int sum, Int x, Quad w) { return _mm512_dpbusd_epi32(sum, w, x); }

  // Reorders 64 bytes so that unpacking the lower eight of each 16 takes the first 32.
  static Bytes FirstHalvesLow(Bytes a) {
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), a);
  }

  static Bytes Levels() {
    return _mm512_broadcast_i32x4(
        _mm_load_si128(reinterpret_cast<const __m128i*>(&kInt4LevelBytes)));
  }

  static Bytes LowLevels(Bytes both) {
    return _mm512_shuffle_epi8(Levels(), _mm512_and_si512(both, _mm512_set1_epi8(0x0f)));
  }

  static Bytes HighLevels(Bytes both) { return LowLevels(_mm512_srli_epi16(both, 4)); }

  static void StoreBf16(Float a, char* p) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded));
  }

  static float LargestMagnitude(Float low, Float high) {
    const __m512i sign = _mm512_set1_epi32(0x7fffffff);
    const __m512 a = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(low), sign));
    const __m512 b = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(high), sign));
    return _mm512_reduce_max_ps(_mm512_max_ps(a, b));
  }

  // Stores the 32 products with `inverse`, rounded to nearest even; returns their sum.
  static int32_t StoreCodes(Float low, Float high, float inverse, char* p) {
    const __m512 factor = _mm512_set1_ps(inverse);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, factor));
    const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(high, factor));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(b));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
  }
};

}  // namespace
}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_ZMM_H_
