#include <cmath>
#include <cstddef>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "libs/dispatch/dispatcher.h"

namespace switchyard {
namespace {

// What makes one row of `out`.
struct RowTerms {
  const float* weights = nullptr;      // [top_k]
  const float* expert_rows = nullptr;  // [top_k][hidden_size]
  uint32_t top_k = 0;
  size_t hidden_size = 0;
  const float* shared = nullptr;  // [hidden_size], or null.
};

// Elements [first, hidden_size): one rounding per slot, then one for the shared row and one for the
// sum, so every form below gives the same bits.
void AddScalar(const RowTerms& terms, size_t first, float* out) {
  for (size_t i = first; i < terms.hidden_size; ++i) {
    float sum = 0.0F;
    for (uint32_t slot = 0; slot < terms.top_k; ++slot) {
      sum = std::fma(terms.weights[slot], terms.expert_rows[slot * terms.hidden_size + i], sum);
    }
    if (terms.shared != nullptr) {
      sum += terms.shared[i];
    }
    out[i] += sum;
  }
}

void AddRowScalar(const RowTerms& terms, float* out) { AddScalar(terms, 0, out); }

#if defined(__x86_64__)
// Each expert row is read in long stretches: the same few lines of all rows in turn, a power of two
// apart, defeat the processor's prefetching.
__attribute__((target("avx2,fma"))) void AddRowAvx2(const RowTerms& terms, float* out) {
  constexpr size_t kLanes = 8;
  constexpr size_t kBlock = 512;
  alignas(64) float sums[kBlock];
  const size_t whole = terms.hidden_size / kLanes * kLanes;
  for (size_t begin = 0; begin < whole; begin += kBlock) {
    const size_t count = whole - begin < kBlock ? whole - begin : kBlock;
    for (size_t i = 0; i < count; i += kLanes) {
      _mm256_store_ps(sums + i, _mm256_setzero_ps());
    }
    for (uint32_t slot = 0; slot < terms.top_k; ++slot) {
      const __m256 weight = _mm256_set1_ps(terms.weights[slot]);
      const float* row = terms.expert_rows + slot * terms.hidden_size + begin;
      for (size_t i = 0; i < count; i += kLanes) {
        const __m256 sum = _mm256_load_ps(sums + i);
        _mm256_store_ps(sums + i, _mm256_fmadd_ps(weight, _mm256_loadu_ps(row + i), sum));
      }
    }
    for (size_t i = 0; i < count; i += kLanes) {
      __m256 sum = _mm256_load_ps(sums + i);
      if (terms.shared != nullptr) {
        sum = _mm256_add_ps(sum, _mm256_loadu_ps(terms.shared + begin + i));
      }
      float* const target = out + begin + i;
      _mm256_storeu_ps(target, _mm256_add_ps(_mm256_loadu_ps(target), sum));
    }
  }
  AddScalar(terms, whole, out);
}
#endif

using AddFunction = void (*)(const RowTerms&, float*);

AddFunction BestAdd() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) {
    return AddRowAvx2;
  }
#endif
  return AddRowScalar;
}

}  // namespace

void Combine(const CombineArgs& args) {
  static const AddFunction add = BestAdd();
  for (size_t row = 0; row < args.row_count; ++row) {
    const size_t offset = row * args.hidden_size;
    add({.weights = args.weights + row * args.top_k,
         .expert_rows = args.expert_rows + offset * args.top_k,
         .top_k = args.top_k,
         .hidden_size = args.hidden_size,
         .shared = args.shared == nullptr ? nullptr : args.shared + offset},
        args.out + offset);
  }
}

}  // namespace switchyard
