#include "tests/support/fiber/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__has_feature)  // Clang's way to tell
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace test_support {
namespace {
constexpr std::size_t kGuardBytes = 4096;
}

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
// swapcontext asks the system for the signal mask each time; nothing here needs that.
extern "C" void FiberSwitch(void** leave, void* enter);
__asm__(R"(
.text
.globl FiberSwitch
.type FiberSwitch, @function
FiberSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size FiberSwitch, .-FiberSwitch
.section .note.GNU-stack,"",@progbits
.text
)");

struct Fiber::State {
  char* stack = nullptr;
  std::size_t stack_bytes = 0;
  void *inside = nullptr, *outside = nullptr;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  bool ended = true;

  static thread_local State* entering;
  static void Main() {
    State* self = entering;
    self->body(self->argument);
    self->ended = true;
    FiberSwitch(&self->inside, self->outside);
    std::abort();  // an ended fiber is not resumed
  }
  void Prepare() {
    auto* top = reinterpret_cast<void**>(stack + stack_bytes);
    *--top = nullptr;                                // Main's return address: none
    *--top = reinterpret_cast<void*>(&State::Main);  // popped by ret
    for (int i = 0; i < 6; ++i) *--top = nullptr;    // callee-saved registers
    inside = top;
  }
  void Enter() {
    entering = this;
    FiberSwitch(&outside, inside);
  }
  void Exit() { FiberSwitch(&inside, outside); }
};
thread_local Fiber::State* Fiber::State::entering = nullptr;

#else

struct Fiber::State {
  char* stack = nullptr;
  std::size_t stack_bytes = 0;
  ucontext_t inside{}, outside{};
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  bool ended = true;
#if defined(__SANITIZE_ADDRESS__)
  const void* outside_stack = nullptr;
  std::size_t outside_bytes = 0;
  void* outside_fake = nullptr;
  void* inside_fake = nullptr;
#endif

  static thread_local State* entering;
  static void Main() {
    State* self = entering;
    self->Arrived();
    self->body(self->argument);
    self->ended = true;
    self->Exit();
    std::abort();  // an ended fiber is not resumed
  }
  void Arrived() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(inside_fake, &outside_stack, &outside_bytes);
#endif
  }
  void Prepare() {
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = stack_bytes;
    inside.uc_link = nullptr;
    makecontext(&inside, &State::Main, 0);
#if defined(__SANITIZE_ADDRESS__)
    inside_fake = nullptr;
#endif
  }
  void Enter() {
    entering = this;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&outside_fake, stack, stack_bytes);
#endif
    swapcontext(&outside, &inside);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(outside_fake, nullptr, nullptr);
#endif
  }
  void Exit() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ended ? nullptr : &inside_fake, outside_stack, outside_bytes);
#endif
    swapcontext(&inside, &outside);
    Arrived();
  }
};
thread_local Fiber::State* Fiber::State::entering = nullptr;
#endif

Fiber::Fiber(std::size_t stack_bytes) : state_(std::make_unique<State>()) {
  // A page that cannot be touched lies below the stack: one that is too small is found.
  void* memory = mmap(nullptr, kGuardBytes + stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    std::perror("a fiber's stack");
    std::abort();
  }
  state_->stack = static_cast<char*>(memory) + kGuardBytes;
  state_->stack_bytes = stack_bytes;
}

Fiber::~Fiber() { munmap(state_->stack - kGuardBytes, kGuardBytes + state_->stack_bytes); }

void Fiber::Reset(void (*body)(void*), void* argument) {
  state_->body = body;
  state_->argument = argument;
  state_->ended = false;
  state_->Prepare();
}

bool Fiber::Resume() {
  state_->Enter();
  return state_->ended;
}

void Fiber::Leave() { state_->Exit(); }

}  // namespace test_support
