#pragma once

// What this CPU and its operating system allow, by CPUID and XCR0. x86-64 only.
namespace thresher::kernels {

bool CpuHasAvx2();    // with FMA and F16C
bool CpuHasAvx512();  // F, DQ, BW, VL, and CpuHasAvx2()
bool CpuHasAvx512Bf16();
bool CpuHasAmxBf16();  // asks the system for leave to use the tiles, once; threads inherit it

}  // namespace thresher::kernels
