#include "libs/model/manifest.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <utility>

#include <simdjson.h>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/internal/list_dir.h"
#include "libs/model/internal/printable.h"
#include "libs/model/internal/sha256.h"
#include "libs/model/safetensors.h"

namespace switchyard {
namespace {

using internal::Printable;
using internal::Sha256;
namespace dom = simdjson::dom;

constexpr size_t kManifestBytesMax = 16U << 20;
constexpr size_t kFilesMax = 8192;
constexpr size_t kPieceBytes = 4U << 20;
constexpr uint64_t kVersion = 1;
constexpr std::string_view kSafetensorsSuffix = ".safetensors";

bool IsHash(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() < 256 && name.front() != '.' &&
         name.find_first_of(std::string_view("/\0\"\\", 4)) == std::string_view::npos &&
         Printable(name) == name;
}

absl::StatusOr<std::string> Text(const dom::element& object, std::string_view field) {
  std::string_view text;
  if (object[field].get(text) != simdjson::SUCCESS) {
    return InvalidArgument("{} is missing or not a string", field);
  }
  return std::string(text);
}

absl::StatusOr<ManifestFile> ParseFile(const dom::element& element) {
  ManifestFile file;
  SY_ASSIGN_OR_RETURN(file.name, Text(element, "name"));
  if (!IsPlainName(file.name)) {
    return InvalidArgument("'{}' is not a plain file name", Printable(file.name));
  }
  if (element["size"].get(file.size) != simdjson::SUCCESS) {
    return InvalidArgument("size of {} is missing or not a number", file.name);
  }
  SY_ASSIGN_OR_RETURN(file.sha256, Text(element, "sha256"));
  const bool has_header = file.name.ends_with(kSafetensorsSuffix);
  if (has_header) {
    SY_ASSIGN_OR_RETURN(file.header_sha256, Text(element, "header_sha256"));
  }
  if (!IsHash(file.sha256) || (has_header && !IsHash(file.header_sha256))) {
    return InvalidArgument("{} has a hash that is not 64 hex digits", file.name);
  }
  return file;
}

// Hashes a whole file; `progress` is told as it goes.
absl::StatusOr<ManifestFile> HashFile(const std::string& dir, const std::string& name,
                                      LoadProgress& progress, const LoadObserver& observer) {
  SY_ASSIGN_OR_RETURN(const InputFile file, InputFile::Open(dir + "/" + name));
  Sha256 hash;
  std::vector<std::byte> piece;
  for (uint64_t offset = 0; offset < file.size(); offset += piece.size()) {
    piece.resize(std::min<uint64_t>(kPieceBytes, file.size() - offset));
    SY_RETURN_IF_ERROR(file.ReadAt(offset, piece));
    hash.Add(piece);
    progress.bytes_done += piece.size();
    if (observer != nullptr) {
      observer(progress);
    }
  }
  SY_RETURN_IF_ERROR(file.CheckUnchanged());
  ManifestFile result{.name = name, .size = file.size()};
  SY_ASSIGN_OR_RETURN(result.sha256, hash.Finish());
  if (name.ends_with(kSafetensorsSuffix)) {
    SY_ASSIGN_OR_RETURN(const SafetensorsFile tensors, SafetensorsFile::Open(file.path()));
    Sha256 header;
    header.Add(tensors.header());
    SY_ASSIGN_OR_RETURN(result.header_sha256, header.Finish());
  }
  return result;
}

}  // namespace

absl::StatusOr<std::optional<Manifest>> Manifest::Load(const std::string& model_dir) {
  const std::string path = fmt::format("{}/{}", model_dir, kManifestFile);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return std::optional<Manifest>();
  }
  SY_ASSIGN_OR_RETURN(const std::string json, ReadRegularFile(path, kManifestBytesMax));
  auto manifest = Parse(json);
  if (!manifest.ok()) {
    return Annotate(manifest.status(), path);
  }
  return std::optional<Manifest>(*std::move(manifest));
}

