#include "libs/model/checkpoint.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include <openssl/evp.h>
#include <simdjson.h>

#include "absl/container/flat_hash_map.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/internal/printable.h"
#include "libs/model/internal/widen.h"
#include "libs/model/safetensors.h"

namespace switchyard {
namespace {

using internal::Printable;
namespace dom = simdjson::dom;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr size_t kIndexBytesMax = 256U << 20;
constexpr size_t kFilesMax = 4096;

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
  auto json = ReadFile(path, kIndexBytesMax);
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

std::optional<Dtype> DtypeOf(std::string_view name) {
  if (name == "BF16") {
    return Dtype::kBf16;
  }
  if (name == "F32") {
    return Dtype::kF32;
  }
  if (name == "F16") {
    return Dtype::kF16;
  }
  return std::nullopt;
}

// SHA-256 over a list of named contents, each framed by its name and size.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }

  void Add(std::string_view name, std::span<const std::byte> content) {
    Update(name.data(), name.size());
    std::array<unsigned char, 9> frame = {};  // A zero byte, then the size, little-endian.
    for (size_t i = 0; i < 8; ++i) {
      frame[i + 1] = static_cast<unsigned char>(content.size() >> (8 * i));
    }
    Update(frame.data(), frame.size());
    Update(content.data(), content.size());
  }

  absl::StatusOr<std::string> Finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest = {};
    unsigned int size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1;
    if (!ok_) {
      return Internal("OpenSSL cannot compute SHA-256");
    }
    std::string hex;
    for (unsigned int i = 0; i < size; ++i) {
      hex += fmt::format("{:02x}", digest[i]);
    }
    return hex;
  }

 private:
  void Update(const void* data, size_t size) {
    ok_ = ok_ && EVP_DigestUpdate(context_.get(), data, size) == 1;
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
  bool ok_ = false;
};

std::string ShapeText(std::span<const uint64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

}  // namespace

struct Checkpoint::Files {
  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };

  std::string dir;
  std::vector<SafetensorsFile> files;  // In file name order.
  absl::flat_hash_map<std::string, Place> places;

  // Fills `places`; every name is in one file only.
  absl::Status Join() {
    for (const SafetensorsFile& file : files) {
      for (const auto& [name, entry] : file.index()) {
        const auto [place, fresh] = places.emplace(name, Place{.file = &file, .entry = &entry});
        if (!fresh) {
          return InvalidArgument("tensor {} is in {} and in {}", Printable(name),
                                 place->second.file->path(), file.path());
        }
      }
    }
    return absl::OkStatus();
  }

  bool Has(const std::string& name) const { return places.contains(name); }

  // `rows` x `columns` of tensor `name` whose whole shape is `shape`, starting at its row
  // `first_row`.
  struct Slice {
    std::string name;
    std::vector<uint64_t> shape;
    uint64_t first_row = 0;
    uint32_t rows = 0;
    uint32_t columns = 0;
  };

  absl::StatusOr<MatrixView> View(const Slice& slice) const {
    const auto found = places.find(slice.name);
    if (found == places.end()) {
      return InvalidArgument("{}: tensor {} is missing", dir, slice.name);
    }
    const Place& place = found->second;
    if (place.entry->shape != slice.shape) {
      return InvalidArgument("{}: tensor {} has shape {}, config.json needs {}", place.file->path(),
                             slice.name, ShapeText(place.entry->shape), ShapeText(slice.shape));
    }
    const std::optional<Dtype> dtype = DtypeOf(place.entry->dtype);
    if (!dtype.has_value()) {
      return InvalidArgument("{}: tensor {} has dtype {}, supported are BF16, F16 and F32",
                             place.file->path(), slice.name, place.entry->dtype);
    }
    const size_t offset = slice.first_row * slice.columns * switchyard::BytesOf(*dtype);
    return MatrixView{.data = place.file->BytesOf(*place.entry).data() + offset,
                      .dtype = *dtype,
                      .rows = slice.rows,
                      .columns = slice.columns};
  }

  absl::StatusOr<MatrixView> Matrix(const std::string& name, uint32_t rows,
                                    uint32_t columns) const {
    return View({.name = name, .shape = {rows, columns}, .rows = rows, .columns = columns});
  }

  absl::Status Read(const std::string& name, uint32_t rows, uint32_t columns,
                    MatrixView& out) const {
    SY_ASSIGN_OR_RETURN(out, Matrix(name, rows, columns));
    return absl::OkStatus();
  }

  absl::Status Read(const std::string& name, uint32_t count, std::vector<float>& out) const {
    SY_ASSIGN_OR_RETURN(const MatrixView view,
                        View({.name = name, .shape = {count}, .rows = 1, .columns = count}));
    out.resize(count);
    internal::WidenToF32(view.data, view.dtype, count, out.data());
    return absl::OkStatus();
  }

