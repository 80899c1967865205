#pragma once

#include <cstddef>
#include <memory>

// A stack of execution of its own: a function that can be left in its middle and gone on with.
namespace test_support {

class Fiber {
 public:
  // The stack is backed by memory as it is used; a multiple of the page size.
  explicit Fiber(std::size_t stack_bytes = 128 << 10);
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

}  // namespace test_support
