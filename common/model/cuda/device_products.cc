#include "common/model/cuda/device_products.h"

#include "common/log/log.h"
#include "kernels/cuda/attention_bf16.h"
#include "kernels/cuda/attention_bf16_backward.h"
#include "kernels/cuda/convert_bf16.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/self_test.h"
#include "kernels/cuda/self_test_attention.h"
#include "kernels/cuda/weight_grad_bf16.h"

namespace thresher::model {

namespace cuda = kernels::cuda;

namespace {

// The products of the model, each shape once.
std::vector<cuda::Bf16SelfTest::Shape> ShapesOf(const ModelConfig& config, bool gradients) {
  const std::int64_t width = config.width, ffn = config.ffn_width;
  std::vector<cuda::Bf16SelfTest::Shape> shapes = {
      {config.q_width() + 2 * std::int64_t{config.kv_width()}, width},
      {width, config.q_width()},
      {2 * ffn, width},
      {width, ffn},
      {config.vocab, width}};
  if (!gradients) return shapes;
  for (std::size_t i = 0, count = shapes.size(); i < count; ++i) {
    shapes.push_back({shapes[i].n, shapes[i].k, true});
  }
  return shapes;
}

}  // namespace

Result<DeviceProducts> DeviceProducts::Make(const ModelConfig& config, const Options& options,
                                            cudaStream_t stream) {
  DeviceProducts products(options, stream);
  if (options.set == DeviceKernelSet::kBf16) {
    THRESHER_RETURN_IF_ERROR(products.OpenBf16(config));
  }
  return products;
}

Status DeviceProducts::OpenBf16(const ModelConfig& config) {
  const std::string set = cuda::kBf16KernelSet;
  if (config.dtype != kernels::WeightType::kBf16) {
    return FailedPrecondition(set + ": multiplies bfloat16 weights; these are " +
                              kernels::WeightTypeName(config.dtype) +
                              " (use cpu-fp32-v1 for them)");
  }
  THRESHER_RETURN_IF_ERROR(scratch_.Reserve(cuda::kBf16ScratchBytes));
  const std::string refused =
      cuda::OpenBf16Device(stream_, scratch_.data(), scratch_.bytes(), &bf16_);
  if (!refused.empty()) return FailedPrecondition(set + ": " + refused);
  cuda::Bf16SelfTest test;
  test.shapes = ShapesOf(config, options_.gradients);
  test.batches = options_.self_test_batches;
  const cuda::Bf16Verdict verdict = cuda::RunBf16SelfTest(bf16_, stream_, test);
  for (const std::string& line : verdict.lines) LogInfo(set + ": self-test: " + line);
  if (!verdict.error.empty()) return FailedPrecondition(set + ": self-test: " + verdict.error);
  if (options_.gradients && !verdict.weight_grad.empty()) {
    return FailedPrecondition(set + ": self-test: " + verdict.weight_grad);
  }
  bf16_.forms = verdict.forms;
  return TestAttention(config);
}

Status DeviceProducts::TestAttention(const ModelConfig& config) {
  if (!cuda::ServesAttentionBf16(config.head_dim)) return Status::Ok();
  cuda::Bf16AttentionSelfTest test;
  test.heads = config.heads, test.kv_heads = config.kv_heads, test.head_dim = config.head_dim;
  test.brief = !options_.self_test_batches.empty();
  const cuda::Bf16AttentionVerdict verdict = cuda::RunBf16AttentionSelfTest(stream_, test);
  const std::string self_test = std::string(cuda::kBf16KernelSet) + ": self-test: ";
  for (const std::string& line : verdict.lines) LogInfo(self_test + line);
  if (!verdict.error.empty()) return FailedPrecondition(self_test + verdict.error);
  attention_forms_ = verdict.forms;
  if (!options_.gradients) return Status::Ok();
  const std::string fault = cuda::TestBf16AttentionBackward(stream_, test);
  if (!fault.empty()) return FailedPrecondition(self_test + "gradient of attention: " + fault);
  return Status::Ok();
}

Status DeviceProducts::Reserve(const ModelConfig& config, std::size_t rows) {
  if (set() != DeviceKernelSet::kBf16) return Status::Ok();
  const std::size_t count = rows * WidestOperand(config, options_.gradients);
  THRESHER_RETURN_IF_ERROR(x_.Reserve(count));
  return options_.gradients ? dy_.Reserve(count) : Status::Ok();
}

cudaError_t DeviceProducts::Round(std::int64_t t, std::int64_t k, const float* x, std::int64_t ldx,
                                  DeviceArray<std::uint16_t>& to, cuda::Bf16Rows* rows) {
  const std::int64_t ld = cuda::Bf16RowStride(k);
  if (static_cast<std::size_t>(t * ld) > to.size()) return cudaErrorInvalidValue;
  *rows = {to.data(), t, k, ld};
  return cuda::RoundToBf16(stream_, t, k, x, ldx, to.data(), ld);
}

cudaError_t DeviceProducts::Product(std::int64_t t, const DeviceMatrix& w, const float* x,
                                    const float* bias, float* y) {
  if (set() == DeviceKernelSet::kFp32) {
    return cuda::Gemm(stream_, t, w.n, w.k, x, w.k, w.packed, bias, y, w.n);
  }
  cuda::Bf16Rows rounded;
  const cudaError_t error = Round(t, w.k, x, w.k, x_, &rounded);
  if (error != cudaSuccess) return error;
  return cuda::GemmBf16(bf16_, stream_, rounded, w.rows, {.y = y, .ldy = w.n, .bias = bias});
}

cudaError_t DeviceProducts::ProductOf(std::int64_t t, const DeviceMatrix& w, std::int64_t n0,
                                      std::int64_t n1, const float* x, float* y, std::int64_t ldy) {
  cuda::Bf16Rows rounded, part = w.rows;
  part.data += n0 * part.ld;
  part.rows = n1 - n0;
  const cudaError_t error = Round(t, w.k, x, w.k, x_, &rounded);
  if (error != cudaSuccess) return error;
  return cuda::GemmBf16(bf16_, stream_, rounded, part, {.y = y, .ldy = ldy});
}

cudaError_t DeviceProducts::InputGrad(std::int64_t t, const DeviceMatrix& w, const float* dy,
                                      float* dx) {
  if (set() == DeviceKernelSet::kFp32) {
    return cuda::Gemm(stream_, t, w.k, w.n, dy, w.n, w.transposed, nullptr, dx, w.k);
  }
  return InputGradOf(t, w, 0, w.n, dy, w.n, dx, false);
}

cudaError_t DeviceProducts::InputGradOf(std::int64_t t, const DeviceMatrix& w, std::int64_t n0,
                                        std::int64_t n1, const float* dy, std::int64_t lddy,
                                        float* dx, bool accumulate) {
  cuda::Bf16Rows rounded, part = w.rows;
  part.data += n0 * part.ld;
  part.rows = n1 - n0;
  const cudaError_t error = Round(t, n1 - n0, dy, lddy, dy_, &rounded);
  if (error != cudaSuccess) return error;
  cuda::Bf16Output out{.y = dx, .ldy = w.k};
  if (accumulate) out.base = dx, out.ldbase = w.k;
  return cuda::GemmBf16InputGrad(bf16_, stream_, rounded, part, out);
}

cudaError_t DeviceProducts::Attention(const cuda::AttentionArgs& args,
                                      const cuda::AttentionScratch& scratch,
                                      cuda::AttentionForm form) const {
  if (set() == DeviceKernelSet::kBf16 && cuda::ServesAttentionBf16(args.head_dim)) {
    return cuda::AttentionBf16(stream_, args, scratch, attention_forms_, form);
  }
  return cuda::Attention(stream_, args, scratch, form);
}

cudaError_t DeviceProducts::AttentionBackward(const kernels::AttentionBackwardArgs& args,
                                              const cuda::Sequences& sequences,
                                              void* scratch) const {
  if (set() == DeviceKernelSet::kBf16 && cuda::ServesAttentionBf16(args.head_dim)) {
    return cuda::AttentionBackwardBf16(stream_, args, sequences, scratch);
  }
  return cuda::AttentionBackward(stream_, args, sequences, scratch);
}

std::size_t AttentionGradScratchBytes(const ModelConfig& config, DeviceKernelSet set,
                                      std::int64_t rows) {
  if (set == DeviceKernelSet::kBf16 && cuda::ServesAttentionBf16(config.head_dim)) {
    return cuda::AttentionBackwardBf16ScratchBytes(rows, config.heads, config.kv_heads,
                                                   config.head_dim);
  }
  return cuda::AttentionBackwardScratchBytes(rows, config.heads);
}

cudaError_t DeviceProducts::WeightGrad(std::int64_t t, std::int64_t n, std::int64_t k,
                                       const float* dy, std::int64_t lddy, const float* x,
                                       float* dw) {
  if (set() == DeviceKernelSet::kFp32) {
    return cuda::GemmAccumulateWeightGrad(stream_, t, n, k, dy, lddy, x, k, dw);
  }
  cuda::Bf16Rows left, right;
  cudaError_t error = Round(t, n, dy, lddy, dy_, &left);
  if (error == cudaSuccess) error = Round(t, k, x, k, x_, &right);
  if (error != cudaSuccess) return error;
  return cuda::WeightGradBf16(bf16_, stream_, left, right, dw, k);
}

}  // namespace thresher::model
