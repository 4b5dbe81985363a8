#ifndef SWITCHYARD_LIBS_APP_INCARNATION_H_
#define SWITCHYARD_LIBS_APP_INCARNATION_H_

#include "libs/base/ids.h"

namespace switchyard {

// A number for this start of a process: wall time in microseconds, so it grows also over restarts
// of the machine. Any thread.
Incarnation NewIncarnation();

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_INCARNATION_H_
