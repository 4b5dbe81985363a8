#include "libs/model/convert.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "libs/base/check.h"
#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/convert_rows.h"
#include "libs/model/internal/guard_memory.h"
#include "libs/model/internal/json_text.h"
#include "libs/model/internal/list_dir.h"
#include "libs/model/internal/printable.h"
#include "libs/model/internal/sha256.h"
#include "libs/model/manifest.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using internal::JsonString;
using internal::Sha256;

constexpr uint64_t kPieceBytes = 4U << 20;
constexpr uint64_t kSmallFileBytesMax = 256U << 20;
constexpr size_t kConfigBytesMax = 16U << 20;

// One tensor to be written.
struct OutTensor {
  enum class Kind { kCopy, kValues, kScales };

  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t byte_count = 0;
  Kind kind = Kind::kCopy;
  TensorCatalog::Place copied;             // kCopy
  const PlannedTensor* planned = nullptr;  // kValues; kScales come right after their values.
};

std::string_view DtypeName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
      return "I8";
    case WeightFormat::kInt4:
      return "U8";
    default:
      return "BF16";
  }
}

bool IsFused(const TensorSlice& slice) { return slice.shape.size() == 3; }

// What the names of one layer's fused tensors begin with.
std::string FusedPrefix(const TensorSlice& slice) {
  return slice.name.substr(0, slice.name.rfind('.') + 1);
}

// A name of its own for a matrix out of a fused 3-D tensor.
std::string OwnName(const TensorSlice& slice) {
  if (!IsFused(slice)) {
    return slice.name;
  }
  const uint64_t index = slice.first_row / slice.rows;
  constexpr std::string_view kGateUp = "gate_up_proj";
  if (!slice.name.ends_with(kGateUp)) {
    return fmt::format("{}{}.down_proj.weight", FusedPrefix(slice), index);
  }
  return fmt::format("{}{}.{}.weight", FusedPrefix(slice), index / 2,
                     index % 2 == 0 ? "gate_proj" : "up_proj");
}

// True for tensors that are written in another form than they are stored in.
bool Converts(const PlannedTensor& tensor) {
  // A head that is the embedding has no tensor of its own.
  const bool tied =
      tensor.source.role == WeightRole::kHead && tensor.source.slice.name != "lm_head.weight";
  return !tied && tensor.rounded != tensor.source.format;
}

// Layers whose fused tensors are taken apart, as FusedPrefix() has them: all of a layer's, also
// those that need no other format, because a loader looks for the experts in one form only.
std::set<std::string> TakenApart(std::span<const PlannedTensor> planned) {
  std::set<std::string> prefixes;
  for (const PlannedTensor& tensor : planned) {
    if (IsFused(tensor.source.slice) && Converts(tensor)) {
      prefixes.insert(FusedPrefix(tensor.source.slice));
    }
  }
  return prefixes;
}

// What to write, in order, and what it was made of.
struct OutPlan {
  std::vector<PlannedTensor> planned;
  std::vector<OutTensor> tensors;

  void AddConverted(const PlannedTensor& tensor) {
    const TensorSlice& slice = tensor.source.slice;
    const uint64_t rows = slice.rows;
    const WeightFormat format = tensor.rounded;
    const bool packs_two = format == WeightFormat::kInt4;
    const uint64_t columns = packs_two ? (slice.columns + 1) / 2 : slice.columns;
    tensors.push_back({.name = OwnName(slice),
                       .dtype = std::string(DtypeName(format)),
                       .shape = {rows, columns},
                       .byte_count = StoredValueBytes(format, slice.rows, slice.columns),
                       .kind = OutTensor::Kind::kValues,
                       .planned = &tensor});
    const uint64_t scale_bytes = StoredScaleBytes(format, slice.rows, slice.columns);
    if (scale_bytes > 0) {
      tensors.push_back({.name = OwnName(slice) + "_scale",
                         .dtype = "F16",
                         .shape = {rows, (slice.columns + kScaleGroup - 1) / kScaleGroup},
                         .byte_count = scale_bytes,
                         .kind = OutTensor::Kind::kScales});
    }
  }

  // All tensors of the catalog whose names are not in `converted`, in the order of the files.
  void AddCopies(const TensorCatalog& catalog, const std::set<std::string>& converted) {
    for (const SafetensorsFile& file : catalog.files()) {
      std::map<uint64_t, std::pair<const std::string*, const SafetensorsEntry*>> order;
      for (const auto& [name, entry] : file.index()) {
        if (!converted.contains(name) && entry.byte_size() > 0) {
          order.emplace(entry.begin, std::pair(&name, &entry));
        }
      }
      for (const auto& [begin, tensor] : order) {
        const auto [name, entry] = tensor;
        tensors.push_back({.name = *name,
                           .dtype = entry->dtype,
                           .shape = entry->shape,
                           .byte_count = entry->byte_size(),
                           .copied = {.file = &file, .entry = entry}});
      }
    }
  }
};

