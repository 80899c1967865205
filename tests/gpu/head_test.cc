// kernels/cuda/head on a device: bit for bit what kernels/cpu gives.
#include "kernels/cuda/head.h"

#include "kernels/cpu/head.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using gpu::testing::OnDevice;
using Ints = std::vector<std::int32_t>;

struct Shape {
  std::int64_t t, d, v, valid_vocab;
  WeightType type;
};
constexpr Shape kShapes[] = {
    {1, 40, 300, 290, WeightType::kBf16},  {3, 600, 1000, 1000, WeightType::kF32},
    {13, 33, 520, 520, WeightType::kF16},  {70, 21, 300, 299, WeightType::kBf16},
    {65, 520, 257, 257, WeightType::kF32}, {4, 2, 256 * 260 + 7, 256 * 260 + 5, WeightType::kF16},
    {20, 16, 100, 31, WeightType::kF16},
};

// Hidden states and a head, on the host and on the device. Few distinct values, so that there are
// ties of the greatest logit.
struct Problem {
  Shape s;
  Floats hidden, temperature;
  Image image;
  Ints targets;
  std::vector<double> uniform;
  OnDevice<float> device_hidden, device_temperature;
  OnDevice<std::uint8_t> device_image;
  OnDevice<std::int32_t> device_targets;
  OnDevice<double> device_uniform;

  explicit Problem(const Shape& shape)
      : s(shape),
        hidden(Rounded(Random(s.t * (s.d + 1), 1, 6.0f))),
        temperature(Temperatures(s.t)),
        image(RandomImage(s.type, s.v, s.d, 2)),
        targets(Targets(s)),
        uniform(Uniforms(s.t)),
        device_hidden(hidden),
        device_temperature(temperature),
        device_image(image.bytes()),
        device_targets(targets),
        device_uniform(uniform) {}

  std::int64_t Blocks() const { return s.t * HeadBlockCount(s.valid_vocab); }
  HeadRows OnHost() const {
    return {
        s.t, s.d, s.v, s.valid_vocab, hidden.data(), s.d + 1, image.matrix(), temperature.data()};
  }
  HeadRows OnGpu() const {
    return {s.t,
            s.d,
            s.v,
            s.valid_vocab,
            device_hidden.data(),
            s.d + 1,
            {device_image.data(), s.type},
            device_temperature.data()};
  }

 private:
  static Floats Rounded(Floats values) {
    for (float& value : values) value = std::round(value);
    return values;
  }
  static Floats Temperatures(std::int64_t t) {
    Floats values;
    for (std::int64_t i = 0; i < t; ++i)
      values.push_back(i % 3 == 1 ? 0.0f : i % 3 == 2 ? 0.7f : 1.0f);
    return values;
  }
  static Ints Targets(const Shape& s) {
    Ints targets;
    for (std::int64_t i = 0; i < s.t; ++i) {
      targets.push_back(static_cast<std::int32_t>((i + 1) * 7919 % s.valid_vocab));
    }
    return targets;
  }
  static std::vector<double> Uniforms(std::int64_t t) {
    std::vector<double> values{0.0};
    std::mt19937 engine(5);
    while (static_cast<std::int64_t>(values.size()) < t) values.push_back(engine() * 0x1p-32);
    values.back() = t > 1 ? 1.0 - 0x1p-53 : 0.37;
    return values;
  }
};

Floats AsFloats(const std::vector<HeadBlock>& blocks) {
  Floats values(blocks.size() * 4);
  std::memcpy(values.data(), blocks.data(), blocks.size() * sizeof(HeadBlock));
  return values;
}

constexpr HeadBlock kNoBlock{kNaN, kNaN, kNaN, kNaN};

std::vector<HeadBlock> CpuBlocks(const Problem& p) {
  std::vector<HeadBlock> blocks(p.Blocks(), kNoBlock);
  HeadScan(p.OnHost(), p.targets.data(), 0, HeadBlockCount(p.s.valid_vocab), blocks.data(),
           nullptr);
  return blocks;
}

class CudaHead : public gpu::testing::DeviceTest {};

