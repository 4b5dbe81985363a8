#ifndef SWITCHYARD_LOADTEST_REQUEST_BODY_H_
#define SWITCHYARD_LOADTEST_REQUEST_BODY_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "loadtest/request_spec.h"

namespace switchyard {

enum class Endpoint : uint8_t { kCompletions, kChat };

enum class PromptForm : uint8_t {
  kTokenIds,  // An array of ids: the prompt is exactly as long as asked for.
  kWords,  // Text of one common English word per token; how many tokens that is, the server says.
};

// Members of a JSON object that go into each request as they are, in the place of ours of the same
// name. A member that is null only takes ours away.
struct ExtraMembers {
  std::string json;  // "name":value,… or empty.
  std::set<std::string, std::less<>> names;

  // InvalidArgument unless `object` is a JSON object.
  static absl::StatusOr<ExtraMembers> Parse(std::string_view object);
};

struct BodyOptions {
  Endpoint endpoint = Endpoint::kCompletions;
  PromptForm prompt_form = PromptForm::kTokenIds;
  std::string model;  // Not sent when empty.
  uint32_t vocab_size = 4096;
  double temperature = 1.0;
  bool ignore_eos = true;
  bool send_user = false;  // The tenant's name as `user`.
  ExtraMembers extra;
};

// The lowest token id of prompts: those below are often control tokens and single bytes.
uint32_t FirstTokenId(uint32_t vocab_size);

// The body of `spec`: a pure function, the same on any machine.
std::string RequestBody(const RequestSpec& spec, const BodyOptions& options,
                        std::string_view tenant_name);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_REQUEST_BODY_H_