  // The three matrices under `prefix`.
  absl::Status ReadFfn(const std::string& prefix, uint32_t hidden, uint32_t intermediate,
                       ExpertWeights& out) const {
    SY_RETURN_IF_ERROR(Read(prefix + "gate_proj.weight", intermediate, hidden, out.gate));
    SY_RETURN_IF_ERROR(Read(prefix + "up_proj.weight", intermediate, hidden, out.up));
    return Read(prefix + "down_proj.weight", hidden, intermediate, out.down);
  }

  // One expert out of the 3-D tensors under `prefix`: gate_up_proj [experts, 2 * intermediate,
  // hidden] (gate rows first) and down_proj [experts, hidden, intermediate].
  absl::Status ReadFusedExpert(const std::string& prefix, const ModelSpec& spec, ExpertId expert,
                               ExpertWeights& out) const {
    const uint64_t index = expert.value();
    const uint32_t hidden = spec.hidden_size;
    const uint32_t intermediate = spec.expert_intermediate_size;
    const std::vector<uint64_t> gate_up = {spec.expert_count, uint64_t{2} * intermediate, hidden};
    SY_ASSIGN_OR_RETURN(out.gate, View({.name = prefix + "gate_up_proj",
                                        .shape = gate_up,
                                        .first_row = index * 2 * intermediate,
                                        .rows = intermediate,
                                        .columns = hidden}));
    SY_ASSIGN_OR_RETURN(out.up, View({.name = prefix + "gate_up_proj",
                                      .shape = gate_up,
                                      .first_row = (index * 2 + 1) * intermediate,
                                      .rows = intermediate,
                                      .columns = hidden}));
    SY_ASSIGN_OR_RETURN(out.down, View({.name = prefix + "down_proj",
                                        .shape = {spec.expert_count, hidden, intermediate},
                                        .first_row = index * hidden,
                                        .rows = hidden,
                                        .columns = intermediate}));
    return absl::OkStatus();
  }

  absl::Status ReadAttention(const std::string& prefix, const ModelSpec& spec,
                             LayerWeights& layer) const {
    const uint32_t hidden = spec.hidden_size;
    const uint32_t query_rows = spec.head_count * spec.qk_dim();
    if (spec.q_lora_rank == 0) {
      SY_RETURN_IF_ERROR(Read(prefix + "q_proj.weight", query_rows, hidden, layer.q_proj));
    } else {
      const uint32_t rank = spec.q_lora_rank;
      SY_RETURN_IF_ERROR(Read(prefix + "q_a_proj.weight", rank, hidden, layer.q_a_proj));
      SY_RETURN_IF_ERROR(Read(prefix + "q_a_layernorm.weight", rank, layer.q_a_norm));
      SY_RETURN_IF_ERROR(Read(prefix + "q_b_proj.weight", query_rows, rank, layer.q_b_proj));
    }
    SY_RETURN_IF_ERROR(
        Read(prefix + "kv_a_proj_with_mqa.weight", spec.latent_dim(), hidden, layer.kv_a_proj));
    SY_RETURN_IF_ERROR(Read(prefix + "kv_a_layernorm.weight", spec.kv_lora_rank, layer.kv_a_norm));
    SY_RETURN_IF_ERROR(Read(prefix + "kv_b_proj.weight",
                            spec.head_count * (spec.nope_dim + spec.value_dim), spec.kv_lora_rank,
                            layer.kv_b_proj));
    SY_RETURN_IF_ERROR(
        Read(prefix + "o_proj.weight", hidden, spec.head_count * spec.value_dim, layer.o_proj));
    if (!spec.attention_bias) {
      return absl::OkStatus();
    }
    if (spec.q_lora_rank != 0) {
      SY_RETURN_IF_ERROR(Read(prefix + "q_a_proj.bias", spec.q_lora_rank, layer.q_a_bias));
    }
    SY_RETURN_IF_ERROR(
        Read(prefix + "kv_a_proj_with_mqa.bias", spec.latent_dim(), layer.kv_a_bias));
    return Read(prefix + "o_proj.bias", hidden, layer.o_bias);
  }

