#ifndef SWITCHYARD_LIBS_MODEL_TESTING_SAFETENSORS_WRITER_H_
#define SWITCHYARD_LIBS_MODEL_TESTING_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libs/tensor/dtype.h"

namespace switchyard {

// SafetensorsWriter collects tensors and renders one safetensors file, in the order they were
// added. One owner.
class SafetensorsWriter {
 public:
  // `values` are rounded to `dtype` (BF16 and F16 to nearest, ties to even).
  void Add(const std::string& name, const std::vector<uint64_t>& shape, Dtype dtype,
           const std::vector<float>& values);

  // `bytes` as they are; `dtype` is the format's own name.
  void AddRaw(const std::string& name, const std::vector<uint64_t>& shape, std::string_view dtype,
              std::string_view bytes);

  bool empty() const { return header_.empty(); }

  // The whole file.
  std::string Render() const;

 private:
  std::string header_;  // The entries so far, without the braces.
  std::string data_;
};

// A header and data put together as a file would have them, valid or not.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_TESTING_SAFETENSORS_WRITER_H_
