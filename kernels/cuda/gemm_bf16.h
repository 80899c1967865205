#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/bf16_rows.h"

// Products of the kernel set cuda-bf16-sm90-v1: bf16 operands, fp32 sums, on the matrix units of
// compute capability 9.0. Conventions: rmsnorm.h.
//
// The set's definition. y[t, n] = sum over k of x[t, k] w[n, k]:
//   K is cut at multiples of Bf16Chunk(K), a function of K alone, into at most 8 chunks;
//   a chunk's sum is one accumulator of wgmma m64nNk16 (bf16, fp32), begun at zero (scale-d 0) and
//   continued over k16 steps ascending; behind K, to a multiple of 64, stand zeros;
//   the chunks' sums are added in fp32, ascending; then the bias; then that sum is added to `base`.
// The outputs of W are the matrix unit's rows and the tokens its columns in every form, so that all
// forms use one instruction family; a form differs in its number of columns, of stages and of
// blocks alone. That they give the same bits is what the documentation leaves open: the self-test
// (self_test.h) demands it of the device.
//
// Forms, by the tokens of a block: kTile (128 tokens x 128 outputs; prefill and training) and
// kStream8 to kStream64 (8 to 64 tokens x 64 outputs; decode: W is read once, by as many blocks as
// keep the memory busy). Each form serves every T. Where there are fewer tiles of outputs than the
// device has room for blocks, a tile's chunks are divided over blocks; the last of them to finish
// adds the sums, in their order: no bit changes.
//
// Why chunks: 14 tiles of 64 outputs (the last product of Qwen2.5-0.5B's layer, N = 896, K = 4864)
// leave 118 of an H200's 132 multiprocessors idle, and one of them can draw perhaps 80 of the 4,300
// GB/s (an estimate). With 5 chunks there are 70 blocks. More than 8 would cost more in partial
// sums than it gives.
//   N x K             tiles  chunks  blocks of a stream form
//   0.5B  1152 x 896     18       2     36
//         896 x 4864     14       5     70
//         9728 x 896    152       2    152
//   1.5B  1536 x 8960    24       6    144
//   8B    4096 x 4096    64       8    256
//         4096 x 14336   64       7    256
//
// Bound against the plain form (GemmBf16Plain), and of both against exact arithmetic. Let u =
// 2^-24, S = sum |x w|. Products of bf16 values are exact in fp32. The matrix unit adds the 16
// products of a step and the accumulator in an order, in groups, and with an alignment that are not
// documented. Assume only that an addend is cut to no less than the 24 bits below the largest one's
// leading bit, and each group's result likewise (truncation; it is known to be no worse): each
// loses at most 2 u times the largest value, itself at most S (1 + small). Groups of h products
// have h + 1 addends and a result: a step of 16 / h groups loses at most (16 + 32 / h) 2 u S <= 96
// u S, for h = 1; that is 6 u S for each k. The plain chain loses u S for each k. A chain runs over
// a chunk, C = Bf16Chunk(K) values, and errors of the chunks add to that of S: 7 C u S. Folding,
// bias and base: at most 10 roundings on each side. Second-order terms are below 1/7 of the first
// for C <= 2^17. So
//   |fast - plain| <= 8 (C + 20) u (S + |bias| + |base|) + K 2^-125,
// the last for products and sums below the normal range, which the unit may flush. Nothing
// overflows.
namespace thresher::kernels::cuda {

inline constexpr const char* kBf16KernelSet = "cuda-bf16-sm90-v1";

inline constexpr std::int64_t kBf16Step = 64;  // values of K in a stage
inline constexpr std::int64_t kBf16MaxChunks = 8;
inline constexpr std::int64_t kBf16ChunkUnit = 512;

// Values of K in a chunk: the smallest multiple of 512 of which 8 reach K.
constexpr std::int64_t Bf16Chunk(std::int64_t k) {
  const std::int64_t eighth = kBf16MaxChunks * kBf16ChunkUnit;
  return (k + eighth - 1) / eighth * kBf16ChunkUnit;
}

// The bound above. magnitude: S + |bias| + |base|.
constexpr double Bf16Bound(std::int64_t k, double magnitude) {
  return 8.0 * (static_cast<double>(Bf16Chunk(k)) + 20.0) * 0x1p-24 * magnitude +
         static_cast<double>(k) * 0x1p-125;
}

enum class Bf16Form : int { kTile, kStream64, kStream32, kStream16, kStream8 };
inline constexpr int kBf16Forms = 5;
inline constexpr unsigned kAllBf16Forms = (1u << kBf16Forms) - 1;
const char* Bf16FormName(Bf16Form form);
// Tokens of a block.
int Bf16FormTokens(Bf16Form form);

// What the products need of a device; one for each stream. `scratch` is the caller's, on the
// device: kBf16ScratchBytes, used by one product at a time.
struct Bf16Device {
  int multiprocessors = 0;
  void* map_encoder = nullptr;
  void* scratch = nullptr;
  std::size_t scratch_bytes = 0;
  unsigned forms = kAllBf16Forms;  // those that may be used (self_test.h): bit Bf16Form
};
// What every product on 132 multiprocessors can use. With less, down to kBf16LeastScratchBytes,
// tiles are divided over fewer blocks: slower, with the same bits.
inline constexpr std::size_t kBf16ScratchBytes = (std::size_t{40} << 20) + 8192;
inline constexpr std::size_t kBf16LeastScratchBytes = 8192;

// Describes the current device and puts the clearing of `scratch` on `stream`. Returns "" or why
// the set cannot be used, in one line: another architecture than 9.0; a driver without tensor maps;
// too little scratch memory; an error of the runtime.
std::string OpenBf16Device(cudaStream_t stream, void* scratch, std::size_t scratch_bytes,
                           Bf16Device* device);

// y [T, N] and, rounded to bf16 (to nearest, ties to even), y16; either may be null. bias [N] or
// null. base [T, N] or null: y = base + (product + bias); it may be y itself. Beyond that no memory
// overlaps. 16-byte aligned memory and strides that are multiples of 4 (y, base; 8: y16) are
// faster.
struct Bf16Output {
  float* y = nullptr;
  std::int64_t ldy = 0;
  const float* bias = nullptr;
  const float* base = nullptr;
  std::int64_t ldbase = 0;
  std::uint16_t* y16 = nullptr;
  std::int64_t ldy16 = 0;
};

// The form that serves T tokens: the smallest of those in `forms` with room for them, else the
// largest. -1 if there is none.
int Bf16FormFor(unsigned forms, std::int64_t t);

// y = x w^T for x [T, K], w [N, K]. T = 0: nothing. N, K >= 1.
// cudaErrorInvalidValue: operands against the rules of Bf16Rows; cudaErrorNotSupported: no form.
cudaError_t GemmBf16(const Bf16Device& device, cudaStream_t stream, Bf16Rows x, Bf16Rows w,
                     const Bf16Output& out);
// dx = dy w for dy [T, N], w [N, K]: the same definition, the sum is over N (cut by Bf16Chunk(N)).
cudaError_t GemmBf16InputGrad(const Bf16Device& device, cudaStream_t stream, Bf16Rows dy,
                              Bf16Rows w, const Bf16Output& out);

// The same by one form (self-test, tests). grad: GemmBf16InputGrad.
cudaError_t GemmBf16By(const Bf16Device& device, cudaStream_t stream, Bf16Form form, bool grad,
                       Bf16Rows x, Bf16Rows w, const Bf16Output& out);

// The plain form of both, an output element a thread: a chunk's sum is a chain of fused
// multiply-adds from +0; for the rest the definition. Needs no tensor cores.
cudaError_t GemmBf16Plain(cudaStream_t stream, bool grad, Bf16Rows x, Bf16Rows w,
                          const Bf16Output& out);

// magnitude [T, N] = S + |bias| + |base| of Bf16Bound, rounded up generously (fp32 sum times 1 +
// 2^-8).
cudaError_t GemmBf16Magnitude(cudaStream_t stream, bool grad, Bf16Rows x, Bf16Rows w,
                              const Bf16Output& out, float* magnitude);

}  // namespace thresher::kernels::cuda
