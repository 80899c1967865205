// The gradients of attention and head on a device: bit for bit what kernels/cpu gives.
#include <numeric>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/head.h"
#include "kernels/cuda/attention_backward.h"
#include "kernels/cuda/head_backward.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using gpu::testing::OnDevice;
using Ints = std::vector<std::int32_t>;

struct Heads {
  std::int64_t heads, kv_heads, head_dim;
};

class CudaBackward : public gpu::testing::DeviceTest {};

// Row-major, `pad` columns wider than what is used; dq, dk, dv as found.
struct AttentionGrads {
  Floats dq, dk, dv;
};

AttentionBackwardArgs Args(const Heads& h, std::int64_t t) {
  AttentionBackwardArgs a{};
  a.t = t, a.heads = h.heads, a.kv_heads = h.kv_heads, a.head_dim = h.head_dim;
  a.ldq = a.ldo = a.lddo = a.lddq = h.heads * h.head_dim + 1;
  a.ldk = a.ldv = a.lddk = a.lddv = h.kv_heads * h.head_dim + 3;
  a.scale = 1.0f / std::sqrt(static_cast<float>(h.head_dim));
  return a;
}

TEST_F(CudaBackward, AttentionOfSeveralSequencesIsTheCpusOfEach) {
  for (const Heads& h :
       {Heads{4, 2, 24}, Heads{2, 1, 64}, Heads{1, 1, 128}, Heads{2, 1, 256}, Heads{3, 1, 8}}) {
    // More than a chunk of positions where it is cheap; a sequence without rows.
    const Ints begin = h.head_dim == 8 ? Ints{0, 600, 601, 601} : Ints{0, 70, 71, 71, 135};
    const std::int64_t t = begin.back();
    AttentionBackwardArgs a = Args(h, t);
    const Floats q = Random(t * a.ldq, 1, 2.0f), k = Random(t * a.ldk, 2, 2.0f),
                 v = Random(t * a.ldv, 3), out = Random(t * a.ldo, 4), dout = Random(t * a.lddo, 5),
                 lse = Random(t * h.heads, 6, 3.0f);
    Floats dq(t * a.lddq, kNaN), dk(t * a.lddk, kNaN), dv(t * a.lddv, kNaN);
    for (std::size_t s = 0; s + 1 < begin.size(); ++s) {
      const std::int64_t row = begin[s];
      AttentionBackwardArgs one = a;
      one.t = begin[s + 1] - row;
      one.q = &q[row * a.ldq], one.k = &k[row * a.ldk], one.v = &v[row * a.ldv];
      one.out = &out[row * a.ldo], one.dout = &dout[row * a.lddo], one.lse = &lse[row * h.heads];
      one.dq = &dq[row * a.lddq], one.dk = &dk[row * a.lddk], one.dv = &dv[row * a.lddv];
      if (one.t > 0) AttentionBackward(one);
    }
    const OnDevice<float> gq(q), gk(k), gv(v), gout(out), gdout(dout), glse(lse),
        gdq(Floats(dq.size(), kNaN)), gdk(Floats(dk.size(), kNaN)), gdv(Floats(dv.size(), kNaN)),
        scratch(Floats(cuda::AttentionBackwardScratchBytes(t, h.heads) / sizeof(float), kNaN));
    a.q = gq.data(), a.k = gk.data(), a.v = gv.data(), a.out = gout.data(), a.dout = gdout.data();
    a.lse = glse.data(), a.dq = gdq.data(), a.dk = gdk.data(), a.dv = gdv.data();
    const OnDevice<std::int32_t> gbegin(begin);
    ASSERT_EQ(
        cuda::AttentionBackward(
            nullptr, a, {static_cast<std::int64_t>(begin.size()) - 1, gbegin.data(), begin[1]},
            scratch.data()),
        cudaSuccess);
    EXPECT_TRUE(SameBits(gdq.Read(), dq)) << h.heads << "x" << h.head_dim;
    EXPECT_TRUE(SameBits(gdk.Read(), dk)) << h.heads << "x" << h.head_dim;
    EXPECT_TRUE(SameBits(gdv.Read(), dv)) << h.heads << "x" << h.head_dim;
  }
}

