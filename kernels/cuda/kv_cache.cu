#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/kv_page.cuh"

namespace thresher::kernels::cuda {
namespace {

// step(row, column of [K, Dh], index of the key's element, index of the value's) for every element
// of every row that is not padding. Threads next to one another have columns next to one another.
template <KvType kType, class Step>
__device__ void ForEachElement(const PagedRows& rows, std::int64_t width, std::int64_t head_dim,
                               const KvCache& kv, const Step& step) {
  ForEachUnitOfThread(rows.t * width, [&](std::int64_t unit) {
    const std::int64_t t = unit / width, c = unit % width, d = c % head_dim;
    const std::int32_t position = rows.position[t];
    if (position < 0) return;
    const std::int64_t slot = position % kKvPageSize;
    const std::size_t part =
        PartOfPage(kv, TableOf(rows, t)[position / kKvPageSize], c / head_dim, head_dim);
    step(t, c, part + static_cast<std::size_t>(KvStorage<kType>::KeyAt(slot, d)),
         part + static_cast<std::size_t>(slot * head_dim + d));
  });
}

template <KvType kType>
__global__ void Write(PagedRows rows, std::int64_t width, std::int64_t head_dim, const float* k,
                      std::int64_t ldk, const float* v, std::int64_t ldv, KvCache kv) {
  using Storage = KvStorage<kType>;
  auto* keys = static_cast<typename Storage::Element*>(kv.k);
  auto* values = static_cast<typename Storage::Element*>(kv.v);
  ForEachElement<kType>(rows, width, head_dim, kv,
                        [=](std::int64_t t, std::int64_t c, std::size_t key, std::size_t value) {
                          keys[key] = Storage::Round(k[t * ldk + c]);
                          values[value] = Storage::Round(v[t * ldv + c]);
                        });
}

template <KvType kType>
__global__ void Read(PagedRows rows, std::int64_t width, std::int64_t head_dim, KvCache kv,
                     float* k, std::int64_t ldk, float* v, std::int64_t ldv) {
  using Storage = KvStorage<kType>;
  const auto* keys = static_cast<const typename Storage::Element*>(kv.k);
  const auto* values = static_cast<const typename Storage::Element*>(kv.v);
  ForEachElement<kType>(rows, width, head_dim, kv,
                        [=](std::int64_t t, std::int64_t c, std::size_t key, std::size_t value) {
                          k[t * ldk + c] = Storage::Widen(keys[key]);
                          v[t * ldv + c] = Storage::Widen(values[value]);
                        });
}

// A block a pair and layer. page: 16-byte pieces of one page's K.
__global__ void Copy(const std::int32_t* pairs, std::int64_t layers, std::size_t layer_bytes,
                     std::size_t stride_bytes, std::int64_t page, char* k, char* v) {
  const std::int64_t pair = blockIdx.x / layers, layer = blockIdx.x % layers;
  const std::int32_t from = pairs[2 * pair], to = pairs[2 * pair + 1];
  if (from < 0 || to < 0) return;
  for (char* base : {k, v}) {
    char* pages = base + static_cast<std::size_t>(layer) * layer_bytes;
    const char* source = pages + static_cast<std::size_t>(from) * stride_bytes;
    char* target = pages + static_cast<std::size_t>(to) * stride_bytes;
    for (std::int64_t i = threadIdx.x; i < page; i += blockDim.x) {
      simt::StoreAs(target + i * 16, simt::LoadAs<uint4>(source + i * 16));
    }
  }
}

}  // namespace

cudaError_t WriteKv(cudaStream_t stream, const PagedRows& rows, std::int64_t kv_heads,
                    std::int64_t head_dim, const float* k, std::int64_t ldk, const float* v,
                    std::int64_t ldv, const KvCache& kv) {
  const std::int64_t width = kv_heads * head_dim;
  if (rows.t * width == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(rows.t * width, kBlock), kBlock},
                      kv.type == KvType::kF32 ? Write<KvType::kF32> : Write<KvType::kBf16>, rows,
                      width, head_dim, k, ldk, v, ldv, kv);
}

cudaError_t ReadKv(cudaStream_t stream, const PagedRows& rows, std::int64_t kv_heads,
                   std::int64_t head_dim, const KvCache& kv, float* k, std::int64_t ldk, float* v,
                   std::int64_t ldv) {
  const std::int64_t width = kv_heads * head_dim;
  if (rows.t * width == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(rows.t * width, kBlock), kBlock},
                      kv.type == KvType::kF32 ? Read<KvType::kF32> : Read<KvType::kBf16>, rows,
                      width, head_dim, kv, k, ldk, v, ldv);
}

cudaError_t CopyPages(cudaStream_t stream, std::int64_t count, const std::int32_t* pairs,
                      std::int64_t layers, std::size_t layer_stride, std::int64_t kv_heads,
                      std::int64_t head_dim, const KvCache& kv) {
  if (count * layers == 0) return cudaSuccess;
  const std::size_t element = KvElementBytes(kv.type);
  const auto page_bytes = static_cast<std::int64_t>(KvPageFloats(kv_heads, head_dim) * element);
  return simt::Launch(stream, {static_cast<unsigned>(count * layers), kBlock}, Copy, pairs, layers,
                      layer_stride * element, kv.page_stride * element, page_bytes / 16,
                      static_cast<char*>(kv.k), static_cast<char*>(kv.v));
}

}  // namespace thresher::kernels::cuda
