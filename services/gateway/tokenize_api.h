#ifndef SWITCHYARD_SERVICES_GATEWAY_TOKENIZE_API_H_
#define SWITCHYARD_SERVICES_GATEWAY_TOKENIZE_API_H_

#include <cstdint>
#include <string>

#include "libs/openai/api_error.h"
#include "libs/openai/request.h"
#include "libs/text/text_assets.h"

namespace switchyard {

// POST /tokenize: {"prompt": text, "add_special_tokens": bool} or {"messages": [...]} to
// {"count", "max_model_len", "tokens"}. Pure; any thread.
ApiResult<std::string> Tokenize(const std::string& body, const ParseLimits& limits,
                                const TextAssets& assets, uint32_t context_tokens_max);

// POST /detokenize: {"tokens": [...]} to {"prompt": text}. Pure; any thread.
ApiResult<std::string> Detokenize(const std::string& body, const TextAssets& assets,
                                  uint32_t context_tokens_max);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_TOKENIZE_API_H_
