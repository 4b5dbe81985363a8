#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_EXP_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_EXP_H_

namespace switchyard::internal {

// exp(x) for every lane of V: n = round(x / ln 2), r = x - n ln 2 in two steps, a polynomial of
// degree 7 in r (coefficients of Cephes' expf), times 2^n. Every step is one rounding of IEEE
// arithmetic, so all instruction sets agree bit for bit. NaN stays NaN.
//
// Templated on V, which is local to one translation unit, so that code made with one file's
// instruction set cannot be linked into another's.
template <typename V>
V ExpOf(V x) {
  constexpr float kLowest = -87.3F;
  constexpr float kHighest = 88.3F;
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kRoundingShift = 12582912.0F;  // 1.5 * 2^23: the sum's low bits are the integer.
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;

  const V capped = V::Min(V::Set1(kHighest), x);
  const V shifted = V::Fma(capped, V::Set1(kLog2E), V::Set1(kRoundingShift));
  const V n = V::Sub(shifted, V::Set1(kRoundingShift));
  V r = V::Fma(n, V::Set1(-kLn2High), capped);
  r = V::Fma(n, V::Set1(-kLn2Low), r);
  V p = V::Set1(1.9875691500e-4F);
  p = V::Fma(p, r, V::Set1(1.3981999507e-3F));
  p = V::Fma(p, r, V::Set1(8.3334519073e-3F));
  p = V::Fma(p, r, V::Set1(4.1665795894e-2F));
  p = V::Fma(p, r, V::Set1(1.6666665459e-1F));
  p = V::Fma(p, r, V::Set1(5.0000001201e-1F));
  p = V::Add(V::Fma(p, V::Mul(r, r), r), V::Set1(1.0F));
  return V::ZeroIfLess(x, V::Set1(kLowest), V::Mul(p, V::Pow2OfLowBits(shifted)));
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_EXP_H_
