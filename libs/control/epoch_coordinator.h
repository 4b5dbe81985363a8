#ifndef SWITCHYARD_LIBS_CONTROL_EPOCH_COORDINATOR_H_
#define SWITCHYARD_LIBS_CONTROL_EPOCH_COORDINATOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/placement/placement.h"

namespace switchyard {

struct CoordinatorOptions {
  ExpertShape shape;
  std::string model_digest;
  uint32_t shards_wanted = 1;    // Before the first placement.
  uint32_t replicas_wanted = 1;  // Of each expert, where memory allows.
  // How long a shard may be away before its experts are given to the others; a restarted process
  // is usually back sooner.
  Duration lost_grace = std::chrono::seconds(10);
};

// What a shard says of itself when it registers.
struct ShardRegistration {
  ShardInfo info;
  std::string model_digest;
  std::string numerics_id;
  ExpertShape shape;
  uint64_t expert_bytes = 0;
};

// What the shell does after an event.
struct CoordinatorActions {
  struct Command {
    ShardId shard;
    Incarnation incarnation;
    EpochId epoch;
    std::vector<uint32_t> experts;  // Flat indices, ascending.
    bool active = false;            // False: load these. True: the epoch is active, others may go.
  };

  std::vector<Command> commands;
  // Make this durable (compare-and-swap of the epoch object), then call OnCommitted.
  std::optional<Placement> commit;
};

// EpochCoordinator decides when a new placement is proposed, loaded, committed and activated
// (DESIGN §4: Proposed → Loading → Ready → Active, or Aborted before Active). Pure: events and
// `now` come in, actions go out. At most one epoch is before Active; epochs only grow.
//
// One owner (its shell holds a lock).
class EpochCoordinator {
 public:
  // `last_active` is what was committed before this process started, if anything.
  EpochCoordinator(CoordinatorOptions options, std::optional<Placement> last_active);

  // InvalidArgument when digest or shape differ from ours, FailedPrecondition for an older
  // incarnation of a known shard or another numerics id than the fleet's.
  absl::Status OnRegister(const ShardRegistration& registration, Instant now);

  // Ignored unless the incarnation is the registered one.
  void OnLost(ShardId shard, Incarnation incarnation, Instant now);

  // A shard's answer to a load command. A non-empty `error` aborts the epoch.
  struct Progress {
    ShardId shard;
    Incarnation incarnation;
    EpochId epoch;
    uint32_t loaded = 0;
    uint32_t total = 0;
    std::string error;
  };

  void OnProgress(const Progress& progress, Instant now);

  // The placement that was asked to be committed is durable.
  CoordinatorActions OnCommitted(EpochId epoch, Instant now);

  // It could not be made durable: the epoch is aborted and planned again a little later.
  void OnCommitFailed(EpochId epoch, const std::string& why, Instant now);

  // To call after each event and every few hundred milliseconds.
  CoordinatorActions Tick(Instant now);

  // Null before the first commit.
  std::shared_ptr<const Placement> active() const { return active_; }

  struct MemberState {
    ShardInfo info;
    std::string state;  // "registered", "loading", "ready", "lost"
    uint32_t loaded = 0;
    uint32_t total = 0;
  };

  struct Description {
    EpochId epoch;
    std::string phase;  // What it does or waits for, for people.
    std::vector<MemberState> members;
    uint32_t replicas_min = 0;
  };

  Description Describe() const;

 private:
  struct Member {
    ShardRegistration registration;
    bool connected = false;
    Instant changed_at;  // Of `connected`.
    EpochId commanded;   // Newest load command sent to this incarnation.
    EpochId ready;       // Newest epoch it has loaded completely.
    uint32_t loaded = 0;
    uint32_t total = 0;
  };

  std::vector<ShardInfo> ConnectedShards() const;
  bool MayPlan(Instant now) const;
  bool ActiveCovers(const std::vector<ShardInfo>& shards) const;
  void Propose(const std::vector<ShardInfo>& shards, Instant now);
  void Abort(const std::string& why, Instant now);
  void CommandLoads(const Placement& placement, CoordinatorActions& actions);
  bool PendingIsReady() const;

  const CoordinatorOptions options_;
  std::map<ShardId, Member> members_;
  std::string numerics_id_;
  std::shared_ptr<const Placement> active_;
  std::optional<Placement> pending_;
  bool pending_commit_asked_ = false;
  EpochId newest_;  // Highest epoch number ever used here.
  std::string phase_ = "waiting for shards";
  Instant retry_at_;  // After an abort or a failed plan.
};

// Flat indices of the experts that `placement` gives `shard`, ascending.
std::vector<uint32_t> ExpertsOfShard(const Placement& placement, ShardId shard);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_EPOCH_COORDINATOR_H_