absl::StatusOr<Manifest> Manifest::Parse(std::string_view json) {
  const simdjson::padded_string padded(json);
  dom::parser parser;
  dom::element root;
  if (const auto error = parser.parse(padded).get(root); error != simdjson::SUCCESS) {
    return InvalidArgument("not a JSON object: {}", simdjson::error_message(error));
  }
  uint64_t version = 0;
  if (root["version"].get(version) != simdjson::SUCCESS || version != kVersion) {
    return InvalidArgument("version is not {}", kVersion);
  }
  Manifest manifest;
  SY_ASSIGN_OR_RETURN(manifest.weights, Text(root, "weights"));
  SY_ASSIGN_OR_RETURN(manifest.source_digest, Text(root, "source_digest"));
  dom::array files;
  if (root["files"].get(files) != simdjson::SUCCESS) {
    return InvalidArgument("files is missing or not an array");
  }
  for (const dom::element each : files) {
    if (manifest.files.size() == kFilesMax) {
      return InvalidArgument("more than {} files", kFilesMax);
    }
    SY_ASSIGN_OR_RETURN(ManifestFile file, ParseFile(each));
    if (!manifest.files.empty() && manifest.files.back().name >= file.name) {
      return InvalidArgument("{} is not in name order or given twice", file.name);
    }
    manifest.files.push_back(std::move(file));
  }
  return manifest;
}

absl::StatusOr<Manifest> Manifest::Make(const std::string& model_dir, std::string weights,
                                        std::string source_digest, const LoadObserver& observer,
                                        std::span<const ManifestFile> known) {
  std::vector<std::string> names;
  const auto is_known = [known](const std::string& name) {
    return std::any_of(known.begin(), known.end(),
                       [&name](const ManifestFile& file) { return file.name == name; });
  };
  LoadProgress progress;
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> present, internal::ListDir(model_dir));
  for (const std::string& name : present) {
    const std::string path = fmt::format("{}/{}", model_dir, name);
    std::error_code error;
    const bool left_out = name == kManifestFile || !IsPlainName(name) || is_known(name);
    if (!left_out && std::filesystem::is_regular_file(path, error)) {
      names.push_back(name);
      const uint64_t size = std::filesystem::file_size(path, error);
      progress.bytes_total += error ? 0 : size;  // Opening it will say.
    }
  }
  Manifest manifest{.weights = std::move(weights),
                    .source_digest = std::move(source_digest),
                    .files = {known.begin(), known.end()}};
  for (const std::string& name : names) {
    SY_ASSIGN_OR_RETURN(ManifestFile file, HashFile(model_dir, name, progress, observer));
    manifest.files.push_back(std::move(file));
  }
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.name < b.name; });
  return manifest;
}

std::string Manifest::Json() const {
  std::string json = fmt::format(
      "{{\n  \"version\": {},\n  \"weights\": \"{}\",\n  \"source_digest\": \"{}\",\n"
      "  \"files\": [",
      kVersion, weights, source_digest);
  for (const ManifestFile& file : files) {
    json += fmt::format("{}\n    {{\"name\": \"{}\", \"size\": {}, \"sha256\": \"{}\"",
                        &file == files.data() ? "" : ",", file.name, file.size, file.sha256);
    if (!file.header_sha256.empty()) {
      json += fmt::format(", \"header_sha256\": \"{}\"", file.header_sha256);
    }
    json += "}";
  }
  return json + "\n  ]\n}\n";
}

absl::StatusOr<std::string> Manifest::Digest() const {
  Sha256 hash;
  for (const ManifestFile& file : files) {
    if (file.name == "config.json" || file.name.ends_with(kSafetensorsSuffix)) {
      hash.AddFrame(file.name, file.size);
      hash.Add(file.sha256);
    }
  }
  return hash.Finish();
}

const ManifestFile* Manifest::Find(std::string_view name) const {
  const auto found = std::find_if(files.begin(), files.end(),
                                  [name](const ManifestFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

absl::Status Manifest::Verify(const std::string& model_dir, const LoadObserver& observer) const {
  LoadProgress progress;
  for (const ManifestFile& file : files) {
    progress.bytes_total += file.size;
  }
  for (const ManifestFile& file : files) {
    SY_ASSIGN_OR_RETURN(const ManifestFile now, HashFile(model_dir, file.name, progress, observer));
    if (now.size != file.size) {
      return DataLoss("{}/{}: {} bytes, the manifest says {}", model_dir, file.name, now.size,
                      file.size);
    }
    if (now.sha256 != file.sha256) {
      return DataLoss("{}/{}: SHA-256 is {}, the manifest says {}", model_dir, file.name,
                      now.sha256, file.sha256);
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard
