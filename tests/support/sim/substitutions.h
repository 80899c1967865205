#pragma once

#include "common/base/clock.h"
#include "common/base/entropy.h"
#include "common/base/fault.h"
#include "common/data/file_system.h"
#include "common/net/socket.h"
#include "common/sync/scheduler.h"
#include "tests/support/sim/disk.h"
#include "tests/support/sim/network.h"
#include "tests/support/sim/scheduler.h"

namespace thresher::sim {

// While it lives, production code on this thread has the simulated time, entropy, files, network
// and tasks, and these alone: nothing else of it is another than in production.
class Substitutions {
 public:
  struct With {
    Scheduler& scheduler;
    EntropySource& entropy;
    FaultObserver& observer;
    FileSystem& files;
    net::Transport& network;
  };
  explicit Substitutions(const With& with)
      : clock_(SubstituteClock(&with.scheduler)),
        entropy_(SubstituteEntropy(&with.entropy)),
        observer_(SubstituteFaultObserver(&with.observer)),
        scheduler_(sync::SubstituteScheduler(&with.scheduler)),
        files_(SubstituteFiles(&with.files)),
        network_(net::SubstituteTransport(&with.network)) {}
  ~Substitutions() {
    net::SubstituteTransport(network_);
    SubstituteFiles(files_);
    sync::SubstituteScheduler(scheduler_);
    SubstituteFaultObserver(observer_);
    SubstituteEntropy(entropy_);
    SubstituteClock(clock_);
  }
  Substitutions(const Substitutions&) = delete;
  Substitutions& operator=(const Substitutions&) = delete;

 private:
  const Clock* clock_;
  EntropySource* entropy_;
  FaultObserver* observer_;
  sync::Scheduler* scheduler_;
  FileSystem* files_;
  net::Transport* network_;
};

// Entropy that a seed gives.
class SeededEntropy : public EntropySource {
 public:
  explicit SeededEntropy(std::uint64_t seed) : random_(seed) {}
  std::uint64_t Next() override { return random_.Next(); }

 private:
  Random random_;
};

}  // namespace thresher::sim