absl::StatusOr<OutPlan> MakePlan(const Checkpoint& from, WeightChoice weights) {
  OutPlan plan;
  SY_ASSIGN_OR_RETURN(plan.planned, from.PlanRouter(weights));
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> experts, from.PlanExperts(weights));
  plan.planned.insert(plan.planned.end(), experts.begin(), experts.end());
  const std::set<std::string> taken_apart = TakenApart(plan.planned);
  std::set<std::string> converted;
  for (const PlannedTensor& tensor : plan.planned) {
    const TensorSlice& slice = tensor.source.slice;
    if (Converts(tensor) || (IsFused(slice) && taken_apart.contains(FusedPrefix(slice)))) {
      plan.AddConverted(tensor);
      const std::string& name = slice.name;
      converted.insert(name);
      if (tensor.source.scales.file != nullptr) {
        const bool fp8 = tensor.source.format == WeightFormat::kFp8;
        converted.insert(name + (fp8 ? "_scale_inv" : "_scale"));
      }
    }
  }
  plan.AddCopies(from.catalog(), converted);
  std::set<std::string_view> names;
  for (const OutTensor& tensor : plan.tensors) {
    if (!names.insert(tensor.name).second) {
      return InvalidArgument("{}: tensor {} is stored and would be made of another as well",
                             from.catalog().dir(), internal::Printable(tensor.name));
    }
  }
  return plan;
}

// Writes one safetensors file after another.
class Writer {
 public:
  Writer(std::string dir, const ConvertOptions& options, uint64_t bytes_total)
      : dir_(std::move(dir)), options_(options) {
    progress_.bytes_total = bytes_total;
  }

  absl::Status WriteFile(const std::string& name, std::span<const OutTensor> tensors) {
    SY_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(dir_ + "/" + name));
    file_.emplace(std::move(file));
    hash_.emplace();
    size_ = 0;
    const std::string header = Header(tensors);
    SY_RETURN_IF_ERROR(Append(std::as_bytes(std::span(header))));
    Sha256 header_hash;
    header_hash.Add(header);
    for (const OutTensor& tensor : tensors) {
      SY_RETURN_IF_ERROR(WriteTensor(tensor));
      progress_.bytes_done += tensor.byte_count;
      if (options_.observer != nullptr) {
        options_.observer(progress_);
      }
    }
    SY_RETURN_IF_ERROR(file_->Finish());
    ManifestFile entry{.name = name, .size = size_};
    SY_ASSIGN_OR_RETURN(entry.sha256, hash_->Finish());
    SY_ASSIGN_OR_RETURN(entry.header_sha256, header_hash.Finish());
    files_.push_back(std::move(entry));
    return absl::OkStatus();
  }

  const std::vector<ManifestFile>& files() const { return files_; }

 private:
  static std::string Header(std::span<const OutTensor> tensors) {
    std::string json = R"({"__metadata__":{"format":"pt"})";
    uint64_t offset = 0;
    for (const OutTensor& tensor : tensors) {
      json += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          JsonString(tensor.name), tensor.dtype, fmt::join(tensor.shape, ","),
                          offset, offset + tensor.byte_count);
      offset += tensor.byte_count;
    }
    json += "}";
    json.append((8 - json.size() % 8) % 8, ' ');
    std::string header(sizeof(uint64_t), '\0');
    for (size_t i = 0; i < header.size(); ++i) {
      header[i] = static_cast<char>(json.size() >> (8 * i));
    }
    return header + json;
  }

  absl::Status Append(std::span<const std::byte> bytes) {
    hash_->Add(bytes);
    size_ += bytes.size();
    return file_->Append(bytes);
  }

  absl::Status WriteTensor(const OutTensor& tensor) {
    switch (tensor.kind) {
      case OutTensor::Kind::kCopy:
        return Copy(tensor.copied);
      case OutTensor::Kind::kValues:
        return WriteValues(*tensor.planned);
      case OutTensor::Kind::kScales:
        SY_CHECK(scales_.size() * sizeof(uint16_t) == tensor.byte_count);
        return Append(std::as_bytes(std::span(scales_)));
    }
    return Internal("convert: a tensor of no kind");
  }

  absl::Status Copy(const TensorCatalog::Place& place) {
    std::vector<std::byte> piece;
    for (uint64_t offset = place.entry->begin; offset < place.entry->end; offset += piece.size()) {
      piece.resize(std::min(kPieceBytes, place.entry->end - offset));
      SY_RETURN_IF_ERROR(place.file->file().ReadAt(offset, piece));
      SY_RETURN_IF_ERROR(Append(piece));
    }
    return place.file->file().CheckUnchanged();
  }

  // One thread's part of a tensor.
  struct Part {
    StoredRows rows;
    absl::Status status;
    ConvertedRows converted;

    void Run(const PlannedTensor& tensor) {
      status = internal::GuardMemory(tensor.source.slice.name, [&] {
        SY_RETURN_IF_ERROR(rows.Check(tensor.rounded));
        converted = ConvertRows(rows.stored(), tensor.rounded);
        return absl::OkStatus();
      });
    }
  };

  absl::Status WriteValues(const PlannedTensor& tensor) {
    const TensorSlice& slice = tensor.source.slice;
    const uint64_t row_bytes = uint64_t{slice.columns} * sizeof(float);
    const auto rows_per_part = static_cast<uint32_t>(
        std::max<uint64_t>(kPieceBytes / row_bytes / kFp8Block, 1) * kFp8Block);
    parts_.resize(std::max<uint32_t>(options_.threads, 1));
    scales_.clear();
    uint32_t first = 0;
    while (first < slice.rows) {
      std::vector<std::thread> threads;
      absl::Status status;
      size_t part_count = 0;
      for (; part_count < parts_.size() && first < slice.rows && status.ok(); ++part_count) {
        Part& part = parts_[part_count];
        const uint32_t count = std::min(rows_per_part, slice.rows - first);
        status = internal::GuardMemory(slice.name,
                                       [&] { return part.rows.Read(tensor.source, first, count); });
        const auto run = [&part, &tensor] { part.Run(tensor); };
        if (status.ok() && !internal::TryStart(threads, run)) {
          run();
        }
        first += count;
      }
      for (std::thread& thread : threads) {
        thread.join();
      }
      SY_RETURN_IF_ERROR(status);
      SY_RETURN_IF_ERROR(AppendParts(std::span(parts_).first(part_count)));
    }
    return absl::OkStatus();
  }

  absl::Status AppendParts(std::span<const Part> parts) {
    for (const Part& part : parts) {
      SY_RETURN_IF_ERROR(part.status);
      SY_RETURN_IF_ERROR(Append(part.converted.values));
      scales_.insert(scales_.end(), part.converted.scales.begin(), part.converted.scales.end());
    }
    return absl::OkStatus();
  }

  const std::string dir_;
  const ConvertOptions& options_;
  LoadProgress progress_;
  std::optional<OutputFile> file_;
  std::optional<Sha256> hash_;
  uint64_t size_ = 0;
  std::vector<Part> parts_;
  std::vector<uint16_t> scales_;  // Of the tensor whose values were written last.
  std::vector<ManifestFile> files_;
};

