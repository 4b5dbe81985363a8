#ifndef SWITCHYARD_LIBS_MODEL_LOAD_LOG_H_
#define SWITCHYARD_LIBS_MODEL_LOAD_LOG_H_

#include <chrono>
#include <string>
#include <utility>

#include "libs/base/clock.h"
#include "libs/base/log.h"
#include "libs/model/load_options.h"

namespace switchyard {

// LoadLog writes a line every few seconds while weights are loaded. One owner; `clock` outlives it.
class LoadLog {
 public:
  LoadLog(const Clock& clock, std::string what)
      : clock_(clock), what_(std::move(what)), last_(clock.Now()) {}

  void Note(const LoadProgress& progress) {
    const Instant now = clock_.Now();
    if (now - last_ < kInterval) {
      return;
    }
    last_ = now;
    SY_LOG_INFO("loading {}", progress.Text(what_));
  }

 private:
  static constexpr std::chrono::seconds kInterval{3};

  const Clock& clock_;
  const std::string what_;
  Instant last_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_LOAD_LOG_H_
