#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <thread>

namespace thresher {

// What happens when a thread's body throws: called once, on that thread, with a text that names
// the thread and the exception. Must not throw.
using FatalHandler = std::function<void(const std::string& failure)>;

// A std::jthread with a name (the first 15 bytes are what the system shows) whose body may not end
// the process by an exception: it is logged and handed to the fatal handler. Without a handler it
// is a failed check. The destructor asks the body to stop and joins. Move-only.
class NamedThread {
 public:
  using Body = std::function<void(std::stop_token)>;

  NamedThread() = default;
  NamedThread(std::string name, Body body, FatalHandler on_fatal = {});

  void RequestStop() { thread_.request_stop(); }
  // Blocks until the body has ended; nothing when there is none.
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  bool joinable() const { return thread_.joinable(); }

 private:
  std::jthread thread_;
};

}  // namespace thresher
