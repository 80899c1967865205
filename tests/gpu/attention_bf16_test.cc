// Attention of cuda-bf16-sm90-v1: its forms give the same bits for a row whatever stands beside it,
// within the bound of exact arithmetic; so does the plain form.
#include "kernels/cuda/attention_bf16.h"

#include "tests/gpu/attention_bf16_testing.h"

namespace thresher::kernels::cuda {
namespace {

using namespace testing;
using kernels::testing::kInf;
using kernels::testing::kNaN;
using kernels::testing::SameBits;

constexpr Heads kHeads[] = {{7, 1, 64}, {4, 2, 128}, {3, 3, 24}};

class CudaAttentionBf16 : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (gpu::OpenDevice(0)->major != 9) GTEST_SKIP() << "compute capability is not 9.0";
  }
};

// A prefill of one sequence beside decode steps of others, padding, rows out of order.
Rows MixedRows() {
  Rows rows;
  rows.Add(0, -1);
  for (std::int32_t p = 40; p < 75; ++p) rows.Add(0, p);
  rows.Add(1, 199);
  rows.Add(0, -1);
  rows.Add(2, 0);
  rows.Add(0, 129);
  rows.Add(0, 3);
  rows.Add(1, 63);
  rows.Add(1, 64);
  rows.Add(2, -5);
  return rows;
}

// One row and head in float64: its results, and the bound of each.
struct ExactRow {
  std::vector<double> out, bound;
  double lse = 0;
};

ExactRow ExactOf(const PagedSequences& s, const Rows& rows, const Floats& q, std::int64_t t,
                 std::int64_t head) {
  const Heads& h = s.heads();
  const std::int64_t g = head / (h.heads / h.kv_heads), dh = h.head_dim;
  const double c = s.Scale() * 1.44269504f;
  const std::int64_t seen = rows.position[static_cast<std::size_t>(t)] + 1;
  std::vector<double> score;
  double magnitude = 0, best = -1e300;
  const auto at = [&](std::int64_t j, std::int64_t d) {
    return static_cast<std::size_t>(s.At(rows.sequence[static_cast<std::size_t>(t)], j) + g * dh +
                                    d);
  };
  for (std::int64_t j = 0; j < seen; ++j) {
    double sum = 0, size = 0;
    for (std::int64_t d = 0; d < dh; ++d) {
      const double product =
          static_cast<double>(AsBf16(q[static_cast<std::size_t>(t * s.QWidth() + head * dh + d)])) *
          AsBf16(s.k[at(j, d)]);
      sum += product, size += std::fabs(product);
    }
    score.push_back(sum * c);
    best = std::max(best, sum * c);
    magnitude = std::max(magnitude, size * c);
  }
  double total = 0;
  for (double& one : score) total += one = std::exp2(one - best);
  ExactRow exact;
  exact.lse = (best + std::log2(total)) * std::log(2.0);
  for (std::int64_t d = 0; d < dh; ++d) {
    double sum = 0, weighted = 0, largest = 0;
    for (std::int64_t j = 0; j < seen; ++j) {
      const double value = AsBf16(s.v[at(j, d)]),
                   weight = score[static_cast<std::size_t>(j)] / total;
      sum += weight * value, weighted += weight * std::fabs(value);
      largest = std::max(largest, std::fabs(value));
    }
    exact.out.push_back(sum);
    exact.bound.push_back(AttentionBf16Bound(dh, seen, magnitude, weighted, largest));
  }
  return exact;
}

// The largest part of its bound that a result is off.
double WorstOf(const PagedSequences& s, const Rows& rows, const Floats& q, const Floats& found) {
  const Heads& h = s.heads();
  double worst = 0;
  for (std::int64_t t = 0; t < rows.t(); ++t) {
    if (rows.position[static_cast<std::size_t>(t)] < 0) continue;
    for (std::int64_t head = 0; head < h.heads; ++head) {
      const ExactRow exact = ExactOf(s, rows, q, t, head);
      for (std::int64_t d = 0; d < h.head_dim; ++d) {
        const auto i = static_cast<std::size_t>(d);
        const double off = std::fabs(
            found[static_cast<std::size_t>(t * s.QWidth() + head * h.head_dim + d)] - exact.out[i]);
        worst = off <= worst * exact.bound[i] ? worst : off / exact.bound[i];
      }
      const double lse = found[q.size() + static_cast<std::size_t>(t * h.heads + head)];
      EXPECT_NEAR(lse, exact.lse, 1e-4) << t << " " << head;
    }
  }
  return worst;
}

