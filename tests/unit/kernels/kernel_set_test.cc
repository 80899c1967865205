#include "kernels/cpu/attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/swiglu.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

// Pins the bits that the name of the kernel set stands for. Recorded log-probabilities are compared
// with recomputed ones by that name: whoever changes a bit here gives the set a new name, and only
// then new numbers below.
namespace thresher::kernels {
namespace {

using namespace testing;

std::uint64_t Fnv1a(const Floats& values) {
  std::uint64_t hash = 14695981039346656037u;
  for (float value : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (bits >> shift & 0xff)) * 1099511628211u;
  }
  return hash;
}

Floats Elementary() {
  Floats x = Random(4096, 1, 104.0f), y(8192);
  Exp(4096, x.data(), y.data());
  for (float& value : x) value = std::fabs(value) + 1e-6f;
  Log(4096, x.data(), y.data() + 4096);
  return y;
}

// Norm, gated unit, product, attention over three splits and the head, each fed by the one before.
Floats Chain() {
  const std::int64_t t = 150, heads = 4, dh = 24, d = heads * dh, v = 300;
  const Floats x = Random(t * d, 1), w = Random(d * d, 2), head = Random(v * d, 3);
  const Floats weight = Random(d, 4), temperature(t, 0.8f);
  Floats y(t * d), inv(t), z(t * d), packed(PackedFloats(d, d)), packed_head(PackedFloats(v, d));
  PackF32(d, d, w.data(), packed.data());
  PackF32(v, d, head.data(), packed_head.data());
  RmsNormForward(t, d, x.data(), weight.data(), 1e-6f, y.data(), inv.data());
  SwigluForward(t, d, y.data(), d, x.data(), d, y.data(), d);
  Gemm(t, d, d, y.data(), d, {packed.data()}, nullptr, z.data(), d);
  const std::int64_t pages = (t + kKvPageSize - 1) / kKvPageSize;
  Floats k(pages * KvPageFloats(heads, dh)), values(k.size()), logprob(t), lse(t), entropy(t);
  std::vector<std::int32_t> table(pages), positions(t), targets(t, 7);
  for (std::int64_t i = 0; i < pages; ++i) table[i] = static_cast<std::int32_t>(i);
  for (std::int64_t i = 0; i < t; ++i) positions[i] = static_cast<std::int32_t>(i);
  const std::vector<const std::int32_t*> tables(t, table.data());
  const KvPages kv{k.data(), values.data(), KvPageFloats(heads, dh)};
  WriteKv(t, heads, dh, z.data(), d, z.data(), d, tables.data(), positions.data(), kv);
  Attention(t, heads, heads, dh, x.data(), d, tables.data(), positions.data(), 0.2f, kv, y.data(),
            d, nullptr);
  HeadLogProb(t, d, v, v, y.data(), d, {packed_head.data()}, temperature.data(), targets.data(),
              logprob.data(), lse.data(), entropy.data());
  for (const Floats& part : {y, lse, entropy}) Append(&logprob, part);
  return logprob;
}

TEST(KernelSet, ItsNameStandsForTheseBits) {
  ASSERT_STREQ(KernelSetName(), "cpu-fp32-v1");
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    EXPECT_EQ(Fnv1a(Elementary()), 18361835866683759152u) << CpuVariantName(variant);
    EXPECT_EQ(Fnv1a(Chain()), 7743639311754593081u) << CpuVariantName(variant);
  }
}

// Products with bf16 weights in the active set: few rows and many, an odd K beyond a chunk.
Floats Bf16Products() {
  const std::int64_t t = 30, n = 70, k = 1029;
  const Halves w = RandomHalves(WeightType::kBf16, n * k, 1);
  const Image packed = Packed(WeightType::kBf16, n, k, w.data());
  const Floats x = Random(t * k, 2), bias = Random(n, 3);
  Floats y(2 * t * n);
  Gemm(t, n, k, x.data(), k, packed.matrix(), bias.data(), y.data(), n);
  Gemm(3, n, k, x.data(), k, packed.matrix(), nullptr, y.data() + t * n, n);
  return y;
}

TEST(KernelSet, TheSetsOfBf16ProductsStandForTheseBits) {
  const std::pair<KernelSet, std::uint64_t> expected[] = {
      {KernelSet::kFp32, 6452039545282902180u},
      {KernelSet::kBf16Dot, 8804249266905390944u},
      {KernelSet::kBf16Amx, 1713930420694486924u}};
  for (const auto& [set, hash] : expected) {
    const KernelSetScope set_scope(set);
    for (CpuVariant variant : AvailableVariants()) {
      const VariantScope scope(variant);
      EXPECT_EQ(Fnv1a(Bf16Products()), hash) << KernelSetName() << " " << CpuVariantName(variant);
    }
  }
}

}  // namespace
}  // namespace thresher::kernels
