#ifndef SWITCHYARD_LIBS_TEXT_TOKENIZER_H_
#define SWITCHYARD_LIBS_TEXT_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct SyTokenizer;

namespace switchyard {

// A tokenizer.json larger than this is refused. The largest published one is near 40 MB.
inline constexpr size_t kTokenizerBytesMax = size_t{128} << 20;

// How Tokenizer::Encode treats text that spells an added token ("<|im_end|>").
enum class ControlText {
  kMatch,   // It becomes that token: for text that we or an operator wrote.
  kAsText,  // It is encoded like any other text: for text that a user wrote.
};

// GuardedJson is a JSON document whose strings cannot spell an added token; see Tokenizer::Guard.
struct GuardedJson {
  std::string json;
  char32_t marker = 0;  // 0 when the document did not have to change.
};

// Tokenizer turns text into token ids and back: a byte-level BPE from a Hugging Face
// tokenizer.json.
//
// Immutable after Load(), any thread. No message carries the text that it was given.
class Tokenizer {
 public:
  // InvalidArgument if `json` is not a byte-level tokenizer.
  static absl::StatusOr<Tokenizer> FromJson(std::string_view json);
  // As FromJson, for a file; the message names it.
  static absl::StatusOr<Tokenizer> Load(const std::string& path);

  Tokenizer(Tokenizer&& other) noexcept;
  Tokenizer& operator=(Tokenizer&& other) noexcept;
  ~Tokenizer();

  // `add_special` adds what the file's post-processor adds (a beginning-of-sentence token, often).
  // InvalidArgument if `text` is not UTF-8.
  absl::StatusOr<std::vector<uint32_t>> Encode(std::string_view text, bool add_special,
                                               ControlText control = ControlText::kMatch) const;

  // Breaks every spelling of an added token in the strings of `json` with a marker, so that a
  // template rendered over it yields control tokens only from the template's own text.
  absl::StatusOr<GuardedJson> Guard(std::string_view json) const;
  // Encodes what a template made of a guarded document: added tokens match, markers vanish. Text
  // without a marker encodes exactly as Encode(kMatch) does.
  absl::StatusOr<std::vector<uint32_t>> EncodeGuarded(std::string_view text, char32_t marker,
                                                      bool add_special) const;

  // The raw bytes of a token, maybe part of a character; alive as long as the tokenizer. Empty for
  // an id outside the vocabulary.
  std::string_view TokenBytes(uint32_t id) const;
  // True for control and other added tokens, and false for an id outside the vocabulary.
  bool IsAdded(uint32_t id) const;

  // The text of `ids`; invalid bytes become U+FFFD. `skip_added` leaves added tokens out.
  std::string Decode(std::span<const uint32_t> ids, bool skip_added) const;

  // Bytes of the longest token: text of n bytes has at least n / longest_token_bytes() tokens.
  size_t longest_token_bytes() const { return longest_token_bytes_; }

  // Largest id plus one.
  size_t vocab_size() const { return vocab_size_; }

  // The id of a token by its string in the vocabulary, as tokenizer.json spells it.
  std::optional<uint32_t> TokenIdOf(std::string_view token) const;

 private:
  struct Free {
    void operator()(SyTokenizer* handle) const;
  };

  explicit Tokenizer(std::unique_ptr<SyTokenizer, Free> handle);

  std::unique_ptr<SyTokenizer, Free> handle_;
  size_t vocab_size_ = 0;
  size_t longest_token_bytes_ = 1;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TEXT_TOKENIZER_H_
