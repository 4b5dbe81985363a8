#include "services/gateway/generation.h"

#include <algorithm>
#include <utility>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/frontend/router_picker.h"

namespace switchyard {
namespace {

constexpr int kAttemptsMax = 3;  // Routers tried for one choice.
constexpr int kClientClosed = 499;

SessionToken ToSessionToken(const v1::TokenOutput& proto) {
  SessionToken token{.token = proto.token(), .logprob = proto.logprob(), .top = {}};
  token.top.reserve(static_cast<size_t>(proto.top_size()));
  for (const v1::TokenLogprob& top : proto.top()) {
    token.top.emplace_back(top.token(), top.logprob());
  }
  return token;
}

void Append(Session::Delta&& from, Session::Delta* to) {
  to->text += from.text;
  for (PositionLogprobs& position : from.logprobs) {
    to->logprobs.push_back(std::move(position));
  }
  if (from.finish != ChoiceFinish::kNone) {
    to->finish = from.finish;
  }
}

}  // namespace

// Posts what one call says into the mailbox.
class Generation::ChoiceSink final : public GenerateSink {
 public:
  ChoiceSink(std::shared_ptr<Generation> generation, size_t choice)
      : generation_(std::move(generation)), choice_(choice) {}

  void OnEvent(v1::GenerateEvent event) override {
    generation_->Post(
        {.kind = Message::Kind::kEvent, .choice = choice_, .event = std::move(event)});
  }

  void OnDone(absl::Status status) override {
    generation_->Post(
        {.kind = Message::Kind::kDone, .choice = choice_, .status = std::move(status)});
  }