TEST_F(CudaAttentionBf16, EveryFormGivesTheSameBitsWithinTheBoundOfExactArithmetic) {
  for (const Heads& h : kHeads) {
    SCOPED_TRACE(std::to_string(h.heads) + "/" + std::to_string(h.kv_heads) + "x" +
                 std::to_string(h.head_dim));
    PagedSequences s(h, {130, 200, 1}, 3, 2.0f);
    s.Write();
    const Rows rows = MixedRows();
    const Floats q = Random(rows.t() * s.QWidth(), 9, 3.0f);
    const Floats plain = AttendedPlainly(s, rows, q);
    EXPECT_LE(WorstOf(s, rows, q, plain), 1.0);
    const Floats expected = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
    const double worst = WorstOf(s, rows, q, expected);
    EXPECT_LE(worst, 1.0);
    EXPECT_GT(worst, 0.01) << "the bound says nothing";
    for (Bf16AttentionForm form : kAllForms) {
      EXPECT_TRUE(SameBits(AttendedBy(s, rows, q, form), expected)) << Bf16AttentionFormName(form);
    }
  }
}

// A row's bits as they are when it is attended to alone.
TEST_F(CudaAttentionBf16, ARowsBitsDependOnNothingBesideIt) {
  const PagedSequences s = [] {
    PagedSequences made({6, 2, 72}, {200, 70, 131}, 21, 2.0f);
    made.Write();
    return made;
  }();
  Rows all;  // of contexts up to and around the ends of splits and pages
  for (std::int32_t p : {0, 1, 14, 15, 16, 62, 63, 64, 65, 127, 128, 190, 191, 192, 199})
    all.Add(0, p);
  for (std::int32_t p : {0, 3, 62, 63, 64, 69}) all.Add(1, p);
  for (std::int32_t p = 118; p < 131; ++p) all.Add(2, p);
  const Floats q = Random(all.t() * s.QWidth(), 9, 3.0f);
  const Floats whole = AttendedBy(s, all, q, Bf16AttentionForm::kRows);
  std::mt19937 random(5);
  for (int mix = 0; mix < 12; ++mix) {
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(all.t()));
    std::iota(chosen.begin(), chosen.end(), 0);
    if (mix % 3 != 0) std::shuffle(chosen.begin(), chosen.end(), random);
    const std::size_t most = mix < 6 ? 3 : chosen.size();
    const std::size_t first = random() % 30;
    chosen.erase(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(first));
    chosen.resize(std::min(1 + random() % most, chosen.size()));
    Rows rows;
    Floats some;
    for (std::int64_t t : chosen) {
      const auto row = static_cast<std::size_t>(t);
      if (random() % 4 == 0) {
        rows.Add(0, -1);
        some.resize(some.size() + static_cast<std::size_t>(s.QWidth()), kNaN);
      }
      rows.Add(all.sequence[row], all.position[row]);
      some.insert(some.end(), q.begin() + t * s.QWidth(), q.begin() + (t + 1) * s.QWidth());
    }
    const Bf16AttentionForm form = kAllForms[mix % 2 == 0 ? 0 : 1 + mix / 2 % 4];
    const Floats found = AttendedBy(s, rows, some, form);
    std::size_t at = 0;
    for (std::int64_t i = 0; i < rows.t(); ++i) {
      if (rows.position[static_cast<std::size_t>(i)] < 0) continue;
      const std::int64_t t = chosen[at++];
      const auto part = [&](const Floats& of, std::int64_t row, std::int64_t count) {
        Floats both(of.begin() + row * s.QWidth(), of.begin() + (row + 1) * s.QWidth());
        const auto lse = of.begin() + count * s.QWidth() + row * s.heads().heads;
        both.insert(both.end(), lse, lse + s.heads().heads);
        return both;
      };
      ASSERT_TRUE(SameBits(part(found, i, rows.t()), part(whole, t, all.t())))
          << Bf16AttentionFormName(form) << " mix " << mix << " row " << t;
    }
  }
}

TEST_F(CudaAttentionBf16, GroupsOfEverySizeGiveTheSameBitsInEveryForm) {
  for (std::int64_t group : {1, 2, 3, 4, 5, 6, 8, 9, 33, 65}) {
    PagedSequences s({group, 1, 16}, {70}, static_cast<unsigned>(group), 2.0f);
    s.Write();
    Rows rows;
    for (std::int32_t p : {5, 6, 69}) rows.Add(0, p);
    const Floats q = Random(rows.t() * s.QWidth(), 9, 3.0f);
    const Floats expected = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
    EXPECT_LE(WorstOf(s, rows, q, expected), 1.0);
    for (Bf16AttentionForm form : kAllForms) {
      EXPECT_TRUE(SameBits(AttendedBy(s, rows, q, form), expected))
          << group << " " << Bf16AttentionFormName(form);
    }
  }
}

