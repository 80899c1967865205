// Prints a hash of the output of every CPU kernel over seeded inputs, one line each, in the variant
// this machine runs fastest: the lines of two machines of any architecture are equal.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/head_filter.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"
#include "kernels/cpu/value_head.h"

namespace thresher::kernels {
namespace {

using Floats = std::vector<float>;

Floats Random(std::int64_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  Floats values(static_cast<std::size_t>(n));
  for (float& value : values) {
    value = scale * (static_cast<float>(engine() >> 8) * 0x1p-23f - 1.0f);
  }
  return values;
}

class Hash {
 public:
  template <typename T>
  Hash& Add(const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) {
      state_ = (state_ ^ bytes[i]) * 1099511628211u;
    }
    return *this;
  }
  void Print(const std::string& name) const {
    std::printf("%-28s %016" PRIx64 "\n", name.c_str(), state_);
  }

 private:
  std::uint64_t state_ = 14695981039346656037u;
};

void Elementary() {
  const Floats x = Random(5000, 1, 110.0f);
  Floats y(x.size()), positive = x;
  Exp(5000, x.data(), y.data());
  Hash().Add(y).Print("exp");
  for (float& value : positive) value = std::abs(value) + 1e-30f;
  Log(5000, positive.data(), y.data());
  Hash().Add(y).Print("log");
}

// Weights of any type whose values lie around 2^exponent.
std::vector<std::uint32_t> PackedWeights(WeightType type, std::int64_t n, std::int64_t k,
                                         int exponent) {
  const Floats values = Random(n * k, 7, std::ldexp(1.0f, exponent));
  std::vector<std::uint32_t> packed(PackedBytes(type, n, k) / 4 + 1);
  if (type == WeightType::kF32) {
    PackRows(type, n, k, 0, n, values.data(), packed.data());
    return packed;
  }
  std::vector<std::uint16_t> halves;
  for (float value : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    // The upper half is a bf16; as an fp16 it may be anything but infinite.
    const auto half = static_cast<std::uint16_t>(bits >> 16);
    halves.push_back(type == WeightType::kBf16 ? half : static_cast<std::uint16_t>(half & 0xbfff));
  }
  PackRows(type, n, k, 0, n, halves.data(), packed.data());
  return packed;
}

void Products() {
  for (KernelSet set : kKernelSets) {
    SetKernelSet(set);
    for (WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kF16}) {
      Hash hash;
      for (int exponent : {0, -64, -127}) {  // the last two make denormals of products and weights
        const std::int64_t n = 70, k = 1029;
        const auto packed = PackedWeights(type, n, k, exponent);
        const Floats bias = Random(n, 3, std::ldexp(1.0f, exponent));
        for (std::int64_t t : {1, 3, 30}) {
          const Floats x = Random(t * k, 5, exponent == -64 ? 0x1p-62f : 1.0f);
          Floats y(t * n);
          Gemm(t, n, k, x.data(), k, {packed.data(), type}, bias.data(), y.data(), n);
          hash.Add(y);
        }
      }
      hash.Print(std::string(KernelSetName()) + " " + WeightTypeName(type));
    }
  }
  SetKernelSet(KernelSet::kFp32);
  const std::int64_t t = 33, n = 21, k = 70;
  const Floats dy = Random(t * n, 1), x = Random(t * k, 2);
  Floats dw = Random(n * k, 3), dbias = Random(n, 4);
  GemmAccumulateWeightGrad(t, n, k, dy.data(), n, x.data(), k, dw.data());
  BiasGrad(t, n, dy.data(), n, dbias.data());
  Hash().Add(dw).Add(dbias).Print("weight and bias gradients");
}

void Rows() {
  const std::int64_t t = 9, d = 72, heads = 3, dh = 24, positions = 64;
  const Floats x = Random(t * d, 1), weight = Random(d, 2), dy = Random(t * d, 3);
  Floats y(t * d), inv(t), dx(t * d), dweight(d);
  RmsNormForward(t, d, x.data(), weight.data(), 1e-6f, y.data(), inv.data());
  RmsNormBackward(t, d, x.data(), weight.data(), inv.data(), dy.data(), dx.data(), dweight.data());
  Hash().Add(y).Add(inv).Add(dx).Add(dweight).Print("rmsnorm");
  Floats dgate(t * d), dup(t * d);
  SwigluForward(t, d, x.data(), d, dy.data(), d, y.data(), d);
  SwigluBackward(t, d, x.data(), d, dy.data(), d, y.data(), d, dgate.data(), d, dup.data(), d);
  Hash().Add(y).Add(dgate).Add(dup).Print("swiglu");
  // Its table comes from libm; the rotation is ours.
  const Floats cos = Random(positions * dh / 2, 4), sin = Random(positions * dh / 2, 5);
  const std::vector<std::int32_t> at = {0, 5, 63, 7, 8, 9, 10, 1, 2};
  Floats rotated = x;
  RopeApply(t, heads, dh, at.data(), cos.data(), sin.data(), rotated.data(), d, false);
  Hash().Add(rotated).Print("rope");
  Floats dtable = Random(positions * d, 6);
  EmbeddingBackward(t, d, positions, at.data(), dy.data(), dtable.data());
  Hash().Add(dtable).Print("embedding");
}

