#include <bit>
#include <cmath>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention_bf16_backward.h"
#include "kernels/cuda/self_test_attention.h"
#include "kernels/cuda/self_test_kernels.h"

namespace thresher::kernels::cuda {
namespace {

constexpr std::uint32_t kNowhere = ~0u;

// Gradients of seeded sequences: all in one call, the last one alone, and by the plain form, of the
// values and of their sizes.
class GradTest {
 public:
  GradTest(cudaStream_t stream, const Bf16AttentionSelfTest& test)
      : stream_(stream),
        test_(test),
        begin_(test.brief ? std::vector<std::int32_t>{0, 3, 70}
                          : std::vector<std::int32_t>{0, 130, 131, 331}),
        t_(begin_.back()),
        width_(test.heads * test.head_dim),
        kv_width_(test.kv_heads * test.head_dim),
        values_(t_ * (width_ + 2 * kv_width_)) {}

  std::string Run() {
    Take();
    Fill();
    Put(whole_, 0, [](auto... args) { return AttentionBackwardBf16(args...); });
    Put(plain_, 0, [](auto... args) { return AttentionBackwardBf16Plain(args..., false); });
    Put(sizes_, 0, [](auto... args) { return AttentionBackwardBf16Plain(args..., true); });
    // The last sequence's rows in their places, the others' as they are.
    Then([&] {
      return cudaMemcpyAsync(apart_, whole_, static_cast<std::size_t>(values_) * sizeof(float),
                             cudaMemcpyDeviceToDevice, stream_);
    });
    Put(apart_, begin_.size() - 2, [](auto... args) { return AttentionBackwardBf16(args...); });
    Then([&] { return cudaStreamSynchronize(stream_); });
    if (error_ == cudaSuccess && test_.after_grad) test_.after_grad(whole_, apart_);
    return Answer();
  }

 private:
  template <class Step>
  void Then(const Step& step) {
    if (error_ == cudaSuccess) error_ = step();
  }
  void Take() {
    for (float** of_q : {&q_, &dout_, &out_}) *of_q = room_.Take<float>(t_ * width_);
    for (float** of_k : {&k_, &v_}) *of_k = room_.Take<float>(t_ * kv_width_);
    lse_ = room_.Take<float>(t_ * test_.heads);
    for (float** grads : {&whole_, &plain_, &sizes_, &apart_}) *grads = room_.Take<float>(values_);
    scratch_ = room_.Take<std::byte>(static_cast<std::int64_t>(
        AttentionBackwardBf16ScratchBytes(t_, test_.heads, test_.kv_heads, test_.head_dim)));
    begins_ = room_.Take<std::int32_t>(static_cast<std::int64_t>(begin_.size()) + 2);
    slots_ = room_.Take<std::uint32_t>(3);
    error_ = room_.error;
  }
  template <class T>
  void Send(const std::vector<T>& from, T* to) {
    Then([&] {
      return cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice,
                             stream_);
    });
    Then([&] { return cudaStreamSynchronize(stream_); });
  }
  // Values in [-1, 1); lse such that probabilities are of every size up to some units.
  void Fill() {
    std::mt19937 random(11);
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto fill = [&](float* to, std::int64_t count) {
      std::vector<float> values(static_cast<std::size_t>(count));
      for (float& value : values) value = uniform(random);
      Send(values, to);
    };
    for (float* of_q : {q_, dout_, out_}) fill(of_q, t_ * width_);
    for (float* of_k : {k_, v_}) fill(of_k, t_ * kv_width_);
    Send(std::vector<float>(static_cast<std::size_t>(t_ * test_.heads), 2.0f), lse_);
    std::vector<std::int32_t> begins = begin_;
    begins.insert(begins.end(), {0, begin_.back() - begin_[begin_.size() - 2]});
    Send(begins, begins_);
  }

  // Gradients [T, H, Dh], [T, K, Dh], [T, K, Dh] of the sequences from `first` on: all, or the
  // last.
  template <class Grads>
  void Put(float* to, std::size_t first, const Grads& grads) {
    const std::int64_t row = begin_[first];
    AttentionBackwardArgs a{};
    a.t = t_ - row;
    a.heads = test_.heads, a.kv_heads = test_.kv_heads, a.head_dim = test_.head_dim;
    a.q = q_ + row * width_, a.k = k_ + row * kv_width_, a.v = v_ + row * kv_width_;
    a.out = out_ + row * width_, a.dout = dout_ + row * width_, a.lse = lse_ + row * test_.heads;
    a.scale = 1.0f / std::sqrt(static_cast<float>(test_.head_dim));
    a.dq = to + row * width_;
    a.dk = to + t_ * width_ + row * kv_width_;
    a.dv = a.dk + t_ * kv_width_;
    a.ldq = a.ldo = a.lddo = a.lddq = width_;
    a.ldk = a.ldv = a.lddk = a.lddv = kv_width_;
    const auto count = static_cast<std::int64_t>(begin_.size() - 1 - first);
    const Sequences sequences{count, first == 0 ? begins_ : begins_ + begin_.size(), t_ - row};
    Then([&] { return grads(stream_, a, sequences, static_cast<void*>(scratch_)); });
  }

  std::string Answer() {
    const double score = 1.45 * std::sqrt(static_cast<double>(test_.head_dim));
    const std::int64_t summed = (t_ + 63) / 64 * 64 * (test_.heads / test_.kv_heads);
    const auto dim = static_cast<double>(test_.head_dim);
    const double least = 2 * AttentionBackwardBf16Bound(test_.head_dim, summed, score, 0, 2 * dim);
    const double factor = 2 * AttentionBackwardBf16Bound(test_.head_dim, summed, score, 1, 0);
    Then([&] { return cudaMemsetAsync(slots_, 0xff, 3 * sizeof *slots_, stream_); });
    Then([&] {
      return WorstOverBound(stream_, values_, whole_, plain_, sizes_, factor, least, slots_);
    });
    Then([&] { return FirstDifference(stream_, 1, values_, apart_, whole_, 0, 1, 1, slots_ + 2); });
    std::uint32_t seen[3] = {};
    Then([&] {
      return cudaMemcpyAsync(seen, slots_, sizeof seen, cudaMemcpyDeviceToHost, stream_);
    });
    Then([&] { return cudaStreamSynchronize(stream_); });
    if (error_ != cudaSuccess) return std::string("it does not run: ") + cudaGetErrorString(error_);
    const float worst = std::bit_cast<float>(seen[0]);
    if (!(worst <= 1)) return std::to_string(worst) + " times its bound off the plain form";
    if (seen[2] != kNowhere) return "a sequence's bits depend on those beside it";
    return "";
  }

  cudaStream_t stream_;
  const Bf16AttentionSelfTest& test_;
  const std::vector<std::int32_t> begin_;
  const std::int64_t t_, width_, kv_width_, values_;
  TestRoom room_;
  float *q_ = nullptr, *dout_ = nullptr, *out_ = nullptr, *k_ = nullptr, *v_ = nullptr;
  float *lse_ = nullptr, *whole_ = nullptr, *plain_ = nullptr, *sizes_ = nullptr, *apart_ = nullptr;
  std::byte* scratch_ = nullptr;
  std::int32_t* begins_ = nullptr;
  std::uint32_t* slots_ = nullptr;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

std::string TestBf16AttentionBackward(cudaStream_t stream, const Bf16AttentionSelfTest& test) {
  return GradTest(stream, test).Run();
}

}  // namespace thresher::kernels::cuda
