#pragma once

#include <atomic>

// A library with the part of NCCL's interface that common/comm uses, for tests without a device:
// libfake_nccl.so, loaded by the same path as the real one. Ranks are threads of one process and
// device memory is the host's. It keeps the rules of a non-blocking communicator and is stricter
// than the real one: a call before the one before has settled is ncclInvalidUsage, and work reaches
// the stream only when the communicator is seen to have settled.

// A stream as the fake sees one: what a test hands in as cudaStream_t.
struct FakeStream {
  // Runs run(argument) after what was put there before, on another thread.
  void (*enqueue)(FakeStream* self, void (*run)(void*), void* argument) = nullptr;
};

// What it shall do otherwise than well; of the whole process. Found by the symbol
// "fake_nccl_controls".
struct FakeNcclControls {
  std::atomic<int> version{23203};
  std::atomic<int> in_progress{0};         // answers of "in progress" before a call has settled
  std::atomic<int> deaf_rank{-1};          // its transfers never begin
  std::atomic<int> failing_rank{-1};       // its groups fail with ncclSystemError, asynchronously
  std::atomic<bool> remote_errors{false};  // ranks learn of another's abort (ncclRemoteError)
  std::atomic<bool> abort_hangs{false};    // ncclCommAbort waits until this is false again
  std::atomic<bool> finalize_hangs{false};
  std::atomic<int> delay_ms{0};  // of every group's work on the stream
  // Reads and writes what is sent and received, where that is not the host's; null: memcpy.
  std::atomic<void (*)(void* to, const void* from, unsigned long bytes)> copy{nullptr};
  // What it saw.
  std::atomic<int> communicators{0};  // alive
  std::atomic<int> aborts{0};
  std::atomic<int> misuses{0};  // calls that broke a rule of NCCL
};
