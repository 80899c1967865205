#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/attention_bf16.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels::cuda::testing {

using gpu::testing::OnDevice;
using kernels::testing::Floats;
using kernels::testing::Random;
using Ints = std::vector<std::int32_t>;

struct Heads {
  std::int64_t heads, kv_heads, head_dim;
};

inline float AsBf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return kernels::testing::Widen(
      WeightType::kBf16, static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
}

struct Rows {
  Ints position, sequence;
  void Add(std::int32_t s, std::int32_t p) {
    sequence.push_back(s);
    position.push_back(p);
  }
  std::int64_t t() const { return static_cast<std::int64_t>(position.size()); }
};

// Sequences on the device, in bf16 pages that are scattered over a pool of NaN.
class PagedSequences {
 public:
  PagedSequences(const Heads& heads, std::vector<std::int64_t> lengths, unsigned seed,
                 float size = 1.0f)
      : h_(heads), lengths_(std::move(lengths)) {
    const std::int64_t all = std::accumulate(lengths_.begin(), lengths_.end(), std::int64_t{0});
    k = Random(all * KvWidth(), seed, size);
    v = Random(all * KvWidth(), seed + 1);
    ld_table_ = *std::max_element(lengths_.begin(), lengths_.end()) / kKvPageSize + 2;
    std::vector<std::int32_t> table(lengths_.size() * static_cast<std::size_t>(ld_table_), 1 << 30);
    std::int64_t pages = 0;
    for (std::int64_t n : lengths_) pages += (n + kKvPageSize - 1) / kKvPageSize;
    Ints ids(static_cast<std::size_t>(pages));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    auto id = ids.begin();
    for (std::size_t s = 0; s < lengths_.size(); ++s) {
      for (std::int64_t i = 0; i * kKvPageSize < lengths_[s]; ++i) {
        table[s * static_cast<std::size_t>(ld_table_) + static_cast<std::size_t>(i)] = *id++;
      }
    }
    table_.emplace_back(table);
    pool_.emplace_back(
        std::vector<std::uint16_t>(static_cast<std::size_t>(pages) * 2 * PageElements(), 0xffff));
  }

  std::int64_t QWidth() const { return h_.heads * h_.head_dim; }
  std::int64_t KvWidth() const { return h_.kv_heads * h_.head_dim; }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(h_.head_dim)); }
  const Heads& heads() const { return h_; }
  // Of a position of a sequence, in k and v.
  std::int64_t At(std::int32_t sequence, std::int64_t position) const {
    return (std::accumulate(lengths_.begin(), lengths_.begin() + sequence, std::int64_t{0}) +
            position) *
           KvWidth();
  }
  Rows AllRows() const {
    Rows rows;
    for (std::size_t s = 0; s < lengths_.size(); ++s) {
      for (std::int32_t p = 0; p < lengths_[s]; ++p) rows.Add(static_cast<std::int32_t>(s), p);
    }
    return rows;
  }
  // k and v as they are now, into the pages.
  void Write() {
    const Rows all = AllRows();
    const OnDevice<std::int32_t> position(all.position), sequence(all.sequence);
    const OnDevice<float> gk(k), gv(v);
    EXPECT_EQ(WriteKv(nullptr, Paged(all, position, sequence), h_.kv_heads, h_.head_dim, gk.data(),
                      KvWidth(), gv.data(), KvWidth(), Kv()),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  }
  KvCache Kv() const {
    return {KvType::kBf16, pool_[0].data(), pool_[0].data() + PageElements(), 2 * PageElements()};
  }
  PagedRows Paged(const Rows& rows, const OnDevice<std::int32_t>& position,
                  const OnDevice<std::int32_t>& sequence) const {
    return {rows.t(), position.data(), table_[0].data(), ld_table_, sequence.data()};
  }

  Floats k, v;  // of all positions of all sequences, one after another

 private:
  std::size_t PageElements() const { return KvPageFloats(h_.kv_heads, h_.head_dim); }

  Heads h_;
  std::vector<std::int64_t> lengths_;
  std::int64_t ld_table_ = 0;
  std::vector<OnDevice<std::int32_t>> table_;  // one
  std::vector<OnDevice<std::uint16_t>> pool_;  // one
};

// Out [T, H, Dh], then lse [T, H]; NaN where nothing was written. `run` puts the launch.
template <class Run>
Floats Attended(const PagedSequences& s, const Rows& rows, const Floats& q, const Run& run) {
  const OnDevice<std::int32_t> position(rows.position), sequence(rows.sequence);
  const auto count = static_cast<std::size_t>(rows.t());
  const Heads& h = s.heads();
  const float nan = kernels::testing::kNaN;
  const OnDevice<float> gq(q), out(Floats(q.size(), nan)),
      lse(Floats(count * static_cast<std::size_t>(h.heads), nan));
  AttentionArgs args;
  args.rows = s.Paged(rows, position, sequence);
  args.max_positions = 1 + *std::max_element(rows.position.begin(), rows.position.end());
  args.heads = h.heads, args.kv_heads = h.kv_heads, args.head_dim = h.head_dim;
  args.q = gq.data(), args.ldq = s.QWidth();
  args.scale = s.Scale();
  args.kv = s.Kv();
  args.out = out.data(), args.ldo = s.QWidth();
  args.lse = lse.data();
  EXPECT_EQ(run(args), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  Floats found = out.Read();
  kernels::testing::Append(&found, lse.Read());
  return found;
}

inline Floats AttendedBy(const PagedSequences& s, const Rows& rows, const Floats& q,
                         Bf16AttentionForm form) {
  return Attended(s, rows, q, [&](const AttentionArgs& args) {
    const std::size_t bytes =
        AttentionScratchBytes(rows.t(), args.heads, args.head_dim, args.max_positions);
    const OnDevice<std::uint8_t> scratch(std::vector<std::uint8_t>(bytes, 0xff));
    const cudaError_t error = AttentionBf16By(nullptr, args, {scratch.data(), bytes}, form);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
    return error;
  });
}
inline Floats AttendedPlainly(const PagedSequences& s, const Rows& rows, const Floats& q) {
  return Attended(s, rows, q,
                  [](const AttentionArgs& args) { return AttentionBf16Plain(nullptr, args); });
}

constexpr Bf16AttentionForm kAllForms[] = {
    Bf16AttentionForm::kRows, Bf16AttentionForm::kSplits64, Bf16AttentionForm::kSplits32,
    Bf16AttentionForm::kSplits16, Bf16AttentionForm::kSplits8};

}  // namespace thresher::kernels::cuda::testing
