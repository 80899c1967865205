#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/comm/flight_recorder.h"
#include "common/comm/rank_place.h"
#include "common/sync/condition.h"
#include "common/sync/named_thread.h"

namespace thresher::comm {

struct WatchdogOptions {
  std::filesystem::path folder;  // that all ranks share; made where it is missing
  LearnerRank rank;
  std::uint32_t size = 1;
  std::string job;                     // equal on all ranks, another one for each start
  std::chrono::milliseconds deadline;  // of an operation, as the communicator's
  // An operation that is still not over so long after its deadline is stuck in a library's call.
  std::chrono::milliseconds grace = std::chrono::seconds(10);
  // Then, on the watchdog's thread. Empty: the process ends with exit code 3.
  std::function<void(const std::string& why)> on_stuck{};
};

// Says why a collective failed. Beside the rank's thread, and past whatever its library hangs in,
// it writes where the rank is (`folder`/place_RANK.json) a few times within a deadline, and reads
// where the others are once an operation takes long. When one fails, its error gets who is behind,
// in another operation, stopped or dead, and `folder`/flight_RANK.json the newest operations and
// the others' places. A disk that refuses costs the report, not the training.
class Watchdog {
 public:
  // Errors: the folder's and those of the first file, but for a full disk.
  static Result<std::unique_ptr<Watchdog>> Start(std::shared_ptr<FlightRecorder> recorder,
                                                 WatchdogOptions options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct Peer {
    PeerPlace seen;
    TimePoint heard{};  // when its beat was seen to grow, or was first looked for
  };

  Watchdog(std::shared_ptr<FlightRecorder> recorder, WatchdogOptions options);
  void Loop(const std::stop_token& stop);
  void Look();
  Status WritePlace();
  RankPlace MyPlace() const;
  // Of all other ranks, as their files are now.
  std::vector<PeerPlace> LookAtPeers();
  Status Explain(const Status& failed);
  void WriteReport(const std::string& error, const std::vector<PeerPlace>& peers);

  const std::shared_ptr<FlightRecorder> recorder_;
  const WatchdogOptions options_;
  const Duration tick_;
  std::uint64_t beat_ = 0;  // of the thread, once it runs
  std::mutex mutex_;        // guards the three below
  std::vector<Peer> peers_;
  bool watching_ = false;  // the peers, of an operation that takes long
  sync::Condition stopped_;
  NamedThread thread_;  // last: it uses the members above
};

}  // namespace thresher::comm