TEST_F(CudaAttentionBf16, WhatARowDoesNotSeeIsLeftOutWhateverItIs) {
  PagedSequences s({2, 1, 64}, {140}, 4);
  s.Write();
  Rows rows;
  for (std::int32_t p : {0, 59, 60, 61, 63, 64, 127, 139}) rows.Add(0, p);
  const Floats q = Random(rows.t() * s.QWidth(), 5, 3.0f);
  const Floats before = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
  // From position 60 on: values that are no finite numbers, keys too; the other rows see them.
  s.v[static_cast<std::size_t>(s.At(0, 60) + 7)] = kInf;
  s.v[static_cast<std::size_t>(s.At(0, 130) + 9)] = kNaN;
  s.k[static_cast<std::size_t>(s.At(0, 128))] = -kInf;
  s.Write();
  Floats expected = AttendedPlainly(s, rows, q);
  for (std::int64_t i = 0; i < 2 * s.QWidth(); ++i) {
    ASSERT_EQ(std::isnan(expected[static_cast<std::size_t>(i)]), false);
  }
  for (std::int64_t t = 2; t < rows.t(); ++t) {
    EXPECT_TRUE(std::isnan(expected[static_cast<std::size_t>(t * s.QWidth() + 7)])) << t;
    EXPECT_EQ(std::isnan(expected[static_cast<std::size_t>(t * s.QWidth() + 6)]), t == 7) << t;
  }
  for (Bf16AttentionForm form : kAllForms) {
    const Floats found = AttendedBy(s, rows, q, form);
    const auto of = [&](const Floats& all, std::int64_t begin, std::int64_t end) {
      return Floats(all.begin() + begin * s.QWidth(), all.begin() + end * s.QWidth());
    };
    EXPECT_TRUE(SameBits(of(found, 0, 2), of(before, 0, 2))) << Bf16AttentionFormName(form);
    for (std::size_t i = 0; i < q.size(); ++i) {
      ASSERT_EQ(std::isnan(found[i]), std::isnan(expected[i]))
          << Bf16AttentionFormName(form) << " " << i;
    }
  }
}

TEST_F(CudaAttentionBf16, ALongContextIsFoldedInMoreThanOnePart) {
  PagedSequences s({2, 1, 8}, {64 * 130 + 5}, 4, 4.0f);
  s.Write();
  Rows rows;
  rows.Add(0, 64 * 130 + 4);
  const Floats q = Random(s.QWidth(), 5, 4.0f);
  const Floats expected = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
  EXPECT_TRUE(SameBits(AttendedBy(s, rows, q, Bf16AttentionForm::kSplits8), expected));
  EXPECT_LE(WorstOf(s, rows, q, expected), 1.0);
}

TEST_F(CudaAttentionBf16, ARowBeyondWhatTheSplitsWereMadeForIsNaN) {
  PagedSequences s({2, 1, 8}, {70}, 4);
  s.Write();
  Rows rows;
  rows.Add(0, 69);
  rows.Add(0, 60);
  const Floats q = Random(2 * s.QWidth(), 5);
  Floats expected = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
  std::fill_n(expected.begin(), s.QWidth(), kNaN);
  std::fill_n(expected.begin() + 2 * s.QWidth(), 2, kNaN);
  const OnDevice<std::uint8_t> scratch(
      std::vector<std::uint8_t>(AttentionScratchBytes(2, 2, 8, 64), 0xff));
  const Floats found = Attended(s, rows, q, [&](AttentionArgs args) {
    args.max_positions = 64;
    return AttentionBf16By(nullptr, args, {scratch.data(), AttentionScratchBytes(2, 2, 8, 64)},
                           Bf16AttentionForm::kSplits8);
  });
  EXPECT_TRUE(SameBits(found, expected));
}

