#include "loadtest/load_runner.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <string_view>
#include <utility>

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#include "libs/base/clock.h"
#include "libs/base/status.h"
#include "loadtest/response_reader.h"
#include "loadtest/stream_socket.h"

namespace switchyard {
namespace {

constexpr uint32_t kNoUser = UINT32_MAX;
constexpr size_t kReceiveBytes = 256 << 10;
// Requests begun before the sockets are looked at again, so that a burst of arrivals does not
// falsify the times of the tokens that come meanwhile.
constexpr int kStartsPerTurn = 64;
// A user whose request failed waits so long: a dead server is not hammered.
constexpr double kBackoffS = 0.1;
// What an event belongs to when it is no connection.
constexpr uint64_t kTimerTag = UINT64_MAX;
constexpr uint64_t kStopTag = UINT64_MAX - 1;

double CpuSeconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

class LoadRunner::Loop {
 public:
  Loop(RunnerOptions options, Workload& workload)
      : options_(std::move(options)), workload_(workload), buffer_(kReceiveBytes) {}

  absl::StatusOr<RunResult> Run();

 private:
  enum class State : uint8_t { kFree, kConnecting, kSending, kReading, kIdle };

  // A connection and the request that it carries.
  struct Slot {
    StreamSocket socket;
    State state = State::kFree;
    uint32_t generation = 0;  // Counts connections, so that events of a closed one are known.
    uint64_t request = 0;     // Counts requests, so that timeouts of an ended one are known.
    uint32_t user = kNoUser;
    bool reused = false;  // The connection had carried another request before.
    std::string out;
    size_t sent = 0;
    RequestRecord record;
    std::unique_ptr<ResponseReader> reader;  // Null when no request is under way.
  };

  struct Timeout {
    double at_s;
    uint32_t slot;
    uint64_t request;
  };

  struct WaitingUser {
    double at_s;
    uint32_t user;
  };

  double Now() const { return ToSeconds(clock_.Now() - begin_); }

  absl::Status Prepare();
  void Watch(int operation, uint32_t index, uint32_t events);
  void ArmTimer();
  std::optional<double> NextArrival();
  bool Finished();
  void OnEvent(const epoll_event& event);

  void StartDue();
  void Start(const RequestSpec& spec, double due_s, uint32_t user);
  uint32_t TakeSlot();
  void FillRequest(Slot* slot, const RequestSpec& spec);
  void Connect(uint32_t index);
  void Send(uint32_t index);
  void Receive(uint32_t index);
  void OnConnectionEnd(uint32_t index, bool orderly);
  void Finish(uint32_t index, Outcome outcome);
  void CloseSlot(uint32_t index);
  void ExpireTimeouts();
  void EndAll(Outcome outcome);
  SecondRow& RowNow();
  void ReportProgress();

  const RunnerOptions options_;
  Workload& workload_;
  const SteadyClock clock_;
  Instant begin_;
  Descriptor epoll_;
  Descriptor timer_;
  EventParser parser_;
  std::vector<char> buffer_;
  std::deque<Slot> slots_;  // A deque: readers point into their slot.
  std::vector<uint32_t> free_;
  std::vector<uint32_t> idle_;    // May name slots that are idle no more.
  std::deque<Timeout> timeouts_;  // Ascending, as all requests get the same time.
  std::deque<WaitingUser> ready_users_;
  std::deque<WaitingUser> backoff_users_;  // Ascending.
  RunProgress progress_;
  uint32_t users_begun_ = 0;
  double next_progress_s_ = 0.0;
  double armed_s_ = -1.0;
  bool stopping_ = false;
  RunResult result_;
};

absl::StatusOr<RunResult> LoadRunner::Loop::Run() {
  SY_RETURN_IF_ERROR(Prepare());
  rusage before{};
  rusage after{};
  ::getrusage(RUSAGE_SELF, &before);
  begin_ = clock_.Now();
  std::array<epoll_event, 256> events{};
  StartDue();
  while (!Finished()) {
    ArmTimer();
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      OnEvent(events.at(static_cast<size_t>(i)));
    }
    if (count < 0 && errno != EINTR) {
      return Internal("epoll_wait: {}", std::strerror(errno));
    }
    StartDue();
    ExpireTimeouts();
    ReportProgress();
  }
  ::getrusage(RUSAGE_SELF, &after);
  result_.duration_s = 0.0;
  for (const RequestRecord& record : result_.records) {
    result_.duration_s = std::max(result_.duration_s, record.end_s);
  }
  result_.cpu_user_s = CpuSeconds(after.ru_utime) - CpuSeconds(before.ru_utime);
  result_.cpu_system_s = CpuSeconds(after.ru_stime) - CpuSeconds(before.ru_stime);
  return std::move(result_);
}

absl::Status LoadRunner::Loop::Prepare() {
  epoll_ = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
  timer_ = Descriptor(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (epoll_.get() < 0 || timer_.get() < 0) {
    return Unavailable("no epoll set or timer: {}", std::strerror(errno));
  }
  epoll_event timer{.events = EPOLLIN | EPOLLET, .data = {.u64 = kTimerTag}};
  epoll_event stop{.events = EPOLLIN, .data = {.u64 = kStopTag}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), &timer) != 0 ||
      (options_.stop_fd >= 0 &&
       ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, options_.stop_fd, &stop) != 0)) {
    return Unavailable("cannot watch timer or stop: {}", std::strerror(errno));
  }
  next_progress_s_ = options_.progress_s;
  return absl::OkStatus();
}

