#ifndef SWITCHYARD_LIBS_TEXT_INTERNAL_TEXT_FFI_H_
#define SWITCHYARD_LIBS_TEXT_INTERNAL_TEXT_FFI_H_

#include <stddef.h>
#include <stdint.h>

// The C ABI of libs/text/rust (src/lib.rs says what each entry does; change both together).
//
// Inputs are borrowed for the call. Outputs are owned buffers for sy_bytes_free or sy_ids_free.
// Functions that return a code answer 0, or SyTextCode with a message in `error`. Handles are
// immutable after sy_*_new: any thread. They live until sy_*_free.

extern "C" {

enum SyTextCode : int32_t { kSyTextInvalid = 1, kSyTextLimit = 2, kSyTextInternal = 3 };

enum SyEncodeMode : int32_t { kSyEncodeWithAdded = 0, kSyEncodePlain = 1, kSyEncodeGuarded = 2 };

struct SyTokenizer;
struct SyTemplate;

struct SyBytes {
  uint8_t* data;
  size_t size;
  size_t capacity;
};

struct SyIds {
  uint32_t* data;
  size_t size;
  size_t capacity;
};

struct SyView {
  const uint8_t* data;
  size_t size;
};

void sy_bytes_free(SyBytes bytes);
void sy_ids_free(SyIds ids);

int32_t sy_tokenizer_new(SyView json, SyTokenizer** out, SyBytes* error);
void sy_tokenizer_free(SyTokenizer* tokenizer);
size_t sy_tokenizer_vocab_size(const SyTokenizer* tokenizer);
// 0: no such id, 1: a text token, 2: an added token. `out` lives as long as the tokenizer.
int32_t sy_tokenizer_token(const SyTokenizer* tokenizer, uint32_t id, SyView* out);
// -1 when there is no such token.
int64_t sy_tokenizer_id_of(const SyTokenizer* tokenizer, SyView token);
int32_t sy_tokenizer_encode(const SyTokenizer* tokenizer, SyView text, int32_t mode,
                            uint32_t marker, bool add_special, SyIds* out, SyBytes* error);
int32_t sy_tokenizer_guard(const SyTokenizer* tokenizer, SyView json, SyBytes* out,
                           uint32_t* marker, SyBytes* error);

int32_t sy_template_new(SyView source, uint64_t fuel, size_t output_bytes_max, SyTemplate** out,
                        SyBytes* error);
void sy_template_free(SyTemplate* chat_template);
int32_t sy_template_render(const SyTemplate* chat_template, SyView context, SyBytes* out,
                           SyBytes* error);

}  // extern "C"

#endif  // SWITCHYARD_LIBS_TEXT_INTERNAL_TEXT_FFI_H_
