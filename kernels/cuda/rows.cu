#include "kernels/cuda/gemm_element.h"
#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/rows.h"

namespace thresher::kernels::cuda {
namespace {

__global__ void Add(std::int64_t t, std::int64_t d, const float* base, std::int64_t ldb, float* y,
                    std::int64_t ldy) {
  ForEachUnitOfThread(t * d, [=](std::int64_t unit) {
    float* at = y + unit / d * ldy + unit % d;
    *at = __fadd_rn(*at, base[unit / d * ldb + unit % d]);
  });
}

__global__ void Copy(std::int64_t t, std::int64_t d, const float* x, std::int64_t ldx, float* y,
                     std::int64_t ldy) {
  ForEachUnitOfThread(t * d, [=](std::int64_t unit) {
    y[unit / d * ldy + unit % d] = x[unit / d * ldx + unit % d];
  });
}

__global__ void Unpack(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                       PackedMatrix w, float* y) {
  ForEachUnitOfThread(t * d, [=](std::int64_t unit) {
    const std::int64_t id = ids[unit / d];
    if (id < 0 || id >= v) {
      y[unit] = __int_as_float(0x7fc00000);
      return;
    }
    const char* panel =
        static_cast<const char*>(w.data) + id / kGemmPanel * PanelBytesOf(w.type, d);
    y[unit] = PanelValue(panel, w.type, id % kGemmPanel, unit % d);
  });
}

__global__ void Widen(std::int64_t t, const std::int32_t* ids, Bf16Rows w, float* y) {
  ForEachUnitOfThread(t * w.columns, [=](std::int64_t unit) {
    const std::int64_t id = ids[unit / w.columns];
    y[unit] = id < 0 || id >= w.rows
                  ? __int_as_float(0x7fc00000)
                  : simt::FloatOf(unsigned{w.data[id * w.ld + unit % w.columns]} << 16);
  });
}

__global__ void Select(std::int64_t n, std::int64_t d, const std::int32_t* row, const float* x,
                       std::int64_t ldx, float* y) {
  ForEachUnitOfThread(n * d,
                      [=](std::int64_t unit) { y[unit] = x[row[unit / d] * ldx + unit % d]; });
}

__global__ void Update(std::int64_t count, const std::int32_t* pairs, std::int32_t* table) {
  ForEachUnitOfThread(count, [=](std::int64_t i) { table[pairs[2 * i]] = pairs[2 * i + 1]; });
}

__global__ void Resolve(std::int64_t t, const std::int32_t* token, const std::int32_t* slot,
                        const std::int32_t* last, std::int32_t* resolved, std::int32_t* position) {
  ForEachUnitOfThread(t, [=](std::int64_t i) {
    const std::int32_t id = token[i] >= 0 ? token[i] : last[slot[i]];
    resolved[i] = id >= 0 ? id : 0;
    if (id < 0) position[i] = -1;
  });
}

__global__ void Keep(std::int64_t n, const std::int32_t* slot, const std::int32_t* token,
                     const std::int32_t* stop, std::int32_t* last) {
  ForEachUnitOfThread(n, [=](std::int64_t i) {
    const std::int32_t id = token[i];
    bool ends = false;
    for (int s = 0; s < kStopIds; ++s) ends |= stop[i * kStopIds + s] == id;
    last[slot[i]] = ends ? -1 : id;
  });
}

simt::Shape OneThreadEach(std::int64_t units) { return {BlocksFor(units, kBlock), kBlock}; }

}  // namespace

cudaError_t AddRows(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* base,
                    std::int64_t ldb, float* y, std::int64_t ldy) {
  if (t * d == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(t * d), Add, t, d, base, ldb, y, ldy);
}

cudaError_t CopyRows(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* x,
                     std::int64_t ldx, float* y, std::int64_t ldy) {
  if (t * d == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(t * d), Copy, t, d, x, ldx, y, ldy);
}

cudaError_t PackedRows(cudaStream_t stream, std::int64_t t, std::int64_t d, std::int64_t v,
                       const std::int32_t* ids, PackedMatrix w, float* y) {
  if (t * d == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(t * d), Unpack, t, d, v, ids, w, y);
}

cudaError_t Bf16RowsOf(cudaStream_t stream, std::int64_t t, const std::int32_t* ids, Bf16Rows w,
                       float* y) {
  if (t * w.columns == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(t * w.columns), Widen, t, ids, w, y);
}

cudaError_t SelectRows(cudaStream_t stream, std::int64_t n, std::int64_t d, const std::int32_t* row,
                       const float* x, std::int64_t ldx, float* y) {
  if (n * d == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(n * d), Select, n, d, row, x, ldx, y);
}

cudaError_t UpdateTable(cudaStream_t stream, std::int64_t count, const std::int32_t* pairs,
                        std::int32_t* table) {
  if (count == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(count), Update, count, pairs, table);
}

cudaError_t ResolveTokens(cudaStream_t stream, std::int64_t t, const std::int32_t* token,
                          const std::int32_t* slot, const std::int32_t* last,
                          std::int32_t* resolved, std::int32_t* position) {
  if (t == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(t), Resolve, t, token, slot, last, resolved, position);
}

cudaError_t StoreTokens(cudaStream_t stream, std::int64_t n, const std::int32_t* slot,
                        const std::int32_t* token, const std::int32_t* stop, std::int32_t* last) {
  if (n == 0) return cudaSuccess;
  return simt::Launch(stream, OneThreadEach(n), Keep, n, slot, token, stop, last);
}

}  // namespace thresher::kernels::cuda
