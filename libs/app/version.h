#ifndef SWITCHYARD_LIBS_APP_VERSION_H_
#define SWITCHYARD_LIBS_APP_VERSION_H_

namespace switchyard {

// Version of all programs; any thread.
inline constexpr char kVersion[] = "0.1.0";

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_VERSION_H_
