#pragma once

#include "kernels/cuda/attention_bf16_tile.cuh"
#include "kernels/cuda/lanes.cuh"

// What a warpgroup does with one split for its columns: scores, weights, weighted values. Lane l of
// warp w has, of a product's 64 rows, 16 w + l / 4 and the eighth behind, of the columns 8 b +
// 2 (l % 4) and its neighbour for every b: value i of its fragment belongs to b = i / 4, the row's
// half i / 2 % 2 and the neighbour i % 2.
namespace thresher::kernels::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// A thread's place in its warpgroup.
struct GroupPlace {
  int group, thread, warp, lane;
  THRESHER_DEVICE GroupPlace()
      : group(static_cast<int>(threadIdx.x) / hopper::kWarpgroup),
        thread(static_cast<int>(threadIdx.x) % hopper::kWarpgroup),
        warp(thread / 32),
        lane(thread % 32) {}
  THRESHER_DEVICE int Row() const { return 16 * warp + lane / 4; }
  THRESHER_DEVICE int Column(int b) const { return 8 * b + 2 * (lane % 4); }
  // The warpgroup's threads, of two at most. (A barrier whose number is not known to the compiler
  // takes all of a block's, and a multiprocessor has 64.)
  THRESHER_DEVICE void Meet() const {
    if (group == 0) {
      hopper::Meet(1, hopper::kWarpgroup);
    } else {
      hopper::Meet(2, hopper::kWarpgroup);
    }
  }
};

struct Largest {
  static THRESHER_DEVICE float Join(float a, float b) { return a > b ? a : b; }
};
struct Total {
  static THRESHER_DEVICE float Join(float a, float b) { return simt::Add(a, b); }
};

// Joins `values`, a value for each of kCount columns, over the eight lanes that share those columns
// (l / 4): over i and i + 4, then 2, then 1. While there are several columns, a lane gives half of
// them away at each step. Returns the first column, as an index of `values`, of the
// max(kCount / 8, 1) that this lane ends up with, in values[0...].
template <class Op, int kStep, int kCount, int kAll>
THRESHER_DEVICE int JoinColumns(int lane, float (&values)[kAll]) {
  constexpr unsigned kWarp = 0xffffffffu;
  int first = 0;
  if constexpr (kCount > 1) {
    constexpr int kHalf = kCount / 2;
    const bool upper = (lane & 4 * kStep) != 0;
    THRESHER_UNROLL
    for (int i = 0; i < kHalf; ++i) {
      const float given = upper ? values[i] : values[kHalf + i];
      const float kept = upper ? values[kHalf + i] : values[i];
      values[i] = Op::Join(kept, __shfl_xor_sync(kWarp, given, 4 * kStep));
    }
    first = upper ? kHalf : 0;
  } else {
    values[0] = Op::Join(values[0], __shfl_xor_sync(kWarp, values[0], 4 * kStep));
  }
  if constexpr (kStep > 1) {
    return first + JoinColumns<Op, kStep / 2, (kCount > 1 ? kCount / 2 : 1)>(lane, values);
  } else {
    return first;
  }
}

// The same, and each warp's result for column c into to[c].
template <class Op, int kColumns>
THRESHER_DEVICE void JoinOverRows(const GroupPlace& me, float (&values)[kColumns / 4], float* to) {
  const int first = JoinColumns<Op, 4, kColumns / 4>(me.lane, values);
  constexpr int kLeft = kColumns >= 32 ? kColumns / 32 : 1;
  THRESHER_UNROLL
  for (int i = 0; i < kLeft; ++i) {
    const int n = first + i;
    to[me.Column(n / 2) + n % 2] = values[i];
  }
}

// How many positions of the split a query sees.
THRESHER_DEVICE int Seen(int position, int split) {
  const int seen = position - split * kBf16Split + 1;
  return seen > kBf16Split ? kBf16Split : seen < 0 ? 0 : seen;
}

// scores = K Q^T.
template <class Shape>
THRESHER_DEVICE void MultiplyKeys(const unsigned char* keys, const unsigned char* queries,
                                  hopper::Fragment<Shape::kColumns>& scores) {
  const std::uint32_t k = hopper::SharedAddress(keys), q = hopper::SharedAddress(queries);
  hopper::FenceSums();
  THRESHER_UNROLL
  for (int i = 0; i < Shape::kDims / 16; ++i) {
    const std::uint32_t inside = i % 4 * 32;
    hopper::Multiply<false, false>(
        scores,
        hopper::TileDescriptor(k + i / 4 * Shape::kTileBytes + inside, Shape::kTileBytes, 1024),
        hopper::TileDescriptor(q + i / 4 * Shape::kQueryTileBytes + inside, Shape::kTileBytes,
                               1024),
        i > 0);
  }
  hopper::Commit();
  hopper::Await<0>();
  hopper::Settle(scores);
}

