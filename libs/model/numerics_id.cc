#include "libs/model/numerics_id.h"

#include <string>

#include <spdlog/fmt/fmt.h>

namespace switchyard {

Dtype WireRowDtype(const ModelSpec& spec, WeightChoice choice) {
  const bool plain = choice == WeightChoice::kAsStored && !spec.quantization.has_value() &&
                     spec.weight_dtype != Dtype::kBf16;
  return plain ? Dtype::kF32 : Dtype::kBf16;
}

std::string NumericsId(const ModelSpec& spec, WeightChoice choice) {
  const std::string_view stored =
      spec.quantization.has_value() ? NameOf(*spec.quantization) : NameOf(spec.weight_dtype);
  // v3: the orders of libs/kernels/{kernels,packed_matrix}.h, the same on every instruction set,
  // and the formats of weight_choice.h by role.
  return fmt::format("v3/stored={}/weights={}/rows={}/keys=64", stored,
                     NameOf(Resolve(choice, spec.quantization)),
                     NameOf(WireRowDtype(spec, choice)));
}

}  // namespace switchyard
