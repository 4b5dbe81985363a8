#ifndef SWITCHYARD_LIBS_MODEL_NUMERICS_ID_H_
#define SWITCHYARD_LIBS_MODEL_NUMERICS_ID_H_

#include <string>

#include "libs/model/model_spec.h"
#include "libs/model/weight_choice.h"
#include "libs/tensor/dtype.h"

namespace switchyard {

// Dtype of rows between routers and shards: F32 for weights that are stored
// and kept in F32 or F16, else BF16.
Dtype WireRowDtype(const ModelSpec& spec, WeightChoice choice);

// Names everything that decides bits: order of arithmetic, weight and wire formats, key block size.
// Only processes of one id share a sequence. Any thread: pure.
std::string NumericsId(const ModelSpec& spec, WeightChoice choice);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_NUMERICS_ID_H_