void AttentionBothWays() {
  const std::int64_t t = 150, heads = 6, kv = 2, dh = 24, width = heads * dh, narrow = kv * dh;
  const std::int64_t pages = (t + kKvPageSize - 1) / kKvPageSize;
  const Floats q = Random(t * width, 1), k = Random(t * narrow, 2), v = Random(t * narrow, 3);
  Floats k_pages(pages * KvPageFloats(kv, dh)), v_pages(k_pages.size());
  Floats out(t * width), lse(t * heads), dq(t * width), dk(t * narrow), dv(t * narrow);
  std::vector<std::int32_t> table, positions;
  for (std::int32_t i = 0; i < pages; ++i) table.push_back(i);
  for (std::int32_t i = 0; i < t; ++i) positions.push_back(i);
  const std::vector<const std::int32_t*> tables(t, table.data());
  const KvPages kv_pages{k_pages.data(), v_pages.data(), KvPageFloats(kv, dh)};
  WriteKv(t, kv, dh, k.data(), narrow, v.data(), narrow, tables.data(), positions.data(), kv_pages);
  Attention(t, heads, kv, dh, q.data(), width, tables.data(), positions.data(), 0.2f, kv_pages,
            out.data(), width, lse.data());
  Hash().Add(out).Add(lse).Print("attention");
  const Floats dout = Random(t * width, 4);
  AttentionBackward({t,         heads,  kv,         dh,     q.data(),    width, k.data(),   narrow,
                     v.data(),  narrow, out.data(), width,  dout.data(), width, lse.data(), 0.2f,
                     dq.data(), width,  dk.data(),  narrow, dv.data(),   narrow});
  Hash().Add(dq).Add(dk).Add(dv).Print("attention backward");
}

void Head() {
  const std::int64_t t = 7, d = 40, v = 600;
  const Floats hidden = Random(t * d, 1), w = Random(v * d, 2), temperature(t, 0.8f);
  std::vector<std::uint32_t> packed(PackedBytes(WeightType::kF32, v, d) / 4);
  std::vector<std::uint32_t> transposed(PackedBytes(WeightType::kF32, d, v) / 4);
  PackRows(WeightType::kF32, v, d, 0, v, w.data(), packed.data());
  PackRowsTransposed(WeightType::kF32, v, d, 0, v, w.data(), transposed.data());
  const std::vector<std::int32_t> targets = {0, 3, 599, 256, 255, 10, 300};
  const std::vector<double> uniform = {0.0, 0.1, 0.35, 0.5, 0.77, 0.9, 0.999999};
  Floats logprob(t), lse(t), entropy(t), dhidden(t * d), dhead(v * d), sampled(t);
  std::vector<std::int32_t> token(t);
  HeadLogProb(t, d, v, v, hidden.data(), d, {packed.data()}, temperature.data(), targets.data(),
              logprob.data(), lse.data(), entropy.data());
  HeadSample(t, d, v, v, hidden.data(), d, {packed.data()}, temperature.data(), uniform.data(),
             token.data(), sampled.data());
  Hash().Add(logprob).Add(lse).Add(entropy).Add(token).Add(sampled).Print("head");
  HeadBackward({.t = t,
                .d = d,
                .v = v,
                .valid_vocab = v,
                .hidden = hidden.data(),
                .ldh = d,
                .packed_head = {packed.data()},
                .packed_head_transposed = {transposed.data()},
                .temperature = temperature.data(),
                .targets = targets.data(),
                .lse = lse.data(),
                .dlogprob = logprob.data(),
                .entropy = entropy.data(),
                .dentropy = lse.data(),
                .dhidden = dhidden.data(),
                .lddh = d,
                .dhead = dhead.data()});
  Hash().Add(dhidden).Add(dhead).Print("head backward");
  const HeadRows rows{t, d, v, v, hidden.data(), d, {packed.data()}, temperature.data()};
  std::vector<HeadBlock> blocks(t * HeadBlockCount(v));
  Floats logits(t * v), draws;
  std::vector<float*> pointers;
  for (std::int64_t i = 0; i < t; ++i) pointers.push_back(&logits[i * v]);
  HeadScan(rows, nullptr, 0, HeadBlockCount(v), blocks.data(), pointers.data());
  HeadFilter filter;
  filter.temperature = 0.8f;
  filter.top_k = 50;
  filter.top_p = 0.9f;
  filter.min_p = 0.01f;
  for (std::int64_t i = 0; i < t; ++i) {
    const HeadDraw draw = HeadSampleFiltered(v, pointers[i], &blocks[i * HeadBlockCount(v)], filter,
                                             uniform[i], nullptr);
    draws.insert(draws.end(),
                 {static_cast<float>(draw.token), draw.logprob, draw.kept_mass_logprob});
  }
  Hash().Add(logits).Add(draws).Print("filtered sampling");
}

void Values() {
  const std::int64_t t = 7, d = 40;
  const Floats hidden = Random(t * d, 1), weight = Random(d, 2), dvalue = Random(t, 3);
  const float bias = 0.3f;
  Floats value(t), dhidden = Random(t * d, 4), dweight = Random(d, 5), dbias(1);
  ValueHeadForward(t, d, hidden.data(), d, weight.data(), &bias, value.data());
  ValueHeadBackward({.t = t,
                     .d = d,
                     .hidden = hidden.data(),
                     .ldh = d,
                     .weight = weight.data(),
                     .dvalue = dvalue.data(),
                     .dhidden = dhidden.data(),
                     .lddh = d,
                     .dweight = dweight.data(),
                     .dbias = dbias.data()});
  Hash().Add(value).Add(dhidden).Add(dweight).Add(dbias).Print("value head");
}

}  // namespace
}  // namespace thresher::kernels

int main() {
  using namespace thresher::kernels;
  Elementary();
  Products();
  Rows();
  AttentionBothWays();
  Head();
  Values();
  std::fprintf(stderr, "variant %s\n", CpuVariantName(ActiveCpuVariant()));
  return 0;
}
