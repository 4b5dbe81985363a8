#ifndef SWITCHYARD_LIBS_OPENAI_INTERNAL_SAMPLING_READER_H_
#define SWITCHYARD_LIBS_OPENAI_INTERNAL_SAMPLING_READER_H_

#include "libs/openai/internal/field_reader.h"
#include "libs/openai/request.h"

// Reads the fields that chat and text completions share. Stateless: any thread.

namespace switchyard::internal {

// False with reader.error() set. max_tokens stays to the caller, whose rules differ.
bool ReadSampling(FieldReader& reader, const ParseLimits& limits, SamplingFields* out);

// Fails for fields that are known and not served, and notes those that are known and ignored.
bool RefuseUnsupported(FieldReader& reader);

// After every read: counts what nobody asked for.
void CountUnknownFields(const FieldReader& reader, SamplingFields* out);

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_OPENAI_INTERNAL_SAMPLING_READER_H_