TEST_F(CudaAttentionBf16, TheChoiceTakesTheNarrowestFormThatMayBeUsed) {
  const auto only = [](std::initializer_list<Bf16AttentionForm> forms) {
    unsigned bits = 0;
    for (Bf16AttentionForm form : forms) bits |= 1u << static_cast<int>(form);
    return bits;
  };
  using Form = Bf16AttentionForm;
  EXPECT_EQ(Bf16SplitsFormFor(kAllBf16AttentionForms, 8), Form::kSplits8);
  EXPECT_EQ(Bf16SplitsFormFor(kAllBf16AttentionForms, 9), Form::kSplits16);
  EXPECT_EQ(Bf16SplitsFormFor(kAllBf16AttentionForms, 100), Form::kSplits64);
  EXPECT_EQ(Bf16SplitsFormFor(only({Form::kRows, Form::kSplits32, Form::kSplits8}), 9),
            Form::kSplits32);
  EXPECT_EQ(Bf16SplitsFormFor(only({Form::kRows, Form::kSplits8}), 9), Form::kSplits8);
  EXPECT_EQ(Bf16SplitsFormFor(only({Form::kRows}), 9), Form::kRows);
}

TEST_F(CudaAttentionBf16, TheChoiceFallsBackWithoutScratchAndRefusesWhatItDoesNotServe) {
  PagedSequences s({2, 1, 8}, {70}, 4);
  s.Write();
  Rows rows;
  rows.Add(0, 69);
  const Floats q = Random(s.QWidth(), 5);
  const Floats expected = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
  const auto by = [&](AttentionForm form, unsigned forms, cudaError_t error) {
    return Attended(s, rows, q, [&](AttentionArgs args) {
      EXPECT_EQ(AttentionBf16(nullptr, args, {}, forms, form), error);
      return cudaSuccess;
    });
  };
  EXPECT_TRUE(SameBits(by(AttentionForm::kAuto, kAllBf16AttentionForms, cudaSuccess), expected));
  (void)by(AttentionForm::kSplits, kAllBf16AttentionForms, cudaErrorInvalidValue);
  (void)by(AttentionForm::kAuto, kAllBf16AttentionForms - 1, cudaErrorNotSupported);
  (void)Attended(s, rows, q, [&](AttentionArgs args) {
    args.kv.type = KvType::kF32;
    EXPECT_EQ(AttentionBf16(nullptr, args, {}, 1), cudaErrorInvalidValue);
    args.kv.type = KvType::kBf16;
    args.head_dim = 136;
    EXPECT_EQ(AttentionBf16(nullptr, args, {}, 1), cudaErrorInvalidValue);
    return cudaSuccess;
  });
}

TEST_F(CudaAttentionBf16, AGraphIsReplayedWithOtherRows) {
  PagedSequences s({6, 2, 16}, {300, 90}, 6);
  s.Write();
  const Floats q = Random(4 * s.QWidth(), 7);
  const OnDevice<std::int32_t> position(Ints{5, 5, -1, -1}), sequence(Ints{0, 0, 0, 0});
  const OnDevice<float> gq(q), out(Floats(q.size(), kNaN));
  const std::size_t bytes = AttentionScratchBytes(4, 6, 16, 300);
  const OnDevice<std::uint8_t> scratch{std::vector<std::uint8_t>(bytes)};
  const auto stream = gpu::MakeStream();
  ASSERT_TRUE(stream.ok());
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  Rows four;
  for (int i = 0; i < 4; ++i) four.Add(0, 0);
  ASSERT_EQ(cudaStreamBeginCapture(stream->get(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(AttentionBf16(stream->get(),
                          {s.Paged(four, position, sequence), 300, 6, 2, 16, gq.data(), s.QWidth(),
                           s.Scale(), s.Kv(), out.data(), s.QWidth(), nullptr},
                          {scratch.data(), bytes}, kAllBf16AttentionForms),
            cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream->get(), &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
  for (const Rows& rows :
       {Rows{{299, 89, 64, -1}, {0, 1, 0, 0}}, Rows{{3, 127, 0, 12}, {1, 0, 0, 1}}}) {
    const Floats before = out.Read();
    cudaMemcpy(position.data(), rows.position.data(), 16, cudaMemcpyHostToDevice);
    cudaMemcpy(sequence.data(), rows.sequence.data(), 16, cudaMemcpyHostToDevice);
    ASSERT_EQ(cudaGraphLaunch(exec, stream->get()), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream->get()), cudaSuccess);
    Floats expected = AttendedBy(s, rows, q, Bf16AttentionForm::kRows);
    expected.resize(q.size());
    for (std::size_t i = 0; i < q.size(); ++i) {
      if (rows.position[i / static_cast<std::size_t>(s.QWidth())] < 0) expected[i] = before[i];
    }
    EXPECT_TRUE(SameBits(out.Read(), expected));
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace thresher::kernels::cuda
