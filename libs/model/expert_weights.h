#ifndef SWITCHYARD_LIBS_MODEL_EXPERT_WEIGHTS_H_
#define SWITCHYARD_LIBS_MODEL_EXPERT_WEIGHTS_H_

#include <memory>

#include "libs/kernels/packed_matrix.h"

namespace switchyard {

// Weights of one SwiGLU feed-forward network: down( silu(gate x) * (up x) ). Used for routed
// experts, the shared expert and dense layers.
//
// gate and up have one format. Any thread; the views live while `owner` does (packed copies,
// mostly).
struct ExpertWeights {
  PackedMatrix gate;  // [intermediate, hidden]
  PackedMatrix up;    // [intermediate, hidden]
  PackedMatrix down;  // [hidden, intermediate]
  std::shared_ptr<const void> owner;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_EXPERT_WEIGHTS_H_
