// Compiled for AVX2, FMA and F16C; see packed_body.h for what must stay out of this file.
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "libs/kernels/internal/int4_fit.h"
#include "libs/kernels/internal/packed_body.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {
namespace {

// Sixteen lanes in two registers. A value type without state, any thread.
struct Avx2Lanes {
  struct Float {
    __m256 low;
    __m256 high;
  };

  struct Bytes {
    __m256i low;
    __m256i high;
  };

  using Int = Bytes;

  // Signed codes and their magnitudes.
  struct Quad {
    Bytes code;
    Bytes magnitude;
  };

  // Two k of bf16 as f32.
  struct Pair {
    Float even;
    Float odd;
  };

  static constexpr int kRows = 3;
  static constexpr int kManyPairPanels = 1;
  static constexpr int kManyIntPanels = 1;

  static constexpr int PairPanels(int rows) { return rows == 1 ? 2 : 1; }

  static constexpr int Fp8Panels(int) { return 1; }

  static constexpr int IntPanels(int rows) { return rows == 1 ? 2 : 1; }

  // All ones in the lanes [0, count) of eight; any `count`.
  static __m256i FirstLanes(size_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
  }

  static __m256i FirstLanesHigh(size_t count) { return FirstLanes(count < 8 ? 0 : count - 8); }

  static Float Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }

  static Float Set1(const char* p) {
    float value;
    __builtin_memcpy(&value, p, sizeof(value));
    return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
  }

