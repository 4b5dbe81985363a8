#include "libs/base/thread_name.h"

#include <string>

#include <pthread.h>

namespace switchyard {

void SetThreadName(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}

}  // namespace switchyard
