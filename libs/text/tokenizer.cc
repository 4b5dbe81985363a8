#include "libs/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/text/incremental_decoder.h"
#include "libs/text/internal/ffi_adapter.h"

namespace switchyard {
namespace {

absl::StatusOr<std::vector<uint32_t>> EncodeWith(const SyTokenizer* handle, std::string_view text,
                                                 SyEncodeMode mode, char32_t marker,
                                                 bool add_special) {
  SyIds ids{};
  SyBytes error{};
  const int32_t code =
      sy_tokenizer_encode(handle, internal::ViewOf(text), mode, static_cast<uint32_t>(marker),
                          add_special, &ids, &error);
  SY_RETURN_IF_ERROR(internal::StatusOf(code, error));
  return internal::TakeIds(ids);
}

}  // namespace

void Tokenizer::Free::operator()(SyTokenizer* handle) const { sy_tokenizer_free(handle); }

Tokenizer::Tokenizer(std::unique_ptr<SyTokenizer, Free> handle)
    : handle_(std::move(handle)), vocab_size_(sy_tokenizer_vocab_size(handle_.get())) {
  for (size_t id = 0; id < vocab_size_; ++id) {
    longest_token_bytes_ =
        std::max(longest_token_bytes_, TokenBytes(static_cast<uint32_t>(id)).size());
  }
}

Tokenizer::Tokenizer(Tokenizer&& other) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&& other) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::FromJson(std::string_view json) {
  SyTokenizer* handle = nullptr;
  SyBytes error{};
  const int32_t code = sy_tokenizer_new(internal::ViewOf(json), &handle, &error);
  SY_RETURN_IF_ERROR(internal::StatusOf(code, error));
  return Tokenizer(std::unique_ptr<SyTokenizer, Free>(handle));
}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& path) {
  SY_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kTokenizerBytesMax));
  absl::StatusOr<Tokenizer> tokenizer = FromJson(json);
  if (!tokenizer.ok()) {
    return Annotate(tokenizer.status(), path);
  }
  return tokenizer;
}

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(std::string_view text, bool add_special,
                                                        ControlText control) const {
  const SyEncodeMode mode = control == ControlText::kMatch ? kSyEncodeWithAdded : kSyEncodePlain;
  return EncodeWith(handle_.get(), text, mode, 0, add_special);
}

absl::StatusOr<GuardedJson> Tokenizer::Guard(std::string_view json) const {
  SyBytes out{};
  SyBytes error{};
  uint32_t marker = 0;
  const int32_t code =
      sy_tokenizer_guard(handle_.get(), internal::ViewOf(json), &out, &marker, &error);
  SY_RETURN_IF_ERROR(internal::StatusOf(code, error));
  return GuardedJson{.json = internal::TakeString(out), .marker = static_cast<char32_t>(marker)};
}

absl::StatusOr<std::vector<uint32_t>> Tokenizer::EncodeGuarded(std::string_view text,
                                                               char32_t marker,
                                                               bool add_special) const {
  const SyEncodeMode mode = marker == 0 ? kSyEncodeWithAdded : kSyEncodeGuarded;
  return EncodeWith(handle_.get(), text, mode, marker, add_special);
}

std::string_view Tokenizer::TokenBytes(uint32_t id) const {
  SyView view{};
  if (sy_tokenizer_token(handle_.get(), id, &view) == 0) {
    return {};
  }
  return {reinterpret_cast<const char*>(view.data), view.size};
}

bool Tokenizer::IsAdded(uint32_t id) const {
  SyView view{};
  return sy_tokenizer_token(handle_.get(), id, &view) == 2;
}

std::string Tokenizer::Decode(std::span<const uint32_t> ids, bool skip_added) const {
  std::string text;
  IncrementalDecoder decoder;
  for (const uint32_t id : ids) {
    if (!skip_added || !IsAdded(id)) {
      text += decoder.Feed(TokenBytes(id));
    }
  }
  return text += decoder.Flush();
}

std::optional<uint32_t> Tokenizer::TokenIdOf(std::string_view token) const {
  const int64_t id = sy_tokenizer_id_of(handle_.get(), internal::ViewOf(token));
  if (id < 0) {
    return std::nullopt;
  }
  return static_cast<uint32_t>(id);
}

}  // namespace switchyard
