// `switchyard convert` and `switchyard manifest`.
#include "libs/model/convert.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/checkpoint.h"
#include "libs/model/manifest.h"
#include "services/cli/arguments.h"
#include "services/cli/commands.h"

namespace switchyard {
namespace {

// Says how far it is, on stderr, each time another twentieth is done.
class ProgressLines {
 public:
  void Note(const LoadProgress& progress) {
    const auto step = static_cast<int>(progress.ratio() * 20.0);
    if (step <= step_) {
      return;
    }
    step_ = step;
    std::fprintf(stderr, "%3d %%  %.2f of %.2f GB\n", step * 5,
                 static_cast<double>(progress.bytes_done) * 1e-9,
                 static_cast<double>(progress.bytes_total) * 1e-9);
  }

  LoadObserver observer() {
    return [this](const LoadProgress& progress) { Note(progress); };
  }

 private:
  int step_ = 0;
};

// Empty paths would name the working directory; a slash at the end would end up inside `to`.
std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

absl::Status Convert(const std::string& from, const std::string& to, ConvertOptions options) {
  SY_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(from));
  ProgressLines lines;
  options.observer = lines.observer();
  SY_RETURN_IF_ERROR(ConvertCheckpoint(checkpoint, to, options));
  SY_ASSIGN_OR_RETURN(const Checkpoint made, Checkpoint::Open(to));
  std::printf("%s: %.2f GB of %s, made from %.2f GB\n  digest         sha256:%s\n", to.c_str(),
              static_cast<double>(made.total_bytes()) * 1e-9,
              std::string(NameOf(options.weights)).c_str(),
              static_cast<double>(checkpoint.total_bytes()) * 1e-9, made.digest().c_str());
  return absl::OkStatus();
}

absl::Status WriteManifest(const std::string& dir) {
  SY_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Load(dir));
  SY_ASSIGN_OR_RETURN(const std::optional<Manifest> before, Manifest::Load(dir));
  ProgressLines lines;
  const std::string weights =
      before.has_value() ? before->weights
                         : std::string(NameOf(Resolve(WeightChoice::kAsStored, spec.quantization)));
  SY_ASSIGN_OR_RETURN(const Manifest manifest,
                      Manifest::Make(dir, weights, before.has_value() ? before->source_digest : "",
                                     lines.observer()));
  SY_RETURN_IF_ERROR(WriteFileAtomically(dir + "/" + std::string(kManifestFile), manifest.Json()));
  SY_ASSIGN_OR_RETURN(const std::string digest, manifest.Digest());
  std::printf("%s: %zu files\n  digest         sha256:%s\n", dir.c_str(), manifest.files.size(),
              digest.c_str());
  return absl::OkStatus();
}

absl::Status CheckManifest(const std::string& dir) {
  SY_ASSIGN_OR_RETURN(const std::optional<Manifest> manifest, Manifest::Load(dir));
  if (!manifest.has_value()) {
    return NotFound("{}: no {}", dir, kManifestFile);
  }
  ProgressLines lines;
  SY_RETURN_IF_ERROR(manifest->Verify(dir, lines.observer()));
  std::printf("%s: all %zu files are as the manifest says\n", dir.c_str(), manifest->files.size());
  return absl::OkStatus();
}

}  // namespace

int RunConvert(const std::vector<std::string>& words) {
  Arguments arguments(words, {"force"});
  const absl::StatusOr<WeightChoice> weights = ParseWeightChoice(arguments.Text("weights", ""));
  ConvertOptions options;
  options.threads =
      arguments.Number("threads", std::max(1U, std::thread::hardware_concurrency()), 1, 256);
  options.replace = arguments.Flag("force");
  const std::string from = WithoutSlashes(arguments.Word());
  const std::string to = WithoutSlashes(arguments.Word());
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok() || to.empty()) {
    return Fail(
        "convert",
        parsed.ok() ? "a model directory and a new directory are required" : MessageOf(parsed),
        kExitUsage);
  }
  if (!weights.ok() || *weights == WeightChoice::kAsStored) {
    return Fail("convert", "--weights bf16, int8 or int4 is required", kExitUsage);
  }
  options.weights = *weights;
  const absl::Status done = Convert(from, to, options);
  return done.ok() ? kExitOk : Fail("convert", MessageOf(done), kExitFailed);
}

int RunManifest(const std::vector<std::string>& words) {
  Arguments arguments(words, {"check"});
  const bool check = arguments.Flag("check");
  const std::string dir = WithoutSlashes(arguments.Word());
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok() || dir.empty()) {
    return Fail("manifest", parsed.ok() ? "a model directory is required" : MessageOf(parsed),
                kExitUsage);
  }
  const absl::Status done = check ? CheckManifest(dir) : WriteManifest(dir);
  return done.ok() ? kExitOk : Fail("manifest", MessageOf(done), kExitFailed);
}

}  // namespace switchyard
