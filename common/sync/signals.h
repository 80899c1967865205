#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>
#include <memory>

#include "common/base/clock.h"
#include "common/sync/named_thread.h"

namespace thresher {

// Receives signals on a thread, where a handler may do anything. The constructor blocks them in
// the calling thread, and so in every thread started later: construct it first in main. One at a
// time. The destructor stops the thread and restores the signal mask of its own thread.
class SignalWatcher {
 public:
  using Handler = std::function<void(int signal)>;

  explicit SignalWatcher(Handler handler,
                         std::initializer_list<int> signals = {SIGINT, SIGTERM, SIGUSR1});
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  void Loop(const Handler& handler);

  sigset_t before_{};
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  NamedThread thread_;
};

// A child process inherits the blocked mask: call this between fork and exec so that it can be
// interrupted like any other. Async-signal-safe.
void UnblockAllSignals();

}  // namespace thresher