// The largest score of each column, of those it sees. masked: some column does not see all.
template <class Shape>
THRESHER_DEVICE void FindBest(const GroupPlace& me, const ColumnState<Shape::kColumns>& columns,
                              int split, bool masked,
                              const hopper::Fragment<Shape::kColumns>& scores,
                              ColumnState<Shape::kColumns>& to) {
  constexpr int kBlocks = Shape::kColumns / 8;
  float best[2 * kBlocks];
  THRESHER_UNROLL
  for (int n = 0; n < 2 * kBlocks; ++n) {
    const int b = n / 2, e = n % 2;
    float low = scores.Get(4 * b + e), high = scores.Get(4 * b + 2 + e);
    if (masked) {
      const int seen = Seen(columns.position[me.Column(b) + e], split);
      if (me.Row() >= seen) low = -__builtin_inff();
      if (me.Row() + 8 >= seen) high = -__builtin_inff();
    }
    best[n] = Largest::Join(low, high);
  }
  JoinOverRows<Largest, Shape::kColumns>(me, best, to.warp_best[me.warp]);
}

// Weights from scores, rounded into the tile [64 positions][columns]; the warps' sums of them.
template <class Shape>
THRESHER_DEVICE void Weigh(const GroupPlace& me, float scale, int split, bool masked,
                           const hopper::Fragment<Shape::kColumns>& scores,
                           ColumnState<Shape::kColumns>& columns, unsigned char* weights) {
  constexpr int kBlocks = Shape::kColumns / 8;
  float sum[2 * kBlocks];
  THRESHER_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    const auto best = simt::LoadAs<float2>(columns.split_best + me.Column(b));
    float p[4];
    THRESHER_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float from = i % 2 == 0 ? best.x : best.y;
      p[i] = hopper::Exp2(simt::Fma(scores.Get(4 * b + i), scale, -from));
    }
    if (masked) {
      const auto position = simt::LoadAs<int2>(columns.position + me.Column(b));
      THRESHER_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int seen = Seen(i % 2 == 0 ? position.x : position.y, split);
        if (me.Row() + i / 2 * 8 >= seen) p[i] = 0;
      }
    }
    sum[2 * b] = simt::Add(p[0], p[2]);
    sum[2 * b + 1] = simt::Add(p[1], p[3]);
    unsigned char* at = weights + UnitAt(me.Row(), b, 0) + me.lane % 4 * 4;
    simt::StoreAs(at, Bf16Pair(p[0], p[1]));
    simt::StoreAs(at + 8 * hopper::kStepBytes, Bf16Pair(p[2], p[3]));
  }
  JoinOverRows<Total, Shape::kColumns>(me, sum, columns.warp_sum[me.warp]);
}

// found = V^T P^T for the dimensions [64 tile, 64 tile + 64).
template <class Shape>
THRESHER_DEVICE void StartValues(const unsigned char* values, int tile,
                                 const unsigned char* weights,
                                 hopper::Fragment<Shape::kColumns>& found) {
  const std::uint32_t v = hopper::SharedAddress(values) + tile * Shape::kTileBytes;
  const std::uint32_t p = hopper::SharedAddress(weights);
  THRESHER_UNROLL
  for (std::uint32_t i = 0; i < kBf16Split / 16; ++i) {
    hopper::Multiply<true, true>(
        found, hopper::TileDescriptor(v + i * 2048, Shape::kTileBytes, 1024),
        hopper::TileDescriptor(p + i * 2048, Shape::kTileBytes, 1024), i > 0);
  }
}

// The running softmax of a column: of its thread.
struct RunningColumn {
  float best = -__builtin_inff(), sum = 0;
};

THRESHER_DEVICE float BestOfWarps(const float* warps, int stride) {
  return Largest::Join(Largest::Join(warps[0], warps[stride]),
                       Largest::Join(warps[2 * stride], warps[3 * stride]));
}
THRESHER_DEVICE float SumOfWarps(const float* warps, int stride) {
  return simt::Add(simt::Add(warps[0], warps[stride]),
                   simt::Add(warps[2 * stride], warps[3 * stride]));
}

// x and y of a fold.
THRESHER_DEVICE float2 FoldFactors(float best, float split_best, float joint) {
  return {hopper::Exp2(simt::Sub(best, joint)), hopper::Exp2(simt::Sub(split_best, joint))};
}

inline constexpr unsigned kNotANumber = 0x7fc00000u;

// out_d of the definition.
THRESHER_DEVICE float Result(float value, float inverse) {
  const float result = simt::Fma(value, inverse, 0.0f);
  return (__float_as_uint(result) & 0x7f800000u) == 0x7f800000u ? simt::FloatOf(kNotANumber)
                                                                : result;
}

}  // namespace thresher::kernels::cuda
