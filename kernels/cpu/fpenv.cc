#include "kernels/cpu/fpenv.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cfenv>
#endif

namespace thresher::kernels {
namespace {

#if defined(__x86_64__)
// MXCSR: bits 0-5 are sticky flags, 6 DAZ, 7-12 exception masks, 13-14 rounding, 15 FTZ.
constexpr unsigned kFlags = 0x3f;
constexpr unsigned kPinned = 0x1f80;
constexpr unsigned kFlushed = kPinned | 0x8040;
unsigned ReadControl() { return _mm_getcsr() & ~kFlags; }
void WriteControl(unsigned control) { _mm_setcsr((_mm_getcsr() & kFlags) | control); }
#else
const unsigned kPinned = FE_TONEAREST, kFlushed = kPinned;
unsigned ReadControl() { return static_cast<unsigned>(std::fegetround()); }
void WriteControl(unsigned control) { std::fesetround(static_cast<int>(control)); }
#endif

}  // namespace

void PinFpEnv() {
  if (ReadControl() != kPinned) WriteControl(kPinned);
}

bool FpEnvIsPinned() { return ReadControl() == kPinned; }

ScopedFpEnv::ScopedFpEnv() : saved_(ReadControl()), changed_(saved_ != kPinned) {
  if (changed_) WriteControl(kPinned);
}

ScopedFpEnv::~ScopedFpEnv() {
  if (changed_) WriteControl(saved_);
}

ScopedFlushedFpEnv::ScopedFlushedFpEnv() : saved_(ReadControl()) { WriteControl(kFlushed); }

ScopedFlushedFpEnv::~ScopedFlushedFpEnv() { WriteControl(saved_); }

}  // namespace thresher::kernels
