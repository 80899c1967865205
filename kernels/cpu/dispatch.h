#pragma once

// Which compiled form of the CPU kernels runs. Every operation is written once over a 16-lane
// vector and compiled three times; the three forms give the same bits, so they are ONE kernel set
// and the choice is no part of the numerics id.
namespace thresher::kernels {

enum class CpuVariant { kPortable, kAvx2, kAvx512 };

// The fastest variant this CPU (and operating system: saved register state) can run.
CpuVariant BestCpuVariant();

// True if this CPU can run `variant` and it was compiled in. kPortable is always available.
bool CpuVariantAvailable(CpuVariant variant);

// Chooses the variant for the whole process. The process starts with BestCpuVariant(). May be
// called at any time from any thread: calls already under way end with the variant they began
// with. Ends the process if the variant is not available.
void SetCpuVariant(CpuVariant variant);
CpuVariant ActiveCpuVariant();

// "portable", "avx2", "avx512".
const char* CpuVariantName(CpuVariant variant);

// The name of the kernel set in the numerics id. It changes whenever any kernel's bits change.
const char* KernelSetName();  // "cpu-fp32-v1"

}  // namespace thresher::kernels
