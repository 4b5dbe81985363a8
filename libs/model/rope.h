#ifndef SWITCHYARD_LIBS_MODEL_ROPE_H_
#define SWITCHYARD_LIBS_MODEL_ROPE_H_

#include <cstdint>
#include <vector>

#include "libs/model/model_spec.h"

namespace switchyard {

// sin and cos to about 1e-15 for |x| up to 2^30, from IEEE operations only, so that they are the
// same on every processor and C library. Any thread.
struct SinCos {
  double sin = 0.0;
  double cos = 0.0;
};

SinCos SinCosOf(double x);

// One frequency per rotated pair: rope_theta^(-2i / rope_dim), with YaRN's blend of interpolated
// and original frequencies (arXiv 2309.00071 §3.2) where the spec has it.
std::vector<float> InverseFrequencies(const ModelSpec& spec);

// What YaRN multiplies cos and sin with; 1 without it.
float RopeAttentionFactor(const ModelSpec& spec);

// What attention scores are multiplied with: qk_dim^-1/2, times YaRN's squared mscale where
// mscale_all_dim is set.
float SoftmaxScale(const ModelSpec& spec);

// RopeTable rotates the rotary part of queries and keys (arXiv 2104.09864). The angle of position p
// and pair i is the f32 product p * frequency[i], as the published modelling code has it.
//
// One owner extends it; any thread rotates by a position below position_count().
class RopeTable {
 public:
  explicit RopeTable(const ModelSpec& spec);

  // Computes the rows of positions [0, position_count) that are not there yet. Grows in powers of
  // two.
  void Extend(uint32_t position_count);

  // x: [rope_dim] as projected (interleaved pairs or halves, by the spec); out: [rope_dim], first
  // members of all pairs, then second members. x and out must not overlap.
  void Rotate(uint32_t position, const float* x, float* out) const;

  uint32_t position_count() const { return position_count_; }

 private:
  const uint32_t pair_count_;
  const bool interleaved_;
  const float attention_factor_;
  const std::vector<float> frequencies_;
  std::vector<float> cos_sin_;  // [position][2][pair_count]: cosines, then sines.
  uint32_t position_count_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_ROPE_H_