TEST_F(CudaHead, ScanGivesTheBlocksAndLogitsOfTheCpu) {
  for (const Shape& s : kShapes) {
    const Problem p(s);
    Floats logits(s.t * s.valid_vocab);
    HeadLogits(s.t, s.d, s.valid_vocab, p.hidden.data(), s.d + 1, p.image.matrix(), logits.data(),
               s.valid_vocab);
    // Row t's logits in slot t / 2 if t is even.
    Ints slot;
    const std::int64_t ld = s.valid_vocab + 1;
    Floats kept((s.t + 1) / 2 * ld, kNaN);
    for (std::int64_t t = 0; t < s.t; ++t) {
      slot.push_back(t % 2 == 0 ? static_cast<std::int32_t>(t / 2) : -1);
      if (t % 2 == 0) {
        std::copy_n(&logits[t * s.valid_vocab], s.valid_vocab, &kept[t / 2 * ld]);
      }
    }
    const OnDevice<float> store(Floats(kept.size(), kNaN));
    const OnDevice<std::int32_t> slots(slot);
    const OnDevice<HeadBlock> blocks(std::vector<HeadBlock>(p.Blocks(), kNoBlock));
    ASSERT_EQ(cuda::HeadScan(nullptr, p.OnGpu(), p.device_targets.data(), blocks.data(),
                             {store.data(), ld, slots.data()}),
              cudaSuccess);
    EXPECT_TRUE(SameBits(AsFloats(blocks.Read()), AsFloats(CpuBlocks(p)))) << s.t << " " << s.v;
    EXPECT_TRUE(SameBits(store.Read(), kept)) << s.t << " " << s.v;
  }
}

TEST_F(CudaHead, AScanOfComputedLogitsInPartsGivesTheSameBlocks) {
  const Problem p({5, 8, 1000, 900, WeightType::kF32});
  Floats logits(5 * 900);
  HeadLogits(5, 8, 900, p.hidden.data(), 9, p.image.matrix(), logits.data(), 900);
  const OnDevice<HeadBlock> blocks(std::vector<HeadBlock>(p.Blocks(), kNoBlock));
  const OnDevice<float> store(Floats(logits.size(), kNaN)), computed(logits);
  for (const auto& [begin, end] : {std::pair{512, 900}, std::pair{0, 512}}) {
    ASSERT_EQ(cuda::HeadScanLogits(nullptr, p.OnGpu(), p.device_targets.data(), begin, end,
                                   computed.data() + begin, 900, blocks.data(),
                                   {store.data(), 900, nullptr}),
              cudaSuccess);
  }
  EXPECT_TRUE(SameBits(AsFloats(blocks.Read()), AsFloats(CpuBlocks(p))));
  EXPECT_TRUE(SameBits(store.Read(), logits));
  EXPECT_EQ(cuda::HeadScanLogits(nullptr, p.OnGpu(), nullptr, 0, 300, computed.data(), 900,
                                 blocks.data(), {}),
            cudaErrorInvalidValue);
}

TEST_F(CudaHead, FoldGivesLogProbabilityLseAndEntropyOfTheCpu) {
  for (const Shape& s : kShapes) {
    const Problem p(s);
    const std::vector<HeadBlock> blocks = CpuBlocks(p);
    Floats logprob(s.t), lse(s.t), entropy(s.t);
    HeadFold(p.OnHost(), p.targets.data(), blocks.data(), logprob.data(), lse.data(),
             entropy.data());
    const OnDevice<HeadBlock> device(blocks);
    const Floats poison(s.t, kNaN);
    const OnDevice<float> glogprob(poison), glse(poison), gentropy(poison), alone(poison);
    ASSERT_EQ(cuda::HeadFold(nullptr, p.OnGpu(), p.device_targets.data(), device.data(),
                             glogprob.data(), glse.data(), gentropy.data()),
              cudaSuccess);
    ASSERT_EQ(cuda::HeadFold(nullptr, p.OnGpu(), p.device_targets.data(), device.data(),
                             alone.data(), nullptr, nullptr),
              cudaSuccess);
    EXPECT_TRUE(SameBits(glogprob.Read(), logprob)) << s.t << " " << s.v;
    EXPECT_TRUE(SameBits(alone.Read(), logprob));
    EXPECT_TRUE(SameBits(glse.Read(), lse));
    EXPECT_TRUE(SameBits(gentropy.Read(), entropy));
  }
}

TEST_F(CudaHead, ATargetOutOfRangeGivesNaN) {
  const Problem p({3, 8, 300, 290, WeightType::kF32});
  const OnDevice<HeadBlock> blocks(CpuBlocks(p));
  const OnDevice<std::int32_t> targets(Ints{290, -1, 289});
  const OnDevice<float> logprob(Floats(3, 0.0f));
  ASSERT_EQ(cuda::HeadFold(nullptr, p.OnGpu(), targets.data(), blocks.data(), logprob.data(),
                           nullptr, nullptr),
            cudaSuccess);
  const Floats found = logprob.Read();
  EXPECT_TRUE(std::isnan(found[0]) && std::isnan(found[1]) && !std::isnan(found[2]));
}

