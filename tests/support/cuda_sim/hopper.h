#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

// The instructions of kernels/cuda/hopper.cuh on the host: mbarriers, tensor copies and the matrix
// unit of compute capability 9.0. Layouts (descriptors, swizzles, fragments) are those of the PTX
// ISA. What a device would leave undefined, or might do wrong only sometimes, ends the process with
// a message:
//   a copy or product on a tile that is still being written, or read, by another; a product's sums
//   touched before they are awaited and settled, or without a fence before the next product; shared
//   memory written by threads and read by a product without a proxy fence; products that not all
//   threads of a warpgroup issue alike; bytes or arrivals that an mbarrier does not expect;
//   addresses that are not aligned; anything unfinished when the block ends.
//
// Time: a copy is done at once in every second block, and at the latest moment (when no thread can
// go on, a piece when its thread awaits it) in the others; a product is done when it is awaited.
// 2^x is rounded to nearest, denormals flushed; hardware may be off by 2^-22.
//
// Arithmetic of a product (hardware leaves its order open): bf16 products are exact in fp32; of the
// 16 of one instruction a chain is summed from +0, the last k first, rounded to nearest; the sum is
// added to what stood there.
namespace cuda_sim::hopper {

// cuTensorMapEncodeTiled: two dimensions, bf16, no interleave, no swizzle or that of 128 bytes.
CUresult EncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                     const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                     const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                     CUtensorMapFloatOOBfill fill);

void InitBarrier(std::uint64_t* barrier, int arrivals);
void ArriveAt(std::uint64_t* barrier, int expected_bytes);
void WaitFor(std::uint64_t* barrier, unsigned parity);
void CopyBoxTo(void* tile, const CUtensorMap& map, std::uint64_t* barrier, int column, int row);
void FenceInit();
void FenceProxy();
// cp.async of 16 bytes; zeros, and `from` is not read, unless `there`.
void CopyPiece(void* to, const void* from, bool there);
void CommitPieces();
void AwaitPieceGroups(int pending);
template <int kPending>
void AwaitPieces() {
  AwaitPieceGroups(kPending);
}
float Exp2(float x);

// What is behind a matrix descriptor. Element (mn, k) of an operand, mn along M or N: its address
// in shared memory; `across`: it is contiguous along mn.
struct Descriptor {
  std::uint32_t start, leading_bytes, stride_bytes;
  int base_offset, swizzle;  // swizzle: 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes
};
Descriptor Decode(std::uint64_t descriptor);
std::uint32_t ElementAddress(const Descriptor& of, bool across, int mn, int k);

// A thread's share of a product's sums, and what is known of it.
class Sums {
 public:
  float Get(int i) const;
  void Set(int i, float value);

 protected:
  Sums(float* values, int count);
  ~Sums();
  Sums(const Sums&) = delete;

 private:
  friend class MatrixUnit;
  void Touch() const;
  float* values_;
  int count_;
  int under_way_ = 0;  // products
  bool settled_ = true;
  mutable std::uint64_t fences_ = 0;  // of the thread when it was touched last
};
template <int kColumns>
class Fragment : public Sums {
 public:
  static constexpr int kValues = kColumns / 2;
  Fragment() : Sums(values_, kValues) {}

 private:
  float values_[kValues];
};

void FenceSums();
void StartProduct(Sums& sums, int columns, std::uint64_t a, std::uint64_t b, bool across_a,
                  bool across_b, bool keep);
template <bool kAcrossA, bool kAcrossB, int kColumns>
void Multiply(Fragment<kColumns>& sums, std::uint64_t a, std::uint64_t b, bool keep) {
  StartProduct(sums, kColumns, a, b, kAcrossA, kAcrossB, keep);
}
void Commit();
void AwaitGroups(int pending);
template <int kPending>
void Await() {
  AwaitGroups(kPending);
}
void SettleSums(Sums& sums);
template <int kColumns>
void Settle(Fragment<kColumns>& sums) {
  SettleSums(sums);
}

// The block's side (block.cc). late: copies are done at the latest moment. FinishOneCopy: false if
// there is none.
void BeginBlock(bool late);
bool FinishOneCopy();
void EndBlock();

// Between the two files of the model. Ranges are [begin, end) in shared memory.
// Dies if a copy is under way to any of it; the second one: a piece.
void RequireNoCopyTo(std::uint32_t begin, std::uint32_t end);
void RequireNoPieceTo(std::uint32_t begin, std::uint32_t end);
// Dies if a product that is not awaited reads any of it.
void RequireNoProductOn(std::uint32_t begin, std::uint32_t end);
// The bytes as the matrix unit sees them; dies if a thread has written there since without a fence.
const unsigned char* AsyncView(std::uint32_t begin, std::uint32_t end);
void BeginProducts();
void EndProducts();

}  // namespace cuda_sim::hopper