 private:
  const std::shared_ptr<Generation> generation_;
  const size_t choice_;
};

Generation::Generation(GenerationContext& context, GenerationPlan plan, GenerationIdentity identity,
                       Admission::Ticket ticket, Reply reply)
    : ticket_(std::move(ticket)),
      context_(context),
      plan_(std::move(plan)),
      identity_(std::move(identity)),
      arrived_at_(context.clock.Now()),
      deadline_(arrived_at_ + context.request_timeout),
      reply_(std::move(reply)) {
  choices_.reserve(plan_.choice_count());
  for (size_t i = 0; i < plan_.choice_count(); ++i) {
    choices_.emplace_back(Session(context_.tokenizer, plan_.session));
  }
  context_.metrics.requests_running.Add(static_cast<double>(choices_.size()));
}

Generation::~Generation() {
  context_.metrics.requests_running.Add(-static_cast<double>(choices_.size()));
}

void Generation::Start() { Post({.kind = Message::Kind::kBegin}); }

void Generation::Post(Message message) {
  mailbox_.Post(std::move(message), [this](Message next) { Handle(std::move(next)); });
}

void Generation::Handle(Message message) {
  switch (message.kind) {
    case Message::Kind::kBegin:
      Begin();
      return;
    case Message::Kind::kClientGone:
      if (!ended_) {
        context_.metrics.cancelled.Add();
        End(kClientClosed);
      }
      return;
    case Message::Kind::kEvent: {
      Choice& choice = choices_[message.choice];
      OnEvent(choice, message.choice, message.event);
      choice.call->Next();
      return;
    }
    case Message::Kind::kDone:
      OnDone(choices_[message.choice], message.choice, message.status);
      return;
  }
}

void Generation::Begin() {
  reply_.writer().OnClosed([weak = weak_from_this()] {
    if (const auto self = weak.lock(); self != nullptr) {
      self->Post({.kind = Message::Kind::kClientGone});
    }
  });
  for (const PlannedPrompt& prompt : plan_.prompts) {
    context_.metrics.prompt_tokens.Add(static_cast<double>(prompt.tokens.size()));
  }
  for (size_t i = 0; i < choices_.size() && !ended_; ++i) {
    CallRouter(i, std::nullopt);
  }
}

void Generation::CallRouter(size_t index, std::optional<size_t> excluded) {
  Choice& choice = choices_[index];
  const PlannedPrompt& prompt = PromptOf(index);
  const std::optional<size_t> router =
      context_.routers.Pick(AffinityKey(prompt.tokens, plan_.call.cache_salt()), excluded);
  const Duration left = deadline_ - context_.clock.Now();
  if (!router.has_value() || left <= Duration::zero()) {
    Fail(router.has_value() ? DeadlineExceeded("the request took too long")
                            : Unavailable("no router is ready"));
    return;
  }
  v1::GenerateRequest request = plan_.call;
  request.set_request_id(reply_.request_id());
  request.set_tenant(identity_.tenant);
  request.set_traceparent(identity_.traceparent);
  request.mutable_prompt_tokens()->Assign(prompt.tokens.begin(), prompt.tokens.end());
  const std::span<const uint32_t> resumed = choice.session.resume().tokens();
  request.mutable_resumed_tokens()->Assign(resumed.begin(), resumed.end());
  request.set_prompt_logprobs(plan_.call.prompt_logprobs() && resumed.empty());
  request.mutable_sampling()->set_choice_index(static_cast<uint32_t>(index % plan_.n));
  const auto room = static_cast<int64_t>(context_.routers.context_tokens_max()) -
                    static_cast<int64_t>(prompt.tokens.size());
  request.set_max_tokens(
      static_cast<uint32_t>(std::max<int64_t>(1, plan_.max_tokens < 0 ? room : plan_.max_tokens)));
  choice.prompt_scores.clear();
  choice.router = *router;
  ++choice.attempts;
  context_.routers.OnCallStarted(*router);
  choice.call = context_.routers.client(*router).Generate(
      std::move(request), std::make_shared<ChoiceSink>(shared_from_this(), index), left);
}

void Generation::OnEvent(Choice& choice, size_t index, const v1::GenerateEvent& event) {
  if (ended_ || choice.ended) {
    return;
  }
  for (const v1::TokenOutput& score : event.prompt()) {
    choice.prompt_scores.push_back(ToSessionToken(score));
  }
  if (event.tokens().empty() && !event.has_finish()) {
    return;
  }
  choice.cached_tokens = std::max<int64_t>(
      {choice.cached_tokens, event.cached_prompt_tokens(), event.finish().cached_prompt_tokens()});
  Session::Delta delta;
  if (plan_.drops_tokens) {
    delta = choice.session.OnFinish(ChoiceFinish::kLength);
  } else {
    OnTokens(choice, event, &delta);
  }
  if (event.has_finish()) {
    context_.metrics.queue_seconds.Observe(event.finish().queue_seconds());
  }
  choice.ended = choice.session.finished();
  Emit(choice, index, std::move(delta));
  if (choice.ended) {
    if (!event.has_finish()) {
      choice.call->Cancel();
    }
    CompleteIfAllEnded();
  }
}

void Generation::OnTokens(Choice& choice, const v1::GenerateEvent& event, Session::Delta* delta) {
  std::vector<SessionToken> tokens;
  for (const v1::TokenOutput& token : event.tokens()) {
    tokens.push_back(ToSessionToken(token));
  }
  if (!tokens.empty()) {
    const Instant now = context_.clock.Now();
    if (choice.last_token_at.has_value()) {
      context_.metrics.inter_token_latency_seconds.Observe(ToSeconds(now - *choice.last_token_at) /
                                                           static_cast<double>(tokens.size()));
    }
    if (!std::exchange(first_token_seen_, true)) {
      context_.metrics.time_to_first_token_seconds.Observe(ToSeconds(now - arrived_at_));
    }
    choice.last_token_at = now;
    context_.metrics.generation_tokens.Add(static_cast<double>(tokens.size()));
  }
  *delta = choice.session.OnTokens(tokens);
  if (event.has_finish()) {
    Append(choice.session.OnFinish(event.finish().reason() == v1::Finish::REASON_STOP
                                       ? ChoiceFinish::kStop
                                       : ChoiceFinish::kLength),
           delta);
  }
}

void Generation::OnDone(Choice& choice, size_t index, const absl::Status& status) {
  choice.call.reset();
  context_.routers.OnCallEnded(choice.router, status);
  if (ended_ || choice.ended || Resume(choice, index, status)) {
    return;
  }
  Fail(status.ok() ? Internal("the router ended a stream without a finish") : status);
}

// True when the choice goes on at another router.
bool Generation::Resume(Choice& choice, size_t index, const absl::Status& status) {
  const bool lost = absl::IsUnavailable(status) || absl::IsCancelled(status);
  const std::optional<size_t> other = lost && choice.attempts < kAttemptsMax
                                          ? context_.routers.Pick(0, choice.router)
                                          : std::nullopt;
  if (!other.has_value()) {
    return false;
  }
  if (choice.session.token_count() > 0) {
    context_.metrics.resumed.Add();
  }
  CallRouter(index, choice.router);
  return true;
}

void Generation::PrependEcho(Choice& choice, size_t index, Session::Delta* delta) {
  if (choice.started || !plan_.echo) {
    return;
  }
  const PlannedPrompt& prompt = PromptOf(index);
  Session::Delta echo{.text = prompt.echo_text, .logprobs = {}};
  if (plan_.session.wants_logprobs) {
    echo.logprobs = choice.session.PromptLogprobs(prompt.tokens, choice.prompt_scores);
  }
  Append(std::move(*delta), &echo);
  *delta = std::move(echo);
}

void Generation::Emit(Choice& choice, size_t index, Session::Delta delta) {
  PrependEcho(choice, index, &delta);
  if (delta.finish != ChoiceFinish::kNone) {
    context_.metrics.CountFinish(std::string(NameOf(delta.finish)));
  }
  if (!plan_.stream) {
    choice.started = true;
    Append(std::move(delta), &choice.whole);
  } else if (!choice.started || !delta.empty()) {
    EmitChunk(choice, index, delta);
  }
}

void Generation::EmitChunk(Choice& choice, size_t index, const Session::Delta& delta) {
  ChoiceText chunk{.index = static_cast<int64_t>(index),
                   .text = delta.text,
                   .finish = delta.finish,
                   .logprobs = std::nullopt,
                   .text_offset = choice.text_offset};
  if (plan_.session.wants_logprobs) {
    chunk.logprobs = delta.logprobs;
    for (const PositionLogprobs& position : delta.logprobs) {
      choice.text_offset += CharacterCount(position.token.bytes);
    }
  }
  const Usage usage = UsageNow();
  const Usage* const shown = plan_.continuous_usage ? &usage : nullptr;
  const std::string json = plan_.chat ? ChatChunkJson(Head(), chunk, !choice.started, shown)
                                      : TextChunkJson(Head(), chunk, shown);
  choice.started = true;
  static_cast<void>(WriteEvent(SseData(json)));
}

// False when the client cannot take it; the request is then over.
bool Generation::WriteEvent(std::string_view event) {
  if (ended_) {
    return false;
  }
  if (!std::exchange(streaming_, true)) {
    context_.metrics.streams_open.Add(1);
    reply_.StartEvents();
  }
  if (reply_.writer().Write(event)) {
    return true;
  }
  reply_.writer().Abort();
  context_.metrics.cancelled.Add();
  End(kClientClosed);
  return false;
}

void Generation::CompleteIfAllEnded() {
  if (!ended_ && std::ranges::all_of(choices_, [](const Choice& each) { return each.ended; })) {
    Complete();
  }
}

void Generation::Complete() {
  if (plan_.stream) {
    if (plan_.include_usage &&
        !WriteEvent(SseData(plan_.chat ? ChatUsageChunkJson(Head(), UsageNow())
                                       : TextUsageChunkJson(Head(), UsageNow())))) {
      return;
    }
    if (!WriteEvent(kSseDone)) {
      return;
    }
    reply_.writer().Finish();
    End(200);
    return;
  }
  std::vector<ChoiceText> texts;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Session::Delta& whole = choices_[i].whole;
    ChoiceText text{.index = static_cast<int64_t>(i), .text = whole.text, .finish = whole.finish};
    if (plan_.session.wants_logprobs) {
      text.logprobs = whole.logprobs;
    }
    texts.push_back(text);
  }
  reply_.Json(200, plan_.chat ? ChatCompletionJson(Head(), texts, UsageNow())
                              : TextCompletionJson(Head(), texts, UsageNow()));
  End(0);
}

