#ifndef SWITCHYARD_LIBS_BASE_RNG_H_
#define SWITCHYARD_LIBS_BASE_RNG_H_

#include <cstdint>

namespace switchyard {

// A bijective 64-bit mix (the finaliser of SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// CounterRandom is a pure function of its arguments: the same (seed, stream, counter) gives the
// same 64 bits on any machine, which is what lets a migrated stream draw the same numbers.
constexpr uint64_t CounterRandom(uint64_t seed, uint64_t stream, uint64_t counter) {
  return Mix64(Mix64(Mix64(seed) ^ stream) ^ counter);
}

// Uniform in [0, 1) with 24 bits, exactly representable as float.
constexpr float ToUnitFloat(uint64_t bits) {
  return static_cast<float>(bits >> 40) * (1.0F / 16777216.0F);
}

// Rng is a seeded sequence over CounterRandom. One owner.
class Rng {
 public:
  explicit constexpr Rng(uint64_t seed) : seed_(seed) {}

  constexpr uint64_t Next() { return CounterRandom(seed_, 0, counter_++); }

  // Uniform in [0, bound); bound > 0. The modulo bias is below 2^-32 for bounds below 2^32.
  constexpr uint64_t Below(uint64_t bound) { return Next() % bound; }

  // Uniform in [0, 1).
  constexpr float Unit() { return ToUnitFloat(Next()); }

  constexpr bool Chance(float probability) { return Unit() < probability; }

 private:
  uint64_t seed_;
  uint64_t counter_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_RNG_H_
