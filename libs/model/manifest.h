#ifndef SWITCHYARD_LIBS_MODEL_MANIFEST_H_
#define SWITCHYARD_LIBS_MODEL_MANIFEST_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/model/load_options.h"

namespace switchyard {

inline constexpr std::string_view kManifestFile = "switchyard.manifest.json";

struct ManifestFile {
  std::string name;
  uint64_t size = 0;
  std::string sha256;         // Hex, of the whole file.
  std::string header_sha256;  // Hex, of length word and header; empty but for safetensors.
};

// Manifest lists the files of a model directory with their hashes (docs/formats.md), so that
// processes can name the model without reading all of it. A value; any thread.
struct Manifest {
  std::string weights;              // Format of the weights: "as stored", "bf16", "int8", "int4".
  std::string source_digest;        // Of the checkpoint it was converted from; may be empty.
  std::vector<ManifestFile> files;  // In name order, no name twice.

  // nullopt when the directory has none.
  static absl::StatusOr<std::optional<Manifest>> Load(const std::string& model_dir);
  static absl::StatusOr<Manifest> Parse(std::string_view json);

  // Hashes every regular file of the directory whose name does not begin with a dot, but a manifest
  // and those in `known`.
  static absl::StatusOr<Manifest> Make(const std::string& model_dir, std::string weights,
                                       std::string source_digest, const LoadObserver& observer,
                                       std::span<const ManifestFile> known = {});

  std::string Json() const;

  // Hex SHA-256 over config.json and the safetensors files as listed.
  absl::StatusOr<std::string> Digest() const;

  const ManifestFile* Find(std::string_view name) const;

  // Reads every listed file. DataLoss names the first whose size or hash is another.
  absl::Status Verify(const std::string& model_dir, const LoadObserver& observer) const;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_MANIFEST_H_
