#ifndef SWITCHYARD_LIBS_TRANSPORT_INPROC_TRANSPORT_H_
#define SWITCHYARD_LIBS_TRANSPORT_INPROC_TRANSPORT_H_

#include <memory>
#include <string>

#include "libs/transport/transport.h"

namespace switchyard {

namespace internal {
class InprocHub;
}

// InprocNetwork connects transports that different threads of one process own. Messages are copied;
// a send completes when the receiver's thread takes the message, so what a connection holds is
// bounded by TransportLimits. An endpoint is reached as "inproc:<name>" once it listens, whatever
// address Listen was given.
//
// Any thread; each transport has one owner. Endpoints keep the network's state alive.
class InprocNetwork {
 public:
  explicit InprocNetwork(TransportLimits limits = {});
  ~InprocNetwork();
  InprocNetwork(const InprocNetwork&) = delete;
  InprocNetwork& operator=(const InprocNetwork&) = delete;

  // One living endpoint per name.
  std::unique_ptr<Transport> CreateEndpoint(const std::string& name);

 private:
  std::shared_ptr<internal::InprocHub> hub_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_INPROC_TRANSPORT_H_