void LoadRunner::Loop::Watch(int operation, uint32_t index, uint32_t events) {
  const Slot& slot = slots_[index];
  epoll_event event{.events = events, .data = {.u64 = (uint64_t{slot.generation} << 32) | index}};
  ::epoll_ctl(epoll_.get(), operation, slot.socket.fd(), &event);
}

// Arrivals that may still come, by the duration and by what was decided.
std::optional<double> LoadRunner::Loop::NextArrival() {
  const std::optional<double> due = workload_.NextDue();
  if (stopping_ || !due || (options_.duration_s > 0.0 && *due >= options_.duration_s)) {
    return std::nullopt;
  }
  return due;
}

void LoadRunner::Loop::ArmTimer() {
  double next_s = std::min(options_.limit_s, next_progress_s_);
  next_s = std::min(next_s, NextArrival().value_or(next_s));
  if (!timeouts_.empty()) {
    next_s = std::min(next_s, timeouts_.front().at_s);
  }
  if (!backoff_users_.empty()) {
    next_s = std::min(next_s, backoff_users_.front().at_s);
  }
  if (!ready_users_.empty()) {
    next_s = 0.0;
  }
  if (next_s == armed_s_ && next_s > Now()) {
    return;
  }
  armed_s_ = next_s;
  const Duration at = begin_.time_since_epoch() +
                      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(next_s));
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(at.count() / 1'000'000'000);
  spec.it_value.tv_nsec = static_cast<long>(at.count() % 1'000'000'000);
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

bool LoadRunner::Loop::Finished() {
  if (!stopping_ && Now() >= options_.limit_s) {
    result_.limit_reached = true;
    EndAll(Outcome::kCutOff);
  }
  return progress_.in_flight == 0 && ready_users_.empty() && backoff_users_.empty() &&
         !NextArrival();
}

void LoadRunner::Loop::OnEvent(const epoll_event& event) {
  if (event.data.u64 == kTimerTag) {
    return;  // Edge-triggered, and what is due is looked at after each wait.
  }
  if (event.data.u64 == kStopTag) {
    if (!stopping_) {
      result_.interrupted = true;
      EndAll(Outcome::kInterrupted);
    }
    return;
  }
  const uint32_t index = static_cast<uint32_t>(event.data.u64);
  if (slots_[index].generation != static_cast<uint32_t>(event.data.u64 >> 32)) {
    return;  // Of a connection that was closed by an earlier event of this batch.
  }
  switch (slots_[index].state) {
    case State::kFree:
      return;
    case State::kIdle:
      CloseSlot(index);  // The server closed it, or sent what nobody asked for.
      return;
    case State::kConnecting:
      if (!slots_[index].socket.IsConnected()) {
        Finish(index, Outcome::kConnect);
        return;
      }
      slots_[index].state = State::kSending;
      Send(index);
      return;
    case State::kSending:
      if ((event.events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
        Receive(index);  // An answer before all was sent is one, too.
      } else {
        Send(index);
      }
      return;
    case State::kReading:
      Receive(index);
      return;
  }
}

void LoadRunner::Loop::StartDue() {
  for (int i = 0; i < kStartsPerTurn; ++i) {
    const double now_s = Now();
    const std::optional<double> due = NextArrival();
    if (due && *due <= now_s) {
      const uint32_t user = workload_.is_closed_loop() ? users_begun_++ : kNoUser;
      Start(workload_.Take(), *due, user);
      continue;
    }
    while (!backoff_users_.empty() && backoff_users_.front().at_s <= now_s) {
      ready_users_.push_back({.at_s = now_s, .user = backoff_users_.front().user});
      backoff_users_.pop_front();
    }
    if (ready_users_.empty()) {
      return;
    }
    const WaitingUser next = ready_users_.front();
    ready_users_.pop_front();
    const std::optional<RequestSpec> spec = workload_.TakeForUser(next.user);
    if (spec) {
      Start(*spec, next.at_s, next.user);
    }
  }
}

void LoadRunner::Loop::Start(const RequestSpec& spec, double due_s, uint32_t user) {
  const double now_s = Now();
  SecondRow& row = RowNow();
  ++row.started;
  ++progress_.started;
  ++progress_.in_flight;
  row.in_flight = std::max(row.in_flight, progress_.in_flight);
  result_.in_flight_max = std::max(result_.in_flight_max, progress_.in_flight);

  const uint32_t index = TakeSlot();
  Slot& slot = slots_[index];
  slot.user = user;
  slot.request = progress_.started;
  slot.record = RequestRecord{.start_s = due_s,
                              .lag_s = now_s - due_s,
                              .tenant = spec.tenant,
                              .prompt_tokens_asked = spec.prompt_tokens,
                              .output_tokens_asked = spec.output_tokens};
  slot.reader = std::make_unique<ResponseReader>(parser_, slot.record);
  if (progress_.in_flight > options_.connections_max) {
    Finish(index, Outcome::kClientLimit);
    return;
  }
  timeouts_.push_back({.at_s = now_s + options_.timeout_s, .slot = index, .request = slot.request});
  FillRequest(&slot, spec);
  if (slot.state == State::kIdle) {
    slot.reused = true;
    slot.state = State::kSending;
    Send(index);
  } else {
    Connect(index);
  }
}

// One that is connected if there is one, else one that is free.
uint32_t LoadRunner::Loop::TakeSlot() {
  while (!idle_.empty()) {
    const uint32_t index = idle_.back();
    idle_.pop_back();
    if (slots_[index].state == State::kIdle) {
      return index;
    }
  }
  if (free_.empty()) {
    slots_.emplace_back();
    return static_cast<uint32_t>(slots_.size() - 1);
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  return index;
}

void LoadRunner::Loop::FillRequest(Slot* slot, const RequestSpec& spec) {
  const Tenant& tenant = options_.tenants[spec.tenant];
  const std::string body = RequestBody(spec, options_.body, tenant.name);
  slot->out = options_.request_head;
  if (!tenant.api_key.empty()) {
    slot->out += fmt::format("Authorization: Bearer {}\r\n", tenant.api_key);
  }
  slot->out += fmt::format("Content-Length: {}\r\n\r\n", body.size());
  slot->out += body;
  slot->sent = 0;
}

void LoadRunner::Loop::Connect(uint32_t index) {
  Slot& slot = slots_[index];
  slot.reused = false;
  slot.state = State::kConnecting;
  ++result_.connections;
  if (!slot.socket.Connect(options_.address)) {
    Finish(index, Outcome::kConnect);
    return;
  }
  Watch(EPOLL_CTL_ADD, index, EPOLLOUT);
}

void LoadRunner::Loop::Send(uint32_t index) {
  Slot& slot = slots_[index];
  std::string_view rest = std::string_view(slot.out).substr(slot.sent);
  const StreamSocket::Io io = slot.socket.Send(&rest);
  slot.sent = slot.out.size() - rest.size();
  if (io == StreamSocket::Io::kBroken) {
    OnConnectionEnd(index, false);
  } else if (io == StreamSocket::Io::kWouldBlock) {
    Watch(EPOLL_CTL_MOD, index, EPOLLIN | EPOLLOUT);
  } else {
    slot.state = State::kReading;
    Watch(EPOLL_CTL_MOD, index, EPOLLIN);
  }
}

void LoadRunner::Loop::Receive(uint32_t index) {
  Slot& slot = slots_[index];
  while (true) {
    size_t received = 0;
    const StreamSocket::Io io = slot.socket.Receive(buffer_.data(), buffer_.size(), &received);
    if (io == StreamSocket::Io::kWouldBlock) {
      return;
    }
    if (io != StreamSocket::Io::kDone) {
      OnConnectionEnd(index, io == StreamSocket::Io::kClosed);
      return;
    }
    const uint32_t chunks = slot.reader->Feed({buffer_.data(), received}, Now());
    RowNow().chunks += chunks;
    progress_.chunks += chunks;
    if (slot.reader->done()) {
      Finish(index, slot.reader->Judge());
      return;
    }
    if (received < buffer_.size()) {
      return;  // More would wake us again: the set is level-triggered.
    }
  }
}

void LoadRunner::Loop::OnConnectionEnd(uint32_t index, bool orderly) {
  Slot& slot = slots_[index];
  if (slot.reused && !slot.reader->started()) {
    // The server had closed the idle connection; that is no failure of this request.
    slot.socket.Close();
    ++slot.generation;
    slot.sent = 0;
    Connect(index);
    return;
  }
  if (orderly) {
    slot.reader->OnClose();
  }
  Finish(index, slot.reader->Judge());
}

void LoadRunner::Loop::Finish(uint32_t index, Outcome outcome) {
  Slot& slot = slots_[index];
  if (slot.reader->finished_stream() && outcome != Outcome::kErrorEvent) {
    outcome = Outcome::kCompleted;
  }
  const double now_s = Now();
  const bool completed = outcome == Outcome::kCompleted;
  const bool reusable =
      options_.keep_alive && slot.state == State::kReading && slot.reader->reusable() && !stopping_;
  slot.record.outcome = outcome;
  slot.record.end_s = completed ? slot.reader->done_s() : now_s;
  slot.reader->Close();
  slot.reader.reset();
  result_.records.push_back(std::move(slot.record));
  --progress_.in_flight;
  ++(completed ? progress_.completed : progress_.failed);
  ++(completed ? RowNow().completed : RowNow().failed);
  const uint32_t user = slot.user;
  slot.user = kNoUser;
  slot.request = 0;
  slot.out = std::string();
  if (reusable) {
    slot.state = State::kIdle;
    idle_.push_back(index);
  } else {
    CloseSlot(index);
  }
  if (user == kNoUser || stopping_ || (options_.duration_s > 0.0 && now_s >= options_.duration_s)) {
    return;
  }
  if (completed) {
    ready_users_.push_back({.at_s = now_s, .user = user});
  } else {
    backoff_users_.push_back({.at_s = now_s + kBackoffS, .user = user});
  }
}

void LoadRunner::Loop::CloseSlot(uint32_t index) {
  Slot& slot = slots_[index];
  slot.socket.Close();
  slot.state = State::kFree;
  ++slot.generation;
  free_.push_back(index);
}

void LoadRunner::Loop::ExpireTimeouts() {
  const double now_s = Now();
  while (!timeouts_.empty()) {
    const Timeout& front = timeouts_.front();
    const bool ended = slots_[front.slot].request != front.request;
    if (!ended && front.at_s > now_s) {
      return;
    }
    if (!ended) {
      Finish(front.slot, Outcome::kTimeout);
    }
    timeouts_.pop_front();
  }
}

void LoadRunner::Loop::EndAll(Outcome outcome) {
  stopping_ = true;
  ready_users_.clear();
  backoff_users_.clear();
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    if (slots_[index].request != 0) {
      Finish(index, outcome);
    }
  }
}

SecondRow& LoadRunner::Loop::RowNow() {
  const auto second = static_cast<size_t>(Now());
  while (result_.seconds.size() <= second) {
    result_.seconds.push_back({.in_flight = progress_.in_flight});
  }
  return result_.seconds[second];
}

void LoadRunner::Loop::ReportProgress() {
  const double now_s = Now();
  if (now_s < next_progress_s_) {
    return;
  }
  next_progress_s_ +=
      options_.progress_s * (1.0 + std::floor((now_s - next_progress_s_) / options_.progress_s));
  if (options_.on_progress) {
    progress_.at_s = now_s;
    options_.on_progress(progress_);
  }
}

LoadRunner::LoadRunner(RunnerOptions options, Workload& workload)
    : loop_(std::make_unique<Loop>(std::move(options), workload)) {}

LoadRunner::~LoadRunner() = default;

absl::StatusOr<RunResult> LoadRunner::Run() { return loop_->Run(); }

}  // namespace switchyard
