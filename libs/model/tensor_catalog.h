#ifndef SWITCHYARD_LIBS_MODEL_TENSOR_CATALOG_H_
#define SWITCHYARD_LIBS_MODEL_TENSOR_CATALOG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "libs/model/safetensors.h"

namespace switchyard {

// TensorCatalog says which tensors a model directory has and where their bytes are: those of
// model.safetensors, or of the files of model.safetensors.index.json (the former wins if both are
// there). Opening reads headers and, for the digest, a bounded part of the content.
//
// Any thread; immutable. The files stay open while it lives.
class TensorCatalog {
 public:
  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };

  // Refuses, naming the file, what contradicts the index or the manifest.
  static absl::StatusOr<TensorCatalog> Open(const std::string& model_dir);

  // Null file when there is no such tensor.
  Place Find(std::string_view name) const;

  const std::string& dir() const { return dir_; }

  const std::vector<SafetensorsFile>& files() const { return files_; }

  // Hex SHA-256 that names the model; docs/formats.md says over what.
  const std::string& digest() const { return digest_; }

  uint64_t total_bytes() const;

 private:
  TensorCatalog() = default;

  absl::Status Join();
  absl::Status ComputeDigest();

  std::string dir_;
  std::vector<SafetensorsFile> files_;  // In file name order.
  absl::flat_hash_map<std::string, Place> places_;
  std::string digest_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_TENSOR_CATALOG_H_
