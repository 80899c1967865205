#pragma once

// Which compiled form of the CPU kernels runs, and which kernel set it computes.
//
// A kernel set defines bits; a variant is one way to compute them. Every operation is written once
// over a 16-lane vector and compiled for several instruction sets; every set runs on every variant
// with the same bits (what an instruction set lacks is written out), so the set is part of the
// numerics id and the variant is not.
namespace thresher::kernels {

// In ascending order of speed; each can do what those before it can.
enum class CpuVariant { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };
inline constexpr CpuVariant kCpuVariants[] = {CpuVariant::kPortable, CpuVariant::kAvx2,
                                              CpuVariant::kAvx512, CpuVariant::kAvx512Bf16,
                                              CpuVariant::kAmx};

// The fastest variant this CPU (and operating system: saved register state) can run.
CpuVariant BestCpuVariant();

// True if this CPU can run `variant` and it was compiled in. kPortable is always available. For
// kAmx the operating system is asked for leave to use the tiles; the bf16 instructions must also
// have given, once in this process, the bits that their definition says (native_check.h).
bool CpuVariantAvailable(CpuVariant variant);

// Chooses the variant for the whole process. The process starts with BestCpuVariant(). May be
// called at any time from any thread: calls already under way end with the variant they began
// with. Ends the process if the variant is not available.
void SetCpuVariant(CpuVariant variant);
CpuVariant ActiveCpuVariant();

// "portable", "avx2", "avx512", "avx512_bf16", "amx".
const char* CpuVariantName(CpuVariant variant);

// How products with bf16 weights are computed (definitions: gemm.h). All else, fp32 and fp16
// weights included, is the same in the three.
enum class KernelSet { kFp32, kBf16Dot, kBf16Amx };
inline constexpr KernelSet kKernelSets[] = {KernelSet::kFp32, KernelSet::kBf16Dot,
                                            KernelSet::kBf16Amx};

// Chooses the kernel set for the whole process, which starts with kFp32. To be called before
// products are under way: one that is may mix the sets.
void SetKernelSet(KernelSet set);
KernelSet ActiveKernelSet();

// Whether the active variant has the instructions that the set is defined by. Without them kBf16Dot
// and kBf16Amx cost what kFp32 costs (portable: far more).
bool KernelSetNative(KernelSet set);

// The name of a kernel set in the numerics id. It changes whenever any of its bits change.
// "cpu-fp32-v1", "cpu-bf16dot-v1", "cpu-bf16amx-v1".
const char* KernelSetName(KernelSet set = ActiveKernelSet());

}  // namespace thresher::kernels
