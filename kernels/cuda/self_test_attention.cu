#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/cuda/self_test_attention.h"
#include "kernels/cuda/self_test_kernels.h"

namespace thresher::kernels::cuda {
namespace {

constexpr std::uint32_t kNowhere = ~0u;
constexpr std::int64_t kLengths[] = {430, 200, 64, 17};  // of sequences
constexpr std::int64_t kPagesEach = (kLengths[0] + kKvPageSize - 1) / kKvPageSize;
constexpr std::int64_t kSequences = std::size(kLengths);

struct TestRows {
  std::vector<std::int32_t> position, sequence;
  std::vector<float> q;  // [T, H, Dh]
  std::int64_t t() const { return static_cast<std::int64_t>(position.size()); }
};

class AttentionTest {
 public:
  AttentionTest(cudaStream_t stream, const Bf16AttentionSelfTest& test)
      : stream_(stream), test_(test), width_(test.heads * test.head_dim), all_(AllRows()) {}

  Bf16AttentionVerdict Run() {
    Take();
    Fill();
    Plain();
    Bf16AttentionVerdict verdict;
    for (int form = 0; form < kBf16AttentionForms; ++form) {
      const std::string fault = FaultOf(static_cast<Bf16AttentionForm>(form));
      if (fault.empty()) verdict.forms |= 1u << form;
      std::string& line = verdict.lines[static_cast<std::size_t>(form)];
      line = std::string("attention, ") +
             Bf16AttentionFormName(static_cast<Bf16AttentionForm>(form)) + ": " +
             (fault.empty() ? "ok, " + Number(worst_) + " of its bound" : "not used: " + fault);
      if (form == 0 && !fault.empty()) verdict.error = line;
    }
    return verdict;
  }

 private:
  static std::string Number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2g", value);
    return text;
  }
  template <class Step>
  void Then(const Step& step) {
    if (error_ == cudaSuccess) error_ = step();
  }