TEST_F(CudaHead, DrawsAreTheCpus) {
  for (const Shape& s : kShapes) {
    const Problem p(s);
    Ints token(s.t);
    Floats logprob(s.t);
    HeadSample(s.t, s.d, s.v, s.valid_vocab, p.hidden.data(), s.d + 1, p.image.matrix(),
               p.temperature.data(), p.uniform.data(), token.data(), logprob.data());
    Floats logits(s.t * s.valid_vocab);
    HeadLogits(s.t, s.d, s.valid_vocab, p.hidden.data(), s.d + 1, p.image.matrix(), logits.data(),
               s.valid_vocab);
    const OnDevice<HeadBlock> blocks(CpuBlocks(p));
    const OnDevice<float> store(logits);
    for (float* data : {static_cast<float*>(nullptr), store.data()}) {
      const OnDevice<std::int32_t> gtoken(Ints(s.t, -9));
      const OnDevice<float> glogprob(Floats(s.t, kNaN));
      ASSERT_EQ(cuda::HeadChoose(nullptr, p.OnGpu(), blocks.data(), {data, s.valid_vocab, nullptr},
                                 p.device_uniform.data(), gtoken.data(), glogprob.data()),
                cudaSuccess);
      EXPECT_EQ(gtoken.Read(), token) << s.t << " " << s.v;
      EXPECT_TRUE(SameBits(glogprob.Read(), logprob));
    }
    // In two steps, the logits of the blocks picked given by the caller.
    const OnDevice<cuda::HeadPick> picks{std::vector<cuda::HeadPick>(s.t)};
    ASSERT_EQ(
        cuda::HeadPicks(nullptr, p.OnGpu(), blocks.data(), p.device_uniform.data(), picks.data()),
        cudaSuccess);
    Floats of_block(s.t * kVocabBlock, kNaN);
    const auto picked = picks.Read();
    for (std::int64_t t = 0; t < s.t; ++t) {
      const std::int64_t v0 = picked[t].block * kVocabBlock;
      std::copy_n(&logits[t * s.valid_vocab + v0], std::min(kVocabBlock, s.valid_vocab - v0),
                  &of_block[t * kVocabBlock]);
    }
    const OnDevice<float> block_logits(of_block), glogprob(Floats(s.t, kNaN));
    const OnDevice<std::int32_t> gtoken(Ints(s.t, -9));
    ASSERT_EQ(cuda::HeadDraws(nullptr, p.OnGpu(), picks.data(), block_logits.data(), kVocabBlock,
                              gtoken.data(), glogprob.data()),
              cudaSuccess);
    EXPECT_EQ(gtoken.Read(), token);
    EXPECT_TRUE(SameBits(glogprob.Read(), logprob));
  }
}

// Blocks that no head would give: what the folds make of NaN, infinities and no mass at all.
TEST_F(CudaHead, StrangeBlocksAreFoldedAsOnTheCpu) {
  const std::int64_t count = 300, t = 6, vocab = count * kVocabBlock;
  std::vector<HeadBlock> blocks(t * count, HeadBlock{1.0f, 2.0f, -0.5f, 0.25f});
  std::mt19937 engine(3);
  for (HeadBlock& block : blocks) block.maximum = static_cast<float>(engine() % 1000) * 0.01f;
  blocks[0 * count + 3].maximum = 1000.0f;  // forgotten at the NaN: then later blocks have mass
  blocks[0 * count + 130].maximum = kNaN;
  blocks[1 * count + 299].maximum = kNaN;
  blocks[2 * count + 0].maximum = kNaN;
  blocks[3 * count + 7].maximum = kInf;
  for (std::int64_t b = 0; b < count; ++b) blocks[4 * count + b].maximum = -kInf;
  for (std::int64_t b = 0; b < count; ++b) blocks[5 * count + b].sum = 0;
  const Floats temperature(t, 1.0f), hidden(t, 0.0f), logits(t * vocab, 0.5f);
  const std::vector<double> uniform(t, 0.5);
  const HeadRows host{t, 1, vocab, vocab, hidden.data(), 1, {}, temperature.data()};
  const OnDevice<float> gtemperature(temperature), glogits(logits), glogprob(Floats(t, 0.0f));
  const HeadRows device{t, 1, vocab, vocab, nullptr, 1, {}, gtemperature.data()};
  const OnDevice<HeadBlock> gblocks(blocks);
  const OnDevice<double> guniform(uniform);
  const OnDevice<std::int32_t> gtoken(Ints(t, -9));
  std::vector<const float*> rows;
  for (std::int64_t i = 0; i < t; ++i) rows.push_back(&logits[i * vocab]);
  Ints token(t);
  Floats logprob(t);
  HeadChoose(host, blocks.data(), rows.data(), uniform.data(), token.data(), logprob.data());
  ASSERT_EQ(cuda::HeadChoose(nullptr, device, gblocks.data(), {glogits.data(), vocab, nullptr},
                             guniform.data(), gtoken.data(), glogprob.data()),
            cudaSuccess);
  EXPECT_EQ(gtoken.Read(), token);
  EXPECT_TRUE(SameBits(glogprob.Read(), logprob));
}

}  // namespace
}  // namespace thresher::kernels
