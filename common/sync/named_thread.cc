#include "common/sync/named_thread.h"

#include <pthread.h>

#include <exception>

#include "common/base/check.h"
#include "common/log/log.h"

namespace thresher {
namespace {

void Run(const std::string& name, const NamedThread::Body& body, const FatalHandler& on_fatal,
         std::stop_token stop) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  std::string failure;
  try {
    body(stop);
    return;
  } catch (const std::exception& error) {
    failure = "thread " + name + " ended by an exception: " + error.what();
  } catch (...) {
    failure = "thread " + name + " ended by an unknown exception";
  }
  LogError(failure);
  THRESHER_CHECK(on_fatal != nullptr, failure);
  on_fatal(failure);
}

}  // namespace

NamedThread::NamedThread(std::string name, Body body, FatalHandler on_fatal)
    : thread_([name = std::move(name), body = std::move(body), on_fatal = std::move(on_fatal)](
                  std::stop_token stop) { Run(name, body, on_fatal, std::move(stop)); }) {}

}  // namespace thresher