  // Runs of rows and rows alone; queries of every size from 2^-4 to 2^3.
  TestRows AllRows() const {
    TestRows rows;
    const auto add = [&](std::int32_t sequence, std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        rows.position.push_back(static_cast<std::int32_t>(p));
        rows.sequence.push_back(sequence);
      }
    };
    add(0, 0, test_.brief ? 3 : 70);
    add(2, 60, 64);
    add(1, test_.brief ? 126 : 100, 131);
    add(0, kLengths[0] - 1, kLengths[0]);
    add(3, 0, test_.brief ? 2 : 17);
    add(0, 319, 322);
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (std::int64_t t = 0; t < rows.t(); ++t) {
      const float size = std::ldexp(1.0f, static_cast<int>(t % 8) - 4);
      for (std::int64_t i = 0; i < width_; ++i) rows.q.push_back(size * uniform(random));
    }
    return rows;
  }
  // Row i of it is row (first + i * step) % T of all; step 1 keeps runs together.
  TestRows Chosen(std::int64_t first, std::int64_t step, std::int64_t count) const {
    TestRows rows;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t from = (first + i * step) % all_.t();
      rows.position.push_back(all_.position[static_cast<std::size_t>(from)]);
      rows.sequence.push_back(all_.sequence[static_cast<std::size_t>(from)]);
      const auto q = all_.q.begin() + from * width_;
      rows.q.insert(rows.q.end(), q, q + width_);
    }
    return rows;
  }

  void Take() {
    const std::int64_t t = all_.t(), pages = kSequences * kPagesEach;
    const auto page = static_cast<std::int64_t>(KvPageFloats(test_.kv_heads, test_.head_dim));
    k_ = room_.TakeRows(pages, page), v_ = room_.TakeRows(pages, page);
    q_ = room_.Take<float>(t * width_);
    position_ = room_.Take<std::int32_t>(t), sequence_ = room_.Take<std::int32_t>(t);
    table_ = room_.Take<std::int32_t>(pages);
    for (float** values : {&plain_, &bound_, &whole_, &reference_, &some_}) {
      *values = room_.Take<float>(t * width_);
    }
    scratch_.bytes = AttentionScratchBytes(t, test_.heads, test_.head_dim, kLengths[0]);
    scratch_.data = room_.Take<std::byte>(static_cast<std::int64_t>(scratch_.bytes));
    slots_ = room_.Take<std::uint32_t>(3);
    error_ = room_.error;
  }
  void Fill() {
    std::vector<std::int32_t> table(kSequences * kPagesEach);
    for (std::size_t i = 0; i < table.size(); ++i) {
      table[i] = static_cast<std::int32_t>(i * 29 % table.size());  // 29: prime to their number
    }
    static_assert(kSequences * kPagesEach % 29 != 0);
    Then([&] { return FillForTest(stream_, k_, 5, TestFill::kOrdinary); });
    Then([&] { return FillForTest(stream_, v_, 6, TestFill::kOrdinary); });
    Send(table, table_);
  }
  template <class T>
  void Send(const std::vector<T>& from, T* to) {
    Then([&] {
      return cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice,
                             stream_);
    });
    Then([&] { return cudaStreamSynchronize(stream_); });
  }

  // The rows on the device, to be attended to into `out`.
  AttentionArgs Place(const TestRows& rows, float* out) {
    Send(rows.position, position_);
    Send(rows.sequence, sequence_);
    Send(rows.q, q_);
    AttentionArgs args;
    args.rows = {rows.t(), position_, table_, kPagesEach, sequence_};
    args.max_positions = kLengths[0];
    args.heads = test_.heads, args.kv_heads = test_.kv_heads, args.head_dim = test_.head_dim;
    args.q = q_, args.ldq = width_;
    args.scale = 1.0f / std::sqrt(static_cast<float>(test_.head_dim));
    args.kv = {KvType::kBf16, const_cast<std::uint16_t*>(k_.data),
               const_cast<std::uint16_t*>(v_.data), static_cast<std::size_t>(k_.ld)};
    args.out = out, args.ldo = width_;
    return args;
  }
  void Plain() {
    const AttentionArgs args = Place(all_, plain_);
    Then([&] { return AttentionBf16Plain(stream_, args); });
    Then([&] { return AttentionBf16Bounds(stream_, args, bound_); });
  }
  void Attend(Bf16AttentionForm form, const TestRows& rows, float* out) {
    const AttentionArgs args = Place(rows, out);
    Then([&] { return AttentionBf16By(stream_, args, scratch_, form); });
    if (!test_.after) return;
    Then([&] { return cudaStreamSynchronize(stream_); });
    if (error_ == cudaSuccess) test_.after(form, rows.t(), out);
  }

  // Empty: the form may be used. An error of a launch ends the test of those that follow too.
  std::string FaultOf(Bf16AttentionForm form) {
    float* const whole = form == Bf16AttentionForm::kRows ? reference_ : whole_;
    Attend(form, all_, whole);
    Then([&] { return cudaMemsetAsync(slots_, 0xff, 3 * sizeof *slots_, stream_); });
    Then([&] {
      return WorstOverBound(stream_, all_.t() * width_, whole, plain_, bound_, 2.0, 1e-30, slots_);
    });
    Then([&] {
      return FirstDifference(stream_, all_.t(), width_, whole, reference_, 0, 1, all_.t(),
                             slots_ + 2);
    });
    const std::array<std::uint32_t, 3> seen = Answers();
    if (error_ != cudaSuccess) return std::string("it does not run: ") + cudaGetErrorString(error_);
    worst_ = std::bit_cast<float>(seen[0]);
    if (!(worst_ <= 1)) return Number(worst_) + " times its bound off the plain form" + At(seen[1]);
    if (seen[2] != kNowhere) return "not the bits of rows" + At(seen[2]);
    return Impurity(form, whole);
  }
  // Rows apart, in runs of other lengths, in another order.
  std::string Impurity(Bf16AttentionForm form, const float* whole) {
    const std::int64_t batches[][3] = {{0, 1, 1},   {5, 1, 3},  {1, 1, 2},   {3, 7, 5},
                                       {2, 1, 7},   {9, 11, 8}, {40, 1, 29}, {17, 37, 60},
                                       {66, 1, 41}, {80, 1, 1}, {110, 1, 12}};
    for (const auto& [first, step, count] : batches) {
      if (test_.brief && count > 3) continue;
      const TestRows rows = Chosen(first % all_.t(), step, std::min(count, all_.t()));
      Attend(form, rows, some_);
      Then([&] { return cudaMemsetAsync(slots_, 0xff, 3 * sizeof *slots_, stream_); });
      Then([&] {
        return FirstDifference(stream_, rows.t(), width_, some_, whole, first % all_.t(), step,
                               all_.t(), slots_);
      });
      const std::uint32_t where = Answers()[0];
      if (error_ != cudaSuccess) break;
      if (where != kNowhere) return "a row's bits depend on its batch" + At(where);
    }
    return error_ == cudaSuccess ? ""
                                 : std::string("it does not run: ") + cudaGetErrorString(error_);
  }
  std::array<std::uint32_t, 3> Answers() {
    std::array<std::uint32_t, 3> seen{};
    Then([&] {
      return cudaMemcpyAsync(seen.data(), slots_, sizeof seen, cudaMemcpyDeviceToHost, stream_);
    });
    Then([&] { return cudaStreamSynchronize(stream_); });
    return seen;
  }
  std::string At(std::uint32_t index) const {
    const std::int64_t i = index;
    return ", row " + std::to_string(i / width_) + ", head " +
           std::to_string(i % width_ / test_.head_dim) + ", dimension " +
           std::to_string(i % test_.head_dim);
  }

  cudaStream_t stream_;
  const Bf16AttentionSelfTest& test_;
  const std::int64_t width_;
  const TestRows all_;
  TestRoom room_;
  Bf16Rows k_, v_;  // a page a row
  float* q_ = nullptr;
  std::int32_t *position_ = nullptr, *sequence_ = nullptr, *table_ = nullptr;
  float *plain_ = nullptr, *bound_ = nullptr;
  float *whole_ = nullptr, *reference_ = nullptr, *some_ = nullptr;  // reference: of kRows
  AttentionScratch scratch_;
  std::uint32_t* slots_ = nullptr;
  double worst_ = 0;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

Bf16AttentionVerdict RunBf16AttentionSelfTest(cudaStream_t stream,
                                              const Bf16AttentionSelfTest& test) {
  return AttentionTest(stream, test).Run();
}

}  // namespace thresher::kernels::cuda
