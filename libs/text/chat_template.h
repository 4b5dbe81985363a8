#ifndef SWITCHYARD_LIBS_TEXT_CHAT_TEMPLATE_H_
#define SWITCHYARD_LIBS_TEXT_CHAT_TEMPLATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/text/tokenizer.h"

struct SyTemplate;

namespace switchyard {

// A template comes with a model, so it is only half trusted: its work and its output are bounded.
struct ChatTemplateLimits {
  uint64_t fuel = 2'000'000;  // Template instructions of one render.
  size_t output_bytes_max = size_t{64} << 20;
};

// What a template renders. The views must outlive the call.
struct ChatInput {
  std::string_view messages_json;  // An array of {"role", "content", ...}.
  bool add_generation_prompt = true;
  std::string_view extra_json = "{}";  // An object: more variables, such as enable_thinking.
};

// ChatTemplate makes one prompt of a conversation, as the model's Jinja template says.
//
// Immutable, any thread. Messages carry no text of the conversation: an error tells the template's
// line, and what raise_exception said only if the template holds it word for word.
class ChatTemplate {
 public:
  // From the content of a tokenizer_config.json. NotFound if it has no chat_template. The tokens
  // that the file names (bos_token, eos_token, ...) are variables of the template.
  static absl::StatusOr<ChatTemplate> FromTokenizerConfig(std::string_view config_json,
                                                          const ChatTemplateLimits& limits = {});
  // From the content of a chat_template.jinja file; `config_json` gives the tokens.
  static absl::StatusOr<ChatTemplate> FromSource(std::string_view source,
                                                 std::string_view config_json = "{}",
                                                 const ChatTemplateLimits& limits = {});

  ChatTemplate(ChatTemplate&& other) noexcept;
  ChatTemplate& operator=(ChatTemplate&& other) noexcept;
  ~ChatTemplate();

  // InvalidArgument if the template refuses the conversation, ResourceExhausted past a limit.
  absl::StatusOr<std::string> Render(const ChatInput& input) const;

 private:
  struct Free {
    void operator()(SyTemplate* handle) const;
  };

  ChatTemplate(std::unique_ptr<SyTemplate, Free> handle, std::string tokens_json);

  std::unique_ptr<SyTemplate, Free> handle_;
  std::string tokens_json_;  // `"bos_token":"...",` and so on: the beginning of each context.
};

// Renders and encodes a conversation. Control tokens come only from the template: text in `input`
// that spells one is encoded as text.
absl::StatusOr<std::vector<uint32_t>> EncodeChat(const Tokenizer& tokenizer,
                                                 const ChatTemplate& chat_template,
                                                 const ChatInput& input);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TEXT_CHAT_TEMPLATE_H_