// How many tensors each file takes.
std::vector<size_t> SplitFiles(std::span<const OutTensor> tensors, uint64_t bytes_max) {
  std::vector<size_t> counts = {0};
  uint64_t used = 0;
  for (const OutTensor& tensor : tensors) {
    if (counts.back() > 0 && used + tensor.byte_count > bytes_max) {
      counts.push_back(0);
      used = 0;
    }
    ++counts.back();
    used += tensor.byte_count;
  }
  return counts;
}

// config.json with a quantization_config that says how the weights are stored now.
absl::StatusOr<std::string> NewConfig(const Checkpoint& from, WeightChoice weights) {
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadRegularFile(from.catalog().dir() + "/config.json", kConfigBytesMax));
  const simdjson::padded_string padded(text);
  simdjson::dom::parser parser;
  simdjson::dom::object root;
  if (parser.parse(padded).get(root) != simdjson::SUCCESS) {
    return InvalidArgument("config.json: not a JSON object");
  }
  std::string json = "{";
  for (const simdjson::dom::key_value_pair field : root) {
    if (field.key != "quantization_config") {
      json += fmt::format("{}\n  {}: {}", json.size() > 1 ? "," : "", JsonString(field.key),
                          simdjson::minify(field.value));
    }
  }
  // BF16 throughout needs no words, and other programs read it as well.
  const bool plain = weights == WeightChoice::kBf16 && from.spec().weight_dtype == Dtype::kBf16;
  if (!plain) {
    json += fmt::format(
        ",\n  \"quantization_config\": {{\"quant_method\": \"switchyard\", \"format\": \"{}\", "
        "\"group_size\": {}}}",
        NameOf(weights), kScaleGroup);
  }
  return json + "\n}\n";
}

