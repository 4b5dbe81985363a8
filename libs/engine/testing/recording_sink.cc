#include "libs/engine/testing/recording_sink.h"

namespace switchyard {

std::vector<TokenId> RecordingSink::Record::ids() const {
  std::vector<TokenId> ids;
  for (const SampledToken& token : tokens) {
    ids.push_back(token.token);
  }
  return ids;
}

void RecordingSink::OnTokens(RequestId id, const GeneratedTokens& tokens) {
  Record& record = records_[id];
  record.tokens_after_end += record.ends.empty() ? 0 : 1;
  record.prompt.insert(record.prompt.end(), tokens.prompt.begin(), tokens.prompt.end());
  record.tokens.insert(record.tokens.end(), tokens.tokens.begin(), tokens.tokens.end());
}

void RecordingSink::OnFinished(RequestId id, const GenerationEnd& end) {
  records_[id].ends.push_back(end);
}

}  // namespace switchyard
