#pragma once

#include <cstddef>
#include <memory>

// A stack of execution of its own: a function that can be left in its middle and gone on with.
namespace cuda_sim {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes it ready to run `body(argument)` from its beginning. Not while it is in the middle.
  void Reset(void (*body)(void*), void* argument);
  // Runs it until it leaves or ends; true: it has ended.
  bool Resume();
  // Called from inside: goes back to who resumed it.
  void Leave();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cuda_sim
