#ifndef SWITCHYARD_LIBS_ENGINE_TESTING_RECORDING_SINK_H_
#define SWITCHYARD_LIBS_ENGINE_TESTING_RECORDING_SINK_H_

#include <map>
#include <vector>

#include "libs/base/ids.h"
#include "libs/engine/generation.h"

namespace switchyard {

// RecordingSink keeps all events of an engine, by request.
//
// One owner: the thread that runs the engine.
class RecordingSink final : public EventSink {
 public:
  struct Record {
    std::vector<SampledToken> prompt;
    std::vector<SampledToken> tokens;
    std::vector<GenerationEnd> ends;
    int tokens_after_end = 0;

    std::vector<TokenId> ids() const;
  };

  void OnTokens(RequestId id, const GeneratedTokens& tokens) override;
  void OnFinished(RequestId id, const GenerationEnd& end) override;

  // Empty for a request without events.
  const Record& Of(RequestId id) { return records_[id]; }

 private:
  std::map<RequestId, Record> records_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_TESTING_RECORDING_SINK_H_
