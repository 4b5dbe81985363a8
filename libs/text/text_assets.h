#ifndef SWITCHYARD_LIBS_TEXT_TEXT_ASSETS_H_
#define SWITCHYARD_LIBS_TEXT_TEXT_ASSETS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/text/chat_template.h"
#include "libs/text/tokenizer.h"

namespace switchyard {

// Sampling defaults that come with a model; a request's own values go first.
struct GenerationDefaults {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
};

// TextAssets is what a model directory says about text. Immutable after loading, any thread.
struct TextAssets {
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;  // Absent for a base model.
  std::optional<uint32_t> bos_id;
  std::vector<uint32_t> eos_ids;  // Not empty, ascending, each inside the vocabulary.
  GenerationDefaults defaults;
};

// Reads tokenizer.json, and if they are there tokenizer_config.json, chat_template.jinja (which
// goes before the template in the config) and generation_config.json (which goes before the tokens
// of tokenizer_config.json). Each error names its file.
absl::StatusOr<TextAssets> LoadTextAssets(const std::string& model_dir);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TEXT_TEXT_ASSETS_H_
