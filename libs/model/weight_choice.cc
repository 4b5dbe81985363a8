#include "libs/model/weight_choice.h"

#include "libs/base/status.h"

namespace switchyard {

std::string_view NameOf(WeightChoice choice) {
  switch (choice) {
    case WeightChoice::kAsStored:
      return "auto";
    case WeightChoice::kBf16:
      return "bf16";
    case WeightChoice::kInt8:
      return "int8";
    case WeightChoice::kInt4:
      return "int4";
  }
  return "unknown";
}

absl::StatusOr<WeightChoice> ParseWeightChoice(std::string_view name) {
  for (const WeightChoice choice :
       {WeightChoice::kAsStored, WeightChoice::kBf16, WeightChoice::kInt8, WeightChoice::kInt4}) {
    if (name == NameOf(choice)) {
      return choice;
    }
  }
  return InvalidArgument("weights \"{}\" is none of auto, bf16, int8, int4", name);
}

std::string_view NameOf(WeightRole role) {
  switch (role) {
    case WeightRole::kExpertIn:
      return "experts gate, up";
    case WeightRole::kExpertOut:
      return "experts down";
    case WeightRole::kShared:
      return "shared experts";
    case WeightRole::kDense:
      return "dense layers";
    case WeightRole::kAttention:
      return "attention";
    case WeightRole::kLatent:
      return "attention kv_b";
    case WeightRole::kHead:
      return "head";
    case WeightRole::kEmbedding:
      return "embedding";
    case WeightRole::kGate:
      return "gate";
    case WeightRole::kVector:
      return "norms and biases";
  }
  return "unknown";
}

WeightChoice Resolve(WeightChoice asked, std::optional<WeightFormat> quantization) {
  if (asked != WeightChoice::kAsStored) {
    return asked;
  }
  switch (quantization.value_or(WeightFormat::kF32)) {
    case WeightFormat::kBf16:
      return WeightChoice::kBf16;
    case WeightFormat::kInt8:
      return WeightChoice::kInt8;
    case WeightFormat::kInt4:
      return WeightChoice::kInt4;
    default:
      return asked;
  }
}

bool IsPlain(WeightFormat format) {
  return format == WeightFormat::kF32 || format == WeightFormat::kF16 ||
         format == WeightFormat::kBf16;
}

WeightFormat FormatOf(WeightChoice choice, WeightRole role, WeightFormat stored) {
  if (role == WeightRole::kGate || role == WeightRole::kVector) {
    return stored;
  }
  // Not multiplied in its own format, or not at all: plain values need no rounding to BF16.
  const bool looked_up = role == WeightRole::kEmbedding || role == WeightRole::kLatent;
  const bool whole = looked_up || role == WeightRole::kHead || role == WeightRole::kDense;
  switch (choice) {
    case WeightChoice::kBf16:
      return looked_up && IsPlain(stored) ? stored : WeightFormat::kBf16;
    case WeightChoice::kInt8:
      return WeightFormat::kInt8;
    case WeightChoice::kInt4:
      return whole ? WeightFormat::kInt8 : WeightFormat::kInt4;
    case WeightChoice::kAsStored:
      break;
  }
  return stored;
}

}  // namespace switchyard
