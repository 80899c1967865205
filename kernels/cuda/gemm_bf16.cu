#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_bf16_kernel.cuh"
#include "kernels/cuda/gemm_bf16_plan.h"
#include "kernels/cuda/tensor_map.h"

namespace thresher::kernels::cuda {
namespace {

// A product as all forms see it: `weights` is the row operand.
struct Call {
  const Bf16Device& device;
  cudaStream_t stream;
  Bf16Rows x, w;
  const Bf16Output& out;
};

template <class Shape, bool kAcross>
cudaError_t Run(const Call& call) {
  // 228 KiB of shared memory, of which each block takes 1 KiB besides.
  static_assert(Shape::kResident * (Shape::kSharedBytes + 1024) <= 228 << 10);
  const Bf16Plan plan =
      MakePlan<Shape>(call.x.rows, kAcross ? call.w.columns : call.w.rows, call.x.columns,
                      call.device.multiprocessors, kBf16ScratchBytes);
  hopper::TensorMap weights, tokens;
  cudaError_t error = hopper::MakeTileMap(call.device.map_encoder, call.w.data, call.w.rows,
                                          call.w.columns, call.w.ld, 64, &weights);
  if (error != cudaSuccess) return error;
  error = hopper::MakeTileMap(call.device.map_encoder, call.x.data, call.x.rows, call.x.columns,
                              call.x.ld, Shape::kTokens, &tokens);
  if (error != cudaSuccess) return error;
  auto* counters = static_cast<unsigned*>(call.device.scratch);
  const Bf16Task task{plan, call.out, counters, reinterpret_cast<float*>(counters + kCounters)};
  const std::int64_t room = std::int64_t{call.device.multiprocessors} * Shape::kResident;
  const std::int64_t blocks = plan.items < room ? plan.items : room;
  return simt::Launch(call.stream,
                      {static_cast<unsigned>(blocks), Shape::kThreads, Shape::kSharedBytes},
                      Bf16Product<Shape, kAcross>, weights, tokens, task);
}

template <bool kAcross>
cudaError_t RunForm(Bf16Form form, const Call& call) {
  switch (form) {
    case Bf16Form::kTile:
      return Run<TileShape, kAcross>(call);
    case Bf16Form::kStream64:
      return Run<Stream64Shape, kAcross>(call);
    case Bf16Form::kStream32:
      return Run<Stream32Shape, kAcross>(call);
    case Bf16Form::kStream16:
      return Run<Stream16Shape, kAcross>(call);
    case Bf16Form::kStream8:
      return Run<Stream8Shape, kAcross>(call);
  }
  return cudaErrorInvalidValue;
}

cudaError_t Dispatch(const Bf16Device& device, cudaStream_t stream, bool grad, Bf16Rows x,
                     Bf16Rows w, const Bf16Output& out) {
  const int form = Bf16FormFor(device.forms, x.rows);
  if (form < 0) return cudaErrorNotSupported;
  return GemmBf16By(device, stream, static_cast<Bf16Form>(form), grad, x, w, out);
}

static_assert(kCounters * sizeof(unsigned) == kBf16LeastScratchBytes);

std::string RuntimeError(const char* call, cudaError_t error) {
  return std::string(kBf16KernelSet) + ": " + call + ": " + cudaGetErrorString(error);
}

}  // namespace

const char* Bf16FormName(Bf16Form form) {
  constexpr const char* kNames[kBf16Forms] = {"tile", "stream64", "stream32", "stream16",
                                              "stream8"};
  return kNames[static_cast<int>(form)];
}

int Bf16FormTokens(Bf16Form form) {
  constexpr int kTokens[kBf16Forms] = {TileShape::kTokens, Stream64Shape::kTokens,
                                       Stream32Shape::kTokens, Stream16Shape::kTokens,
                                       Stream8Shape::kTokens};
  return kTokens[static_cast<int>(form)];
}

std::string OpenBf16Device(cudaStream_t stream, void* scratch, std::size_t scratch_bytes,
                           Bf16Device* device) {
  *device = {};
  if (scratch_bytes < kBf16LeastScratchBytes) {
    return std::string(kBf16KernelSet) + " needs " + std::to_string(kBf16LeastScratchBytes) +
           " bytes of scratch memory or more";
  }
  int index = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&index);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&device->multiprocessors, cudaDevAttrMultiProcessorCount, index);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
  }
  if (error != cudaSuccess) return RuntimeError("cudaDeviceGetAttribute", error);
  if (major != 9 || minor != 0) {
    return std::string(kBf16KernelSet) + " is for compute capability 9.0 (H100, H200); device " +
           std::to_string(index) + " has " + std::to_string(major) + "." + std::to_string(minor);
  }
  error = hopper::FindMapEncoder(&device->map_encoder);
  if (error != cudaSuccess) {
    return RuntimeError("the driver has no tensor maps (CUDA 12 is the first)", error);
  }
  error = cudaMemsetAsync(scratch, 0, kCounters * sizeof(unsigned), stream);
  if (error != cudaSuccess) return RuntimeError("cudaMemsetAsync", error);
  device->scratch = scratch;
  device->scratch_bytes = scratch_bytes;
  return "";
}

int Bf16FormFor(unsigned forms, std::int64_t t) {
  for (int form = kBf16Forms - 1; form >= 0; --form) {
    if ((forms >> form & 1) != 0 && Bf16FormTokens(static_cast<Bf16Form>(form)) >= t) return form;
  }
  for (int form = 0; form < kBf16Forms; ++form) {
    if ((forms >> form & 1) != 0) return form;
  }
  return -1;
}

cudaError_t GemmBf16By(const Bf16Device& device, cudaStream_t stream, Bf16Form form, bool grad,
                       Bf16Rows x, Bf16Rows w, const Bf16Output& out) {
  if (!FollowsRules(x) || !FollowsRules(w) || w.rows < 1) return cudaErrorInvalidValue;
  if (x.columns != (grad ? w.rows : w.columns)) return cudaErrorInvalidValue;
  if (x.rows == 0) return cudaSuccess;
  const Call call{device, stream, x, w, out};
  return grad ? RunForm<true>(form, call) : RunForm<false>(form, call);
}

cudaError_t GemmBf16(const Bf16Device& device, cudaStream_t stream, Bf16Rows x, Bf16Rows w,
                     const Bf16Output& out) {
  return Dispatch(device, stream, /*grad=*/false, x, w, out);
}

cudaError_t GemmBf16InputGrad(const Bf16Device& device, cudaStream_t stream, Bf16Rows dy,
                              Bf16Rows w, const Bf16Output& out) {
  return Dispatch(device, stream, /*grad=*/true, dy, w, out);
}

}  // namespace thresher::kernels::cuda
