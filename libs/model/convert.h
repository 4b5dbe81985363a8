#ifndef SWITCHYARD_LIBS_MODEL_CONVERT_H_
#define SWITCHYARD_LIBS_MODEL_CONVERT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

#include "libs/model/checkpoint.h"
#include "libs/model/load_options.h"
#include "libs/model/weight_choice.h"

namespace switchyard {

struct ConvertOptions {
  WeightChoice weights = WeightChoice::kInt8;  // Not kAsStored.
  uint32_t threads = 1;                        // That convert.
  uint64_t file_bytes_max = 4'000'000'000;     // A file is closed before it would grow beyond that.
  bool replace = false;                        // What is at the destination, if it is a model.
  LoadObserver observer = nullptr;
};

// Writes a directory that loads with WeightChoice::kAsStored to the same bits as `from` does with
// options.weights: safetensors files with index, config.json, the tokenizer's and other small files
// as they are, and a manifest (docs/formats.md). Memory stays bounded by one tensor's scales and a
// few MiB per thread. `to` appears when all of it is written; until then there is only
// "<to>.partial".
//
// AlreadyExists when `to` is there and may not be replaced.
absl::Status ConvertCheckpoint(const Checkpoint& from, const std::string& to,
                               const ConvertOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_CONVERT_H_
