#include "libs/model/numerics_id.h"

#include <string>

#include <spdlog/fmt/fmt.h>

namespace switchyard {

Dtype WireRowDtype(const ModelSpec& spec) {
  return spec.weight_dtype == Dtype::kBf16 ? Dtype::kBf16 : Dtype::kF32;
}

std::string NumericsId(const ModelSpec& spec) {
  // f32x16: the canonical order of libs/kernels/kernels.h, the same on every instruction set.
  return fmt::format("f32x16-v1/weights={}/rows={}/keys=64", NameOf(spec.weight_dtype),
                     NameOf(WireRowDtype(spec)));
}

}  // namespace switchyard
