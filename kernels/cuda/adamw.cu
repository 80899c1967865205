#include "kernels/cuda/adamw.h"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Update(std::int64_t n, AdamWFactors f, const float* gradient, float* weights,
                       float* first_moment, float* second_moment) {
  using simt::Add, simt::Mul;
  ForEachUnitOfThread(n, [=](std::int64_t i) {
    const float g = Mul(gradient[i], f.scale);
    const float m = Add(Mul(f.beta1, first_moment[i]), Mul(f.rest1, g));
    const float v = Add(Mul(f.beta2, second_moment[i]), Mul(f.rest2, Mul(g, g)));
    const float denominator = Add(Mul(__fsqrt_rn(v), f.root_correction), f.epsilon);
    first_moment[i] = m;
    second_moment[i] = v;
    weights[i] = simt::Sub(Mul(weights[i], f.keep), Mul(f.step_size, simt::Div(m, denominator)));
  });
}

}  // namespace

cudaError_t AdamWUpdate(cudaStream_t stream, std::int64_t n, const AdamWFactors& factors,
                        const float* gradient, float* weights, float* first_moment,
                        float* second_moment) {
  if (n == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(n, kBlock), kBlock}, Update, n, factors, gradient, weights,
                      first_moment, second_moment);
}

}  // namespace thresher::kernels::cuda
