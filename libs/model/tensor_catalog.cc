#include "libs/model/tensor_catalog.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <simdjson.h>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/internal/printable.h"
#include "libs/model/internal/sha256.h"
#include "libs/model/manifest.h"

namespace switchyard {
namespace {

using internal::Printable;
using internal::Sha256;
namespace dom = simdjson::dom;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kConfigFile = "config.json";
constexpr size_t kIndexBytesMax = 256U << 20;
constexpr size_t kConfigBytesMax = 16U << 20;
constexpr size_t kFilesMax = 512;  // They stay open, and a process has 1024 descriptors by default.

// What the digest covers of files without a manifest: all of small ones, samples of others.
constexpr uint64_t kWholeBytesMax = 64U << 20;
constexpr uint64_t kSampleBytes = 64U << 10;
constexpr uint64_t kSampleCount = 16;

// Shard names come from a file: only a plain name inside the directory is followed.
bool IsPlainSafetensorsName(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.size() < 256 && name.ends_with(kSuffix) &&
         name.front() != '.' && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

// Tensor name -> file name, as model.safetensors.index.json says.
using WeightMap = absl::flat_hash_map<std::string, std::string>;

absl::StatusOr<WeightMap> ParseWeightMap(const std::string& json) {
  const simdjson::padded_string padded(json);
  dom::parser parser;
  dom::object map;
  if (const auto error = parser.parse(padded)["weight_map"].get(map); error != simdjson::SUCCESS) {
    return InvalidArgument("no JSON object with a weight_map object: {}",
                           simdjson::error_message(error));
  }
  WeightMap result;
  for (const dom::key_value_pair field : map) {
    std::string_view file;
    if (field.value.get(file) != simdjson::SUCCESS || !IsPlainSafetensorsName(file)) {
      return InvalidArgument("weight_map gives no plain .safetensors file name for tensor {}",
                             Printable(field.key));
    }
    if (!result.emplace(std::string(field.key), std::string(file)).second) {
      return InvalidArgument("weight_map names tensor {} twice", Printable(field.key));
    }
  }
  if (result.empty()) {
    return InvalidArgument("weight_map is empty");
  }
  return result;
}

// Empty for a directory with a single file.
absl::StatusOr<WeightMap> ReadWeightMap(const std::string& model_dir) {
  std::error_code ignored;
  if (std::filesystem::exists(fmt::format("{}/{}", model_dir, kSingleFile), ignored)) {
    return WeightMap();
  }
  const std::string path = fmt::format("{}/{}", model_dir, kIndexFile);
  auto json = ReadRegularFile(path, kIndexBytesMax);
  if (!json.ok()) {
    return Annotate(json.status(), fmt::format("{}: neither {} nor a readable {}", model_dir,
                                               kSingleFile, kIndexFile));
  }
  auto weight_map = ParseWeightMap(*json);
  if (!weight_map.ok()) {
    return Annotate(weight_map.status(), path);
  }
  return weight_map;
}

std::string NameOf(const SafetensorsFile& file) {
  return std::filesystem::path(file.path()).filename().string();
}

// The content of a small file, or header and evenly spaced samples of the data, the first and the
// last bytes among them.
absl::Status AddContent(const SafetensorsFile& file, Sha256& hash) {
  const uint64_t data_begin = file.header().size();
  const uint64_t data_bytes = file.file().size() - data_begin;
  hash.Add(file.header());
  const bool whole = file.file().size() <= kWholeBytesMax;
  const uint64_t piece_bytes =
      whole ? std::min(data_bytes, kSampleCount * kSampleBytes) : kSampleBytes;
  std::vector<std::byte> piece(piece_bytes);
  if (whole) {
    for (uint64_t offset = 0; offset < data_bytes; offset += piece.size()) {
      piece.resize(std::min(piece_bytes, data_bytes - offset));
      SY_RETURN_IF_ERROR(file.file().ReadAt(data_begin + offset, piece));
      hash.Add(piece);
    }
    return absl::OkStatus();
  }
  for (uint64_t i = 0; i < kSampleCount; ++i) {
    const uint64_t offset = (data_bytes - kSampleBytes) / (kSampleCount - 1) * i;
    const uint64_t last = i + 1 == kSampleCount ? data_bytes - kSampleBytes : offset;
    SY_RETURN_IF_ERROR(file.file().ReadAt(data_begin + last, piece));
    hash.Add(piece);
  }
  return absl::OkStatus();
}

absl::Status CheckHash(const std::string& path, std::string_view what, Sha256& hash,
                       const std::string& expected) {
  SY_ASSIGN_OR_RETURN(const std::string actual, hash.Finish());
  if (actual != expected) {
    return DataLoss("{}: SHA-256 of {} is {}, the manifest says {}", path, what, actual, expected);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TensorCatalog> TensorCatalog::Open(const std::string& model_dir) {
  SY_ASSIGN_OR_RETURN(const WeightMap weight_map, ReadWeightMap(model_dir));
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) {
    names.insert(file);
  }
  if (names.empty()) {
    names.insert(std::string(kSingleFile));
  }
  if (names.size() > kFilesMax) {
    return InvalidArgument("{}: {} files > {}", model_dir, names.size(), kFilesMax);
  }
  TensorCatalog catalog;
  catalog.dir_ = model_dir;
  catalog.files_.reserve(names.size());
  for (const std::string& name : names) {
    SY_ASSIGN_OR_RETURN(SafetensorsFile file,
                        SafetensorsFile::Open(fmt::format("{}/{}", model_dir, name)));
    catalog.files_.push_back(std::move(file));
  }
  SY_RETURN_IF_ERROR(catalog.Join());
  for (const auto& [tensor, file] : weight_map) {
    const Place place = catalog.Find(tensor);
    if (place.file == nullptr || !place.file->path().ends_with("/" + file)) {
      return InvalidArgument("{}/{}: tensor {} is not in {}", model_dir, kIndexFile,
                             Printable(tensor), file);
    }
  }
  SY_RETURN_IF_ERROR(catalog.ComputeDigest());
  return catalog;
}

TensorCatalog::Place TensorCatalog::Find(std::string_view name) const {
  const auto found = places_.find(absl::string_view(name.data(), name.size()));
  return found == places_.end() ? Place() : found->second;
}

uint64_t TensorCatalog::total_bytes() const {
  uint64_t total = 0;
  for (const SafetensorsFile& file : files_) {
    total += file.file().size();
  }
  return total;
}

// Every name is in one file only.
absl::Status TensorCatalog::Join() {
  for (const SafetensorsFile& file : files_) {
    for (const auto& [name, entry] : file.index()) {
      const auto [place, fresh] = places_.emplace(name, Place{.file = &file, .entry = &entry});
      if (!fresh) {
        return InvalidArgument("tensor {} is in {} and in {}", Printable(name),
                               place->second.file->path(), file.path());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status TensorCatalog::ComputeDigest() {
  SY_ASSIGN_OR_RETURN(const std::optional<Manifest> manifest, Manifest::Load(dir_));
  const std::string config_path = fmt::format("{}/{}", dir_, kConfigFile);
  SY_ASSIGN_OR_RETURN(const std::string config, ReadRegularFile(config_path, kConfigBytesMax));
  if (!manifest.has_value()) {
    Sha256 hash;
    hash.AddFrame(kConfigFile, config.size());
    hash.Add(config);
    for (const SafetensorsFile& file : files_) {
      hash.AddFrame(NameOf(file), file.file().size());
      SY_RETURN_IF_ERROR(AddContent(file, hash));
    }
    SY_ASSIGN_OR_RETURN(digest_, hash.Finish());
    return absl::OkStatus();
  }
  const ManifestFile* const listed_config = manifest->Find(kConfigFile);
  if (listed_config == nullptr) {
    return InvalidArgument("{}/{}: does not list {}", dir_, kManifestFile, kConfigFile);
  }
  Sha256 config_hash;
  config_hash.Add(config);
  SY_RETURN_IF_ERROR(CheckHash(config_path, "the file", config_hash, listed_config->sha256));
  for (const SafetensorsFile& file : files_) {
    const ManifestFile* const listed = manifest->Find(NameOf(file));
    if (listed == nullptr) {
      return InvalidArgument("{}/{}: does not list {}", dir_, kManifestFile, NameOf(file));
    }
    if (listed->size != file.file().size()) {
      return DataLoss("{}: {} bytes, the manifest says {}", file.path(), file.file().size(),
                      listed->size);
    }
    Sha256 header;
    header.Add(file.header());
    SY_RETURN_IF_ERROR(CheckHash(file.path(), "the header", header, listed->header_sha256));
  }
  SY_ASSIGN_OR_RETURN(digest_, manifest->Digest());
  return absl::OkStatus();
}

}  // namespace switchyard