  absl::Status ReadLayer(uint32_t index, const ModelSpec& spec, LayerWeights& layer) const {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    const uint32_t hidden = spec.hidden_size;
    SY_RETURN_IF_ERROR(Read(prefix + "input_layernorm.weight", hidden, layer.input_norm));
    SY_RETURN_IF_ERROR(
        Read(prefix + "post_attention_layernorm.weight", hidden, layer.post_attention_norm));
    SY_RETURN_IF_ERROR(ReadAttention(prefix + "self_attn.", spec, layer));
    if (!spec.IsMoeLayer(index)) {
      return ReadFfn(prefix + "mlp.", hidden, spec.dense_intermediate_size, layer.dense);
    }
    SY_RETURN_IF_ERROR(Read(prefix + "mlp.gate.weight", spec.expert_count, hidden, layer.gate));
    SY_RETURN_IF_ERROR(
        Read(prefix + "mlp.gate.e_score_correction_bias", spec.expert_count, layer.gate_bias));
    if (spec.shared_expert_count == 0) {
      return absl::OkStatus();
    }
    return ReadFfn(prefix + "mlp.shared_experts.", hidden,
                   spec.shared_expert_count * spec.expert_intermediate_size, layer.shared);
  }
};

Checkpoint::Checkpoint(ModelSpec spec, std::string digest, std::shared_ptr<const Files> files)
    : spec_(std::move(spec)), digest_(std::move(digest)), files_(std::move(files)) {}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& model_dir) {
  SY_ASSIGN_OR_RETURN(ModelSpec spec, ModelSpec::Load(model_dir));
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
  auto files = std::make_shared<Files>();
  files->dir = model_dir;
  files->files.reserve(names.size());
  Sha256 hash;
  SY_ASSIGN_OR_RETURN(const MappedFile config, MappedFile::Open(model_dir + "/config.json"));
  hash.Add("config.json", config.bytes());
  for (const std::string& name : names) {
    SY_ASSIGN_OR_RETURN(SafetensorsFile file,
                        SafetensorsFile::Open(fmt::format("{}/{}", model_dir, name)));
    hash.Add(name, file.bytes());
    files->files.push_back(std::move(file));
  }
  SY_RETURN_IF_ERROR(files->Join());
  for (const auto& [tensor, file] : weight_map) {
    const auto place = files->places.find(tensor);
    if (place == files->places.end() || !place->second.file->path().ends_with("/" + file)) {
      return InvalidArgument("{}/{}: tensor {} is not in {}", model_dir, kIndexFile,
                             Printable(tensor), file);
    }
  }
  SY_ASSIGN_OR_RETURN(std::string digest, hash.Finish());
  return Checkpoint(std::move(spec), std::move(digest), std::move(files));
}

absl::StatusOr<RouterWeights> Checkpoint::LoadRouterWeights() const {
  RouterWeights weights;
  weights.owner = files_;
  SY_RETURN_IF_ERROR(files_->Read("model.embed_tokens.weight", spec_.vocab_size, spec_.hidden_size,
                                  weights.embedding));
  SY_RETURN_IF_ERROR(files_->Read("model.norm.weight", spec_.hidden_size, weights.final_norm));
  if (spec_.tied_embeddings) {
    weights.head = weights.embedding;
  } else {
    SY_RETURN_IF_ERROR(
        files_->Read("lm_head.weight", spec_.vocab_size, spec_.hidden_size, weights.head));
  }
  weights.layers.resize(spec_.layer_count);
  for (uint32_t i = 0; i < spec_.layer_count; ++i) {
    SY_RETURN_IF_ERROR(files_->ReadLayer(i, spec_, weights.layers[i]));
    weights.layers[i].dense.owner = files_;
    weights.layers[i].shared.owner = files_;
  }
  return weights;
}

absl::StatusOr<ExpertWeights> Checkpoint::LoadExpert(LayerId layer, ExpertId expert) const {
  if (layer.value() >= spec_.layer_count || !spec_.IsMoeLayer(layer.value()) ||
      expert.value() >= spec_.expert_count) {
    return InvalidArgument("no expert {} in layer {}: MoE layers are [{}, {}) with {} experts",
                           expert, layer, spec_.first_moe_layer, spec_.layer_count,
                           spec_.expert_count);
  }
  ExpertWeights weights;
  weights.owner = files_;
  const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", layer);
  if (files_->Has(prefix + "gate_up_proj")) {
    SY_RETURN_IF_ERROR(files_->ReadFusedExpert(prefix, spec_, expert, weights));
  } else {
    SY_RETURN_IF_ERROR(files_->ReadFfn(fmt::format("{}{}.", prefix, expert), spec_.hidden_size,
                                       spec_.expert_intermediate_size, weights));
  }
  return weights;
}

uint64_t Checkpoint::expert_bytes() const {
  const auto layer = static_cast<uint16_t>(spec_.first_moe_layer);
  const auto weights = LoadExpert(LayerId(layer), ExpertId(0));
  if (!weights.ok()) {
    return 0;
  }
  return weights->gate.byte_size() + weights->up.byte_size() + weights->down.byte_size();
}

uint64_t Checkpoint::total_bytes() const {
  uint64_t total = 0;
  for (const SafetensorsFile& file : files_->files) {
    total += file.bytes().size();
  }
  return total;
}

}  // namespace switchyard