// All that is neither weights nor rewritten.
absl::Status CopySmallFiles(const std::string& from, const std::string& to) {
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> names, internal::ListDir(from));
  for (const std::string& name : names) {
    const std::string path = fmt::format("{}/{}", from, name);
    std::error_code ignored;
    const bool skipped = name.front() == '.' || name == "config.json" || name == kManifestFile ||
                         name.ends_with(".safetensors") || name.ends_with(".index.json");
    if (skipped || !fs::is_regular_file(path, ignored) ||
        fs::file_size(path, ignored) > kSmallFileBytesMax) {
      continue;
    }
    SY_ASSIGN_OR_RETURN(const std::string content, ReadRegularFile(path, kSmallFileBytesMax));
    SY_RETURN_IF_ERROR(WriteFileAtomically(fmt::format("{}/{}", to, name), content));
  }
  return absl::OkStatus();
}

absl::Status WriteAll(const Checkpoint& from, const std::string& dir,
                      const ConvertOptions& options) {
  SY_ASSIGN_OR_RETURN(const OutPlan plan, MakePlan(from, options.weights));
  uint64_t total = 0;
  for (const OutTensor& tensor : plan.tensors) {
    total += tensor.byte_count;
  }
  std::error_code error;
  if (const fs::space_info space = fs::space(dir, error); !error && space.available < total) {
    return ResourceExhausted("{} GB are needed, {} has {} GB", total / 1'000'000'000, dir,
                             space.available / 1'000'000'000);
  }
  Writer writer(dir, options, total);
  const std::vector<size_t> counts = SplitFiles(plan.tensors, options.file_bytes_max);
  std::string weight_map;
  std::span<const OutTensor> left(plan.tensors);
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, counts.size());
    SY_RETURN_IF_ERROR(writer.WriteFile(name, left.first(counts[i])));
    for (const OutTensor& tensor : left.first(counts[i])) {
      weight_map += fmt::format("{}\n    {}: \"{}\"", weight_map.empty() ? "" : ",",
                                JsonString(tensor.name), name);
    }
    left = left.subspan(counts[i]);
  }
  SY_RETURN_IF_ERROR(WriteFileAtomically(
      dir + "/model.safetensors.index.json",
      fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{{}\n  }}\n}}\n",
                  total, weight_map)));
  SY_RETURN_IF_ERROR(CopySmallFiles(from.catalog().dir(), dir));
  SY_ASSIGN_OR_RETURN(const std::string config, NewConfig(from, options.weights));
  SY_RETURN_IF_ERROR(WriteFileAtomically(dir + "/config.json", config));
  SY_ASSIGN_OR_RETURN(const Manifest manifest,
                      Manifest::Make(dir, std::string(NameOf(options.weights)), from.digest(),
                                     nullptr, writer.files()));
  return WriteFileAtomically(fmt::format("{}/{}", dir, kManifestFile), manifest.Json());
}

absl::Status Rename(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return error ? Unavailable("rename {} to {}: {}", from, to, error.message()) : absl::OkStatus();
}

// Whether `path` lies in `folder` or is it; both as the file system has them.
bool IsWithin(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

// What is written and removed must not be or hold the source.
absl::Status CheckApart(const std::string& source, const std::vector<std::string>& written) {
  std::error_code error;
  const fs::path from = fs::weakly_canonical(source, error);
  for (const std::string& path : written) {
    const fs::path to = fs::weakly_canonical(path, error);
    if (error || IsWithin(from, to)) {
      return InvalidArgument("the source {} lies in {}, which would be replaced", source, path);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ConvertCheckpoint(const Checkpoint& from, const std::string& to,
                               const ConvertOptions& options) {
  SY_CHECK(options.weights != WeightChoice::kAsStored);
  std::error_code error;
  const bool exists = fs::exists(to, error);
  if (exists && !options.replace) {
    return absl::AlreadyExistsError(fmt::format("{} is there already", to));
  }
  if (exists && (!fs::exists(to + "/config.json", error) ||
                 fs::equivalent(to, from.catalog().dir(), error))) {
    return InvalidArgument("{} is not replaced: it is no model directory, or the source", to);
  }
  const std::string partial = to + ".partial";
  const std::string before = to + ".before";
  SY_RETURN_IF_ERROR(CheckApart(from.catalog().dir(), {to, partial, before}));
  if (fs::exists(before, error)) {
    return absl::AlreadyExistsError(
        fmt::format("{} is left from an interrupted conversion: move it away first", before));
  }
  fs::remove_all(partial, error);
  if (!fs::create_directories(partial, error)) {
    return Unavailable("create {}: {}", partial, error.message());
  }
  const absl::Status written =
      internal::GuardMemory("the conversion", [&] { return WriteAll(from, partial, options); });
  if (!written.ok()) {
    fs::remove_all(partial, error);
    return written;
  }
  if (!exists) {
    return Rename(partial, to);
  }
  SY_RETURN_IF_ERROR(Rename(to, before));
  if (const absl::Status renamed = Rename(partial, to); !renamed.ok()) {
    Rename(before, to).IgnoreError();
    return renamed;
  }
  fs::remove_all(before, error);
  return absl::OkStatus();
}

}  // namespace switchyard
