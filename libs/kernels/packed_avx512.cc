// Compiled for AVX-512 with VNNI but without BF16; see packed_body.h for what must stay out.
#include "libs/kernels/internal/int4_fit.h"
#include "libs/kernels/internal/packed_body.h"
#include "libs/kernels/internal/packed_zmm.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {
namespace {

struct Avx512Lanes : ZmmLanes {
  // Two k of bf16 as f32.
  struct Pair {
    Float even;
    Float odd;
  };

  static constexpr int kManyPairPanels = 2;

  static constexpr int PairPanels(int rows) { return rows <= 2 ? 4 : 2; }

  static constexpr int Fp8Panels(int rows) { return rows <= 2 ? 2 : 1; }

  static Pair ToPair(Bytes a) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(a, upper))};
  }

  static Pair SetPair(const char* p) { return ToPair(SetQuad(p)); }

  static Float DotPair(Float sum, const Pair& x, const Pair& w) {
    return Fma(x.even, w.even, Fma(x.odd, w.odd, sum));
  }

  static Bytes Table8(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }

  // 64 codes, two k of 16 outputs, then the next two, as bf16.
  static void WidenFp8(const char* p, Bytes (&wide)[2]) {
    const Bytes codes = FirstHalvesLow(LoadBytes(p));
    const Bytes magnitude = _mm512_and_si512(codes, _mm512_set1_epi8(0x7f));
    const Bytes shifted = _mm512_slli_epi16(codes, 4);
    const Bytes exponent = _mm512_and_si512(_mm512_srli_epi16(magnitude, 4), _mm512_set1_epi8(7));
    Bytes low = _mm512_and_si512(shifted, _mm512_set1_epi8(static_cast<char>(0xf0)));
    Bytes high = _mm512_add_epi8(exponent, _mm512_set1_epi8(60));
    const auto* table = reinterpret_cast<const uint8_t*>(&kFp8WideBytes);
    const __mmask64 tiny = _mm512_testn_epi8_mask(codes, _mm512_set1_epi8(0x78));
    low = _mm512_mask_shuffle_epi8(low, tiny, Table8(table), magnitude);
    high = _mm512_mask_shuffle_epi8(high, tiny, Table8(table + 128), magnitude);
    const __mmask64 nan = _mm512_cmpeq_epi8_mask(magnitude, _mm512_set1_epi8(0x7f));
    low = _mm512_mask_mov_epi8(low, nan, _mm512_set1_epi8(static_cast<char>(0xc0)));
    high = _mm512_mask_mov_epi8(high, nan, _mm512_set1_epi8(0x7f));
    const Bytes sign = _mm512_set1_epi8(static_cast<char>(0x80));
    high = _mm512_ternarylogic_epi32(high, codes, sign, 0xf8);  // a | (b & c)
    wide[0] = _mm512_unpacklo_epi8(low, high);
    wide[1] = _mm512_unpackhi_epi8(low, high);
  }
};

}  // namespace

void PackedGemmAvx512(const PackedGemmArgs& args) { PackedBody<Avx512Lanes>::Gemm(args); }

void PrepareRowAvx512(ActivationForm form, const float* x, uint32_t columns, std::byte* out) {
  PackedBody<Avx512Lanes>::PrepareRow(form, x, columns, out);
}

const Int4Fitter kAvx512Int4Fitter = {FitScales, FitCodes};

}  // namespace switchyard::internal
