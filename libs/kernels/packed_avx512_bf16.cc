// Compiled for AVX-512 with VNNI, BF16 and VBMI; see packed_body.h for what must stay out.
#include "libs/kernels/internal/packed_body.h"
#include "libs/kernels/internal/packed_zmm.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {
namespace {

struct Avx512Bf16Lanes : ZmmLanes {
  using Pair = __m512bh;

  static constexpr int kManyPairPanels = 4;

  static constexpr int PairPanels(int rows) { return rows <= 2 ? 8 : 4; }

  static constexpr int Fp8Panels(int rows) { return rows <= 2 ? 4 : 2; }

  static Pair ToPair(Bytes a) { return reinterpret_cast<Pair>(a); }

  static Pair SetPair(const char* p) { return ToPair(SetQuad(p)); }

  static Float DotPair(Float sum, Pair x, Pair w) { return _mm512_dpbf16_ps(sum, w, x); }

  static Bytes Table(int part) {
    return _mm512_load_si512(reinterpret_cast<const char*>(&kFp8WideBytes) + part * 64);
  }

  // 64 codes, two k of 16 outputs, then the next two, as bf16.
  static void WidenFp8(const char* p, Bytes (&wide)[2]) {
    const Bytes codes = FirstHalvesLow(LoadBytes(p));
    const Bytes low = _mm512_permutex2var_epi8(Table(0), codes, Table(1));
    const Bytes high = _mm512_permutex2var_epi8(Table(2), codes, Table(3));
    const Bytes sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const Bytes signed_high = _mm512_ternarylogic_epi32(high, codes, sign, 0xf8);  // a | (b & c)
    wide[0] = _mm512_unpacklo_epi8(low, signed_high);
    wide[1] = _mm512_unpackhi_epi8(low, signed_high);
  }
};

}  // namespace

void PackedGemmAvx512Bf16(const PackedGemmArgs& args) { PackedBody<Avx512Bf16Lanes>::Gemm(args); }

}  // namespace switchyard::internal