TEST_F(CudaBackward, HeadGradientsAreTheCpusWhateverTheScratchHolds) {
  struct Shape {
    std::int64_t t, d, v, valid_vocab;
    WeightType type;
    bool entropy;
  };
  for (const Shape& s : {Shape{5, 40, 300, 291, WeightType::kBf16, true},
                         Shape{60, 33, 1100, 1100, WeightType::kF32, false},
                         Shape{130, 520, 130, 129, WeightType::kF16, true}}) {
    const std::int64_t ldh = s.d + 1, lddh = s.d + 2;
    const Floats hidden = Random(s.t * ldh, 1), dlogprob = Random(s.t, 2),
                 dentropy = Random(s.t, 3), before = Random(s.v * s.d, 4);
    Floats w32 = Random(s.v * s.d, 5);
    const Halves w16 = s.type == WeightType::kF32 ? Halves() : RandomHalves(s.type, s.v * s.d, 5);
    const void* w = s.type == WeightType::kF32 ? static_cast<const void*>(w32.data()) : w16.data();
    const Image head = Packed(s.type, s.v, s.d, w),
                transposed = PackedTransposed(s.type, s.v, s.d, w);
    Floats temperature, logprob(s.t), lse(s.t), entropy(s.t);
    Ints targets;
    for (std::int64_t t = 0; t < s.t; ++t) {
      temperature.push_back(t % 3 == 0 ? 0.0f : 0.6f);
      targets.push_back(static_cast<std::int32_t>(t * 97 % s.valid_vocab));
    }
    HeadLogProb(s.t, s.d, s.v, s.valid_vocab, hidden.data(), ldh, head.matrix(), temperature.data(),
                targets.data(), logprob.data(), lse.data(), entropy.data());
    Floats dhidden(s.t * lddh, kNaN), dhead = before;
    HeadBackwardArgs a{s.t,
                       s.d,
                       s.v,
                       s.valid_vocab,
                       hidden.data(),
                       ldh,
                       head.matrix(),
                       transposed.matrix(),
                       temperature.data(),
                       targets.data(),
                       lse.data(),
                       dlogprob.data(),
                       s.entropy ? entropy.data() : nullptr,
                       s.entropy ? dentropy.data() : nullptr,
                       dhidden.data(),
                       lddh,
                       dhead.data()};
    HeadBackward(a);
    const OnDevice<float> ghidden(hidden), gtemperature(temperature), glse(lse), gentropy(entropy),
        gdlogprob(dlogprob), gdentropy(dentropy);
    const OnDevice<std::uint8_t> ghead(head.bytes()), gtransposed(transposed.bytes());
    const OnDevice<std::int32_t> gtargets(targets);
    for (std::size_t bytes : {cuda::HeadBackwardLeastScratchBytes(s.t),
                              cuda::HeadBackwardLeastScratchBytes(s.t) * 2 + 100,
                              cuda::HeadBackwardScratchBytes(s.t, s.valid_vocab)}) {
      const OnDevice<std::uint8_t> scratch(std::vector<std::uint8_t>(bytes, 0xff));
      const OnDevice<float> gdhidden(Floats(dhidden.size(), kNaN)), gdhead(before);
      HeadBackwardArgs g{s.t,
                         s.d,
                         s.v,
                         s.valid_vocab,
                         ghidden.data(),
                         ldh,
                         {ghead.data(), s.type},
                         {gtransposed.data(), s.type},
                         gtemperature.data(),
                         gtargets.data(),
                         glse.data(),
                         gdlogprob.data(),
                         s.entropy ? gentropy.data() : nullptr,
                         s.entropy ? gdentropy.data() : nullptr,
                         gdhidden.data(),
                         lddh,
                         gdhead.data()};
      ASSERT_EQ(cuda::HeadBackward(nullptr, g, scratch.data(), bytes), cudaSuccess);
      EXPECT_TRUE(SameBits(gdhidden.Read(), dhidden)) << s.t << " " << bytes;
      EXPECT_TRUE(SameBits(gdhead.Read(), dhead)) << s.t << " " << bytes;
      g.dhidden = nullptr;
      g.dhead = nullptr;
      EXPECT_EQ(cuda::HeadBackward(nullptr, g, scratch.data(), bytes), cudaSuccess);
    }
    HeadBackwardArgs refused{};
    refused.t = s.t, refused.d = s.d, refused.v = s.v, refused.valid_vocab = s.valid_vocab;
    EXPECT_EQ(cuda::HeadBackward(nullptr, refused, nullptr, 100), cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace thresher::kernels