void Generation::Fail(const absl::Status& status) {
  if (ended_) {
    return;
  }
  ApiError error = ApiErrorFromStatus(status);
  if (error.http_status >= 500) {
    SY_LOG_WARNING("request failed request={} code={} error=\"{}\"", reply_.request_id(),
                   error.http_status, MessageOf(status));
    // Messages of transports name our addresses.
    error.message =
        fmt::format("the request failed ({}); request {}", error.code, reply_.request_id());
  }
  if (!streaming_) {
    reply_.Error(error);
    End(0);
    return;
  }
  static_cast<void>(reply_.writer().Write(SseError(error)));
  reply_.writer().Finish();
  End(error.http_status);
}

// The client has all it gets; `code` is 0 when the reply counted itself.
void Generation::End(int code) {
  ended_ = true;
  if (code != 0) {
    reply_.CountEnd(code);
  }
  if (streaming_) {
    context_.metrics.streams_open.Add(-1);
  }
  context_.metrics.cached_prompt_tokens.Add(static_cast<double>(CachedTokens()));
  context_.metrics.request_duration_seconds.Observe(ToSeconds(context_.clock.Now() - arrived_at_));
  CancelCalls();
}

void Generation::CancelCalls() {
  for (Choice& choice : choices_) {
    if (choice.call != nullptr && !choice.ended) {
      choice.call->Cancel();
    }
  }
}

// Each prompt counts once, as it does in prompt_tokens, however many choices it has.
int64_t Generation::CachedTokens() const {
  int64_t total = 0;
  for (size_t first = 0; first < choices_.size(); first += plan_.n) {
    int64_t of_prompt = 0;
    for (size_t i = first; i < first + plan_.n; ++i) {
      of_prompt = std::max(of_prompt, choices_[i].cached_tokens);
    }
    total += of_prompt;
  }
  return total;
}

Usage Generation::UsageNow() const {
  Usage usage;
  for (const PlannedPrompt& prompt : plan_.prompts) {
    usage.prompt_tokens += static_cast<int64_t>(prompt.tokens.size());
  }
  for (const Choice& choice : choices_) {
    usage.completion_tokens += static_cast<int64_t>(choice.session.token_count());
  }
  usage.cached_tokens = CachedTokens();
  return usage;
}

ResponseHead Generation::Head() const {
  return {.id = identity_.id, .created_s = identity_.created_s, .model = context_.model_name};
}

}  // namespace switchyard
