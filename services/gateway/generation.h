#ifndef SWITCHYARD_SERVICES_GATEWAY_GENERATION_H_
#define SWITCHYARD_SERVICES_GATEWAY_GENERATION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/frontend/admission.h"
#include "libs/frontend/session.h"
#include "libs/openai/response.h"
#include "services/gateway/generation_plan.h"
#include "services/gateway/reply.h"
#include "services/gateway/router_pool.h"
#include "services/gateway/serial_mailbox.h"

namespace switchyard {

// What generations share; outlives them.
struct GenerationContext {
  const Tokenizer& tokenizer;
  RouterPool& routers;
  GatewayMetrics& metrics;
  const Clock& clock;
  std::string model_name;
  Duration request_timeout;
};

// Who asks, and how the answer is named.
struct GenerationIdentity {
  std::string id;  // "chatcmpl-..." or "cmpl-...".
  std::string tenant;
  std::string traceparent;
  int64_t created_s = 0;
};

// Generation carries out one API request: a Generate call for each choice, their tokens through
// Sessions, the answer to the client. A client that leaves cancels the calls; a router that is lost
// costs another call, at another router, with the tokens received so far.
//
// Everything happens in its mailbox, one message at a time, on whichever thread posted. It lives as
// long as it has open calls.
class Generation final : public std::enable_shared_from_this<Generation> {
 public:
  Generation(GenerationContext& context, GenerationPlan plan, GenerationIdentity identity,
             Admission::Ticket ticket, Reply reply);
  ~Generation();

  void Start();

 private:
  class ChoiceSink;

  struct Choice {
    explicit Choice(Session session_in) : session(std::move(session_in)) {}

    Session session;
    std::shared_ptr<GenerateCall> call;  // While it is open.
    size_t router = 0;
    int attempts = 0;
    int64_t cached_tokens = 0;  // Of its prompt, at any router.
    bool started = false;       // Its first delta, with role or echo, is out.
    bool ended = false;         // Nothing comes any more.
    std::vector<SessionToken> prompt_scores;
    std::optional<Instant> last_token_at;
    int64_t text_offset = 0;  // In characters, of the next logprobs.
    Session::Delta whole;     // The answer so far, when it is not streamed.
  };

  // One of: begin, client gone, an event of a choice, the end of a choice's call.
  struct Message {
    enum class Kind { kBegin, kClientGone, kEvent, kDone };
    Kind kind = Kind::kBegin;
    size_t choice = 0;
    v1::GenerateEvent event;
    absl::Status status;
  };

  void Post(Message message);
  void Handle(Message message);
  void Begin();
  void CallRouter(size_t choice, std::optional<size_t> excluded);
  void OnEvent(Choice& choice, size_t index, const v1::GenerateEvent& event);
  void OnTokens(Choice& choice, const v1::GenerateEvent& event, Session::Delta* delta);
  void OnDone(Choice& choice, size_t index, const absl::Status& status);
  bool Resume(Choice& choice, size_t index, const absl::Status& status);
  void PrependEcho(Choice& choice, size_t index, Session::Delta* delta);
  void Emit(Choice& choice, size_t index, Session::Delta delta);
  void EmitChunk(Choice& choice, size_t index, const Session::Delta& delta);
  bool WriteEvent(std::string_view event);
  void CompleteIfAllEnded();
  void Complete();
  void Fail(const absl::Status& status);
  void End(int code);
  void CancelCalls();
  int64_t CachedTokens() const;
  Usage UsageNow() const;
  ResponseHead Head() const;

  const PlannedPrompt& PromptOf(size_t choice) const { return plan_.prompts[choice / plan_.n]; }

  const Admission::Ticket ticket_;  // First, so that it is given back last.
  GenerationContext& context_;
  const GenerationPlan plan_;
  const GenerationIdentity identity_;
  const Instant arrived_at_;
  const Instant deadline_;
  SerialMailbox<Message> mailbox_;

  // Owner: the mailbox.
  Reply reply_;
  std::vector<Choice> choices_;
  bool streaming_ = false;
  bool ended_ = false;  // The client has its answer, or is gone.
  bool first_token_seen_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_GENERATION_H_
