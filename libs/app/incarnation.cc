#include "libs/app/incarnation.h"

#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace switchyard {

Incarnation NewIncarnation() {
  return Incarnation(static_cast<uint64_t>(absl::ToUnixMicros(absl::Now())));
}

}  // namespace switchyard
