#pragma once

// The 16-lane vector that every kernel is written over, and the rules that make its three forms
// (vec_portable.inl, vec_avx2.inl, vec_avx512.inl; and kernels/cuda/vec_simt.inl, a lane a thread)
// agree in every bit. Included only by the variant_*.cc files and the kernels of kernels/cuda,
// which set THRESHER_VARIANT, the name of the variant's namespace.
//
//   F16, I16, M16            16 floats, 16 int32, 16 truth values
//   Load/Store, LoadN/StoreN LoadN reads lanes < n only, the others are +0; StoreN writes lanes < n
//   Add Sub Mul Div Fma Fnma correctly rounded; Fma(a,b,c) = ab + c, Fnma(a,b,c) = c - ab
//   FmaFlushed, AddFlushed   the same with denormals, of operands and results, as zeros of their
//   sign;
//                            a and b of FmaFlushed are bf16. Within ScopedFlushedFpEnv.
//   Max(a,b), Min(a,b)       a > b ? a : b and a < b ? a : b: the second if either is NaN
//   Select(m,a,b)            m ? a : b
//   ReduceAdd, ReduceMax     the fixed tree: lane i with i+8, then i+4, i+2, i+1
//
// Rules: no other horizontal operation; no approximate instruction (rcp, rsqrt); no inline function
// or template of the standard library (its out-of-line copy could be merged with another
// translation unit's and then run on a CPU without these instructions).
#include <cstdint>

#if defined(THRESHER_VEC_AVX512) || defined(THRESHER_VEC_AVX2)
#include <immintrin.h>
#endif

#if defined(THRESHER_VEC_AVX512)
#include "kernels/cpu/vec_avx512.inl"
#elif defined(THRESHER_VEC_AVX2)
#include "kernels/cpu/vec_avx2.inl"
#elif defined(THRESHER_VEC_SIMT)
#include "kernels/cuda/vec_simt.inl"
#else
#include "kernels/cpu/vec_portable.inl"
#endif
