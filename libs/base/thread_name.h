#ifndef SWITCHYARD_LIBS_BASE_THREAD_NAME_H_
#define SWITCHYARD_LIBS_BASE_THREAD_NAME_H_

#include <string>

namespace switchyard {

// Names the calling thread ("step", "ucx-0"), at most 15 characters; shown by top -H and debuggers.
void SetThreadName(const std::string& name);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_THREAD_NAME_H_
