// Any body is either refused with a 4xx of ours or parsed into a request that keeps its promises.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "libs/base/check.h"
#include "libs/openai/json_writer.h"
#include "libs/openai/request.h"

namespace {

using switchyard::ApiError;
using switchyard::ParseLimits;
using switchyard::SamplingFields;

void CheckError(const ApiError& error) {
  SY_CHECK(error.http_status == 400 || error.http_status == 413);
  SY_CHECK(!error.message.empty() && !error.code.empty());
  SY_CHECK(!switchyard::ErrorJson(error).empty());
}

void CheckSampling(const SamplingFields& fields, const ParseLimits& limits) {
  SY_CHECK(fields.n >= 1 && fields.n <= static_cast<int64_t>(limits.choices_max));
  SY_CHECK(fields.stop.size() <= limits.stop_count_max);
  SY_CHECK(fields.logit_bias.size() <= limits.logit_bias_count_max);
  SY_CHECK(!fields.max_tokens || fields.min_tokens <= *fields.max_tokens);
  SY_CHECK(!fields.top_p || *fields.top_p > 0.0);
  SY_CHECK(!fields.top_k || *fields.top_k >= 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const ParseLimits limits{.vocab_size = 1000};
  const auto chat = switchyard::ParseChatRequest(body, limits);
  if (chat.ok()) {
    CheckSampling(chat.value().sampling, limits);
    SY_CHECK(chat.value().message_count > 0);
    SY_CHECK(switchyard::IsUtf8(chat.value().messages_json));
  } else {
    CheckError(chat.error());
  }
  const auto completion = switchyard::ParseCompletionRequest(body, limits);
  if (completion.ok()) {
    CheckSampling(completion.value().sampling, limits);
    SY_CHECK(!completion.value().prompts.empty());
  } else {
    CheckError(completion.error());
  }
  return 0;
}