  static Float Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }

  static Float LoadPart(const float* p, size_t count) {
    return {_mm256_maskload_ps(p, FirstLanes(count)),
            _mm256_maskload_ps(p + 8, FirstLanesHigh(count))};
  }

  static void Store(Float a, float* p) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
  }

  static void StorePart(Float a, float* p, size_t count) {
    _mm256_maskstore_ps(p, FirstLanes(count), a.low);
    _mm256_maskstore_ps(p + 8, FirstLanesHigh(count), a.high);
  }

  static Float Add(Float a, Float b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }

  static Float Mul(Float a, Float b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }

  static Float Fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }

  static Float ToFloat(Int a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }

  static Float LoadF16(const char* p) {
    const auto* source = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(source)), _mm256_cvtph_ps(_mm_loadu_si128(source + 1))};
  }

  static Int SetQuad(const char* p) {
    int bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    return {_mm256_set1_epi32(bits), _mm256_set1_epi32(bits)};
  }

  // Codes are signed here, so sums start at zero.
  static Int StartOf(const char*) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

  static Bytes LoadBytes(const char* p) {
    const auto* source = reinterpret_cast<const __m256i*>(p);
    return {_mm256_load_si256(source), _mm256_load_si256(source + 1)};
  }

  static void StoreBytes(Bytes a, char* p) {
    auto* target = reinterpret_cast<__m256i*>(p);
    _mm256_store_si256(target, a.low);
    _mm256_store_si256(target + 1, a.high);
  }

  static Quad ToQuad(Bytes a) {
    const __m256i offset = _mm256_set1_epi8(static_cast<char>(0x80));
    const Bytes code = {_mm256_xor_si256(a.low, offset), _mm256_xor_si256(a.high, offset)};
    return {code, {_mm256_abs_epi8(code.low), _mm256_abs_epi8(code.high)}};
  }

  // Exact: two products of magnitudes up to 128 x 127 fit in 16 bits.
  static __m256i DotHalf(__m256i sum, __m256i x, __m256i code, __m256i magnitude) {
    const __m256i twos = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, code));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(twos, _mm256_set1_epi16(1)));
  }

  static Int DotQuad(Int sum, Int x, const Quad& w) {
    return {DotHalf(sum.low, x.low, w.code.low, w.magnitude.low),
            DotHalf(sum.high, x.high, w.code.high, w.magnitude.high)};
  }

  static __m256i LevelsOf(__m256i both) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(&kInt4LevelBytes)));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(both, _mm256_set1_epi8(0x0f)));
  }

  static Bytes LowLevels(Bytes both) { return {LevelsOf(both.low), LevelsOf(both.high)}; }

  static Bytes HighLevels(Bytes both) {
    return {LevelsOf(_mm256_srli_epi16(both.low, 4)), LevelsOf(_mm256_srli_epi16(both.high, 4))};
  }

  static Pair ToPair(Bytes a) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(a.low, 16)),
             _mm256_castsi256_ps(_mm256_slli_epi32(a.high, 16))},
            {_mm256_castsi256_ps(_mm256_and_si256(a.low, upper)),
             _mm256_castsi256_ps(_mm256_and_si256(a.high, upper))}};
  }

  static Pair SetPair(const char* p) { return ToPair(SetQuad(p)); }

  static Float DotPair(Float sum, const Pair& x, const Pair& w) {
    return Fma(x.even, w.even, Fma(x.odd, w.odd, sum));
  }

  static __m256i Table8(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }

  // 32 codes, two k of 16 outputs, as bf16.
  static Bytes WidenHalf(__m256i bytes) {
    // Unpacking takes the lower eight of each 16 first.
    const __m256i codes = _mm256_permute4x64_epi64(bytes, 0xd8);
    const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi8(0x7f));
    const __m256i exponent = _mm256_and_si256(_mm256_srli_epi16(magnitude, 4), _mm256_set1_epi8(7));
    const __m256i upper = _mm256_set1_epi8(static_cast<char>(0xf0));
    __m256i low = _mm256_and_si256(_mm256_slli_epi16(codes, 4), upper);
    __m256i high = _mm256_add_epi8(exponent, _mm256_set1_epi8(60));
    const auto* table = reinterpret_cast<const uint8_t*>(&kFp8WideBytes);
    const __m256i tiny = _mm256_cmpgt_epi8(_mm256_set1_epi8(8), magnitude);
    low = _mm256_blendv_epi8(low, _mm256_shuffle_epi8(Table8(table), magnitude), tiny);
    high = _mm256_blendv_epi8(high, _mm256_shuffle_epi8(Table8(table + 128), magnitude), tiny);
    const __m256i nan = _mm256_cmpeq_epi8(magnitude, _mm256_set1_epi8(0x7f));
    low = _mm256_blendv_epi8(low, _mm256_set1_epi8(static_cast<char>(0xc0)), nan);
    high = _mm256_blendv_epi8(high, _mm256_set1_epi8(0x7f), nan);
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
    high = _mm256_or_si256(high, _mm256_and_si256(codes, sign));
    return {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
  }

  static void WidenFp8(const char* p, Bytes (&wide)[2]) {
    const Bytes codes = LoadBytes(p);
    wide[0] = WidenHalf(codes.low);
    wide[1] = WidenHalf(codes.high);
  }

  static __m256i RoundBf16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  }

  static void StoreBf16(Float a, char* p) {
    const __m256i packed = _mm256_packus_epi32(RoundBf16(a.low), RoundBf16(a.high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }

  static __m256 Magnitude(__m256 a) {
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
  }

  static float LargestMagnitude(Float low, Float high) {
    const __m256 eight = _mm256_max_ps(_mm256_max_ps(Magnitude(low.low), Magnitude(low.high)),
                                       _mm256_max_ps(Magnitude(high.low), Magnitude(high.high)));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  static Int Codes(Float a, __m256 factor) {
    return {_mm256_cvtps_epi32(_mm256_mul_ps(a.low, factor)),
            _mm256_cvtps_epi32(_mm256_mul_ps(a.high, factor))};
  }

  // Stores the 32 products with `inverse`, rounded to nearest even; returns their sum.
  static int32_t StoreCodes(Float low, Float high, float inverse, char* p) {
    const __m256 factor = _mm256_set1_ps(inverse);
    const Int a = Codes(low, factor);
    const Int b = Codes(high, factor);
    // Each pack works on 16-byte halves, so groups of four come out as 0 2 4 6 1 3 5 7.
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(a.low, a.high), _mm256_packs_epi32(b.low, b.high));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(bytes, order));
    const __m256i sum =
        _mm256_add_epi32(_mm256_add_epi32(a.low, a.high), _mm256_add_epi32(b.low, b.high));
    const __m128i four =
        _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }
};

}  // namespace

void PackedGemmAvx2(const PackedGemmArgs& args) { PackedBody<Avx2Lanes>::Gemm(args); }

void PrepareRowAvx2(ActivationForm form, const float* x, uint32_t columns, std::byte* out) {
  PackedBody<Avx2Lanes>::PrepareRow(form, x, columns, out);
}

const Int4Fitter kAvx2Int4Fitter = {FitScales, FitCodes};

}  // namespace switchyard::internal
