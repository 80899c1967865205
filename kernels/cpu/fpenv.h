#pragma once

// The floating-point environment that the bits of every kernel assume: round to nearest even, no
// flush-to-zero, no denormals-are-zero, all exceptions masked. Third-party code (libtorch, MKL,
// plug-ins) may change it behind our back, per thread.
namespace thresher::kernels {

// Sets the calling thread's environment. Call at the start of a thread that does arithmetic of its
// own beside the kernels. The kernels themselves pin it on entry and restore it on return.
void PinFpEnv();

// True if the calling thread's environment is the one described above.
bool FpEnvIsPinned();

// Pins on construction, restores what it found on destruction. Costs a few cycles when the
// environment is already right. Not to be moved between threads.
class ScopedFpEnv {
 public:
  ScopedFpEnv();
  ~ScopedFpEnv();
  ScopedFpEnv(const ScopedFpEnv&) = delete;
  ScopedFpEnv& operator=(const ScopedFpEnv&) = delete;

 private:
  unsigned saved_;
  bool changed_;
};

// The same environment, but with denormals as zeros of their sign, operands and results (x86: DAZ
// and FTZ; elsewhere nothing more, the kernels then flush by themselves): what the kernel sets of
// bf16 products compute in.
class ScopedFlushedFpEnv {
 public:
  ScopedFlushedFpEnv();
  ~ScopedFlushedFpEnv();
  ScopedFlushedFpEnv(const ScopedFlushedFpEnv&) = delete;
  ScopedFlushedFpEnv& operator=(const ScopedFlushedFpEnv&) = delete;

 private:
  unsigned saved_;
};

}  // namespace thresher::kernels
