#include "common/sync/signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/check.h"

namespace thresher {

SignalWatcher::SignalWatcher(Handler handler, std::initializer_list<int> signals) {
  sigset_t set;
  ::sigemptyset(&set);
  for (int signal : signals) ::sigaddset(&set, signal);
  THRESHER_CHECK(::pthread_sigmask(SIG_BLOCK, &set, &before_) == 0, "signal mask");
  signal_fd_ = ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  stop_fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  THRESHER_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0, "signalfd");
  thread_ = NamedThread("signals",
                        [this, handler = std::move(handler)](std::stop_token) { Loop(handler); });
}

SignalWatcher::~SignalWatcher() {
  std::uint64_t one = 1;
  THRESHER_CHECK(::write(stop_fd_, &one, sizeof one) == sizeof one, "eventfd");
  thread_.Join();
  ::close(signal_fd_);
  ::close(stop_fd_);
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void SignalWatcher::Loop(const Handler& handler) {
  pollfd items[] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  while (true) {
    int ready = ::poll(items, 2, -1);
    THRESHER_CHECK(ready > 0 || errno == EINTR, "poll");
    if (ready > 0 && (items[1].revents & POLLIN)) return;
    signalfd_siginfo info{};
    while (::read(signal_fd_, &info, sizeof info) == sizeof info) {
      handler(static_cast<int>(info.ssi_signo));
    }
  }
}

void UnblockAllSignals() {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace thresher
