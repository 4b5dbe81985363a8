#ifndef SWITCHYARD_LIBS_OPENAI_INTERNAL_JSON_DOCUMENT_H_
#define SWITCHYARD_LIBS_OPENAI_INTERNAL_JSON_DOCUMENT_H_

#include <optional>
#include <string_view>

#include <simdjson.h>

#include "libs/openai/api_error.h"
#include "libs/openai/request.h"

namespace switchyard::internal {

// JsonDocument is one strictly read request body: UTF-8, one object, no duplicate member at any
// depth, no lone surrogate, bounded depth. One owner; elements live as long as the document.
class JsonDocument {
 public:
  // The error, or nothing. root() afterwards.
  std::optional<ApiError> Parse(std::string_view body, const ParseLimits& limits);

  simdjson::dom::object root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::object root_;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_OPENAI_INTERNAL_JSON_DOCUMENT_H_
