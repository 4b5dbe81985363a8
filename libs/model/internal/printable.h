#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_PRINTABLE_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_PRINTABLE_H_

#include <string>
#include <string_view>

namespace switchyard::internal {

// A name from a file, fit for an error message: control bytes become '?', at most 160 bytes are
// kept. Any thread.
inline std::string Printable(std::string_view name) {
  std::string text(name.substr(0, 160));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      c = '?';
    }
  }
  return text;
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_PRINTABLE_H_
