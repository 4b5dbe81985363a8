#ifndef SWITCHYARD_LIBS_BASE_CHECK_H_
#define SWITCHYARD_LIBS_BASE_CHECK_H_

namespace switchyard::internal {

[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);

}  // namespace switchyard::internal

// Ends the process when `condition` is false. For what only our own bug can cause; never for what a
// peer, file, user or cluster sent.
#define SY_CHECK(condition)                                                \
  do {                                                                     \
    if (!(condition)) [[unlikely]] {                                       \
      ::switchyard::internal::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                                      \
  } while (false)

#endif  // SWITCHYARD_LIBS_BASE_CHECK_H_
