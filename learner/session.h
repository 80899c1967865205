#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/net/inbox.h"
#include "common/net/peer_link.h"
#include "common/wire/messages.h"

namespace thresher::learner {

// The bytes of one gradient leaf, all parts together.
struct LeafBytes {
  Hash128 batch_digest;
  std::uint64_t batch_trajectories = 0;
  std::uint64_t batch_loss_tokens = 0;
  std::vector<SharedBytes> records;  // encoded trajectories, canonical order
};

// A learner rank's conversation with the broker, as calls of the rank's main thread. Those that
// block repeat their request until it is answered, across broker restarts, and return kCancelled
// when the broker asked for a shutdown meanwhile, the link's failure when it is over. Prefetch and
// PostCommit do not: what they ask for comes while the rank computes.
class Session {
 public:
  struct Options {
    net::PeerLinkOptions link;
    wire::Hello hello;
  };
  explicit Session(Options options);
  ~Session();

  // Blocks until the first Welcome.
  Result<wire::Welcome> Join();
  // The hellos of all ranks of `job`, in rank order; `mine` is this rank's. Blocks until every rank
  // has called it, or to `deadline` (kDeadlineExceeded). After Join.
  Result<std::vector<std::string>> Meet(const std::string& job, const std::string& mine,
                                        std::chrono::milliseconds deadline);
  // Asks for leaves [begin, begin + count) of a step, for the Fetch calls to come. Their answers
  // are kept, so count bounds memory. What was asked for of another step is forgotten.
  Status Prefetch(std::uint32_t lineage, std::uint32_t step, std::uint32_t begin,
                  std::uint32_t count);
  Result<LeafBytes> Fetch(std::uint32_t lineage, std::uint32_t step, std::uint32_t leaf);
  // Reports a step. Blocks until the one reported before is committed.
  Status PostCommit(const wire::StepDone& done);
  // Blocks until every reported step is committed.
  Status AwaitCommit();
  // Lets the broker pull `blob` in chunks; returns when it has it whole and durable. Error:
  // kAborted when the broker refuses it (its hash differs from the version's recorded one).
  Status PublishWeights(const wire::WeightsManifest& manifest, std::string blob);
  // Returns the steps whose checkpoints are not to be deleted now.
  Result<std::vector<std::uint32_t>> ReportCheckpoint(const wire::CheckpointDone& done);
  // Blocks until the broker says Shutdown.
  Result<wire::Shutdown> AwaitShutdown();
  // The Shutdown seen so far; null when none.
  const wire::Shutdown* shutdown() const { return shutdown_.get(); }
  // Handles messages until `done` says so, asking every few milliseconds. Errors: kCancelled;
  // kDeadlineExceeded with `what`, which was waited for.
  Status WaitFor(const std::string& what, const std::function<bool()>& done,
                 std::chrono::milliseconds deadline);
  // Handles messages until `time`, a Shutdown among them.
  Status HandleUntil(TimePoint time);
  // Called by the rank's main thread now and then while it waits in a call of this class.
  void WhileWaiting(std::function<void()> idle) { idle_ = std::move(idle); }
  // Says Goodbye.
  void Leave(const std::string& reason);

  // What the heartbeats carry; thread-safe.
  void Progress(std::uint64_t steps, std::uint32_t longest_step_ms);
  void CheckpointWaits(const std::string& why);  // empty: no longer

 private:
  // The oldest message; null when nothing came within `timeout`.
  Result<std::unique_ptr<wire::Message>> Next(std::chrono::milliseconds timeout);
  struct AskOptions {
    bool stop_on_shutdown = false;     // a Shutdown ends it with kCancelled
    bool posted = false;               // the request is on its way already
    std::optional<TimePoint> until{};  // kDeadlineExceeded then
  };
  // Posts `request` and again whenever it may have been lost, until `accept` takes a message.
  template <typename Accept>
  Status Ask(const wire::Message& request, AskOptions options, Accept accept);
  // A message that no call waits for: kept where a call to come asked for it.
  void Keep(wire::Message message);
  // One that answers nothing that is waited for.
  void Note(wire::Message message);
  // The broker may never have seen what is on its way.
  void NoteWelcome();
  Status FetchPart(std::uint32_t lineage, std::uint32_t step, std::uint32_t leaf,
                   std::uint32_t part, wire::LeafPart& out);
  void ServeChunk(const wire::ChunkGet& get);

  Options options_;
  net::Inbox inbox_;
  std::mutex mutex_;  // guards the three after it
  std::uint64_t progress_ = 0;
  std::uint32_t longest_step_ms_ = 0;
  std::string waiting_;

  // A leaf that was asked for ahead; its answer may have come.
  struct Early {
    std::uint64_t request = 0;
    bool posted = true;  // and not lost since, as far as is known
    std::optional<wire::LeafPart> answer;
  };

  std::uint64_t next_request_ = 1;
  std::uint32_t early_lineage_ = 0, early_step_ = 0;
  std::map<std::uint32_t, Early> early_;    // by leaf
  std::optional<wire::StepDone> reported_;  // not known to be committed
  std::unique_ptr<wire::Shutdown> shutdown_;
  std::function<void()> idle_;
  wire::WeightsManifest publishing_;
  std::string publishing_blob_;
  std::unique_ptr<net::PeerLink> link_;  // last: its thread uses the members above
};

}  // namespace thresher::learner
