// The CUDA runtime's interface on the host. What is put on a stream is done when somebody waits for
// it (or asks for it often enough), in the stream's order, on the thread that waits: the latest
// moment a device may take, so that host code which reads results without waiting, or writes inputs
// that are still needed, is found.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "tests/support/cuda_sim/cuda_sim.h"
#include "tests/support/cuda_sim/device_memory.h"

namespace cuda_sim {

using Work = std::function<void()>;

struct Stream {
  std::deque<Work> queue;
  std::uint64_t put = 0, done = 0;
  int queries = 0;  // without an answer
  bool running = false;
  std::unique_ptr<std::vector<Work>> capture;
};
struct Event {
  Stream* stream = nullptr;  // where it was recorded last
  std::uint64_t position = 0;
  int queries = 0;
  std::chrono::steady_clock::time_point time{};
};
struct Graph {
  std::vector<Work> work;
};
struct GraphExec {
  std::vector<Work> work;
};

namespace {

constexpr int kQueriesUntilDone = 3;

struct Runtime {
  std::recursive_mutex mutex;
  DeviceMemory memory;
  std::map<void*, std::size_t> pinned;
  std::set<Stream*> streams;
  Stream default_stream;
  std::uint64_t kernels = 0;
  std::size_t limit = 0;
  cudaError_t launch_error = cudaSuccess;
  int running = 0;
  int major = kMajor, minor = kMinor;

  Stream& Of(Stream* stream) { return stream == nullptr ? default_stream : *stream; }

  // Does the stream's work up to `position`.
  void RunTo(Stream& stream, std::uint64_t position) {
    if (running++ == 0) memory.Open();
    while (stream.done < position && !stream.queue.empty()) {
      const Work work = std::move(stream.queue.front());
      stream.queue.pop_front();
      work();
      ++stream.done;
    }
    if (--running == 0) memory.Close();
  }
  void RunAll() {
    for (Stream* stream : streams) RunTo(*stream, stream->put);
    RunTo(default_stream, default_stream.put);
  }
  void Put(Stream& stream, Work work) {
    if (stream.capture) {
      stream.capture->push_back(std::move(work));
      return;
    }
    // The default stream waits for all others, and they for it.
    if (&stream == &default_stream) RunAll();
    stream.queue.push_back(std::move(work));
    ++stream.put;
    if (&stream == &default_stream) RunTo(stream, stream.put);
  }
  bool IsPinned(const void* data, std::size_t bytes) {
    auto at = pinned.upper_bound(const_cast<void*>(data));
    if (at == pinned.begin()) return false;
    --at;
    return static_cast<const char*>(data) + bytes <=
           static_cast<const char*>(at->first) + at->second;
  }
};

Runtime& TheRuntime() {
  static auto* runtime = new Runtime;  // outlives what static destructors free
  return *runtime;
}

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t Fails(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace

std::uint64_t KernelsRun() {
  const std::lock_guard lock(TheRuntime().mutex);
  return TheRuntime().kernels;
}
std::size_t UsedBytes() { return TheRuntime().memory.used_bytes(); }
void FailLaunches(cudaError_t error) {
  const std::lock_guard lock(TheRuntime().mutex);
  TheRuntime().launch_error = error;
}
void LimitMemory(std::size_t bytes) {
  const std::lock_guard lock(TheRuntime().mutex);
  TheRuntime().limit = bytes;
}

void PretendCapability(int major, int minor) {
  const std::lock_guard lock(TheRuntime().mutex);
  TheRuntime().major = major;
  TheRuntime().minor = minor;
}

cudaError_t Enqueue(cudaStream_t stream, const Grid& grid, std::function<void()> kernel) {
  Runtime& runtime = TheRuntime();
  const std::lock_guard lock(runtime.mutex);
  if (runtime.launch_error != cudaSuccess) return Fails(runtime.launch_error);
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0 || grid.threads.x == 0) {
    return Fails(cudaErrorInvalidConfiguration);
  }
  runtime.Put(runtime.Of(stream), [grid, kernel = std::move(kernel), &runtime] {
    ++runtime.kernels;
    RunGrid(grid, kernel);
  });
  return cudaSuccess;
}

namespace {

cudaMemcpyKind KindOf(Runtime& runtime, const void* to, const void* from, std::size_t bytes) {
  const bool to_device = runtime.memory.Holds(to, bytes);
  if (runtime.memory.Holds(from, bytes)) {
    return to_device ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost;
  }
  return to_device ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost;
}

void CheckCopy(Runtime& runtime, const void* to, const void* from, std::size_t bytes,
               cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (runtime.memory.Holds(to, bytes) != to_device) Die("a copy to memory of the wrong side");
  if (runtime.memory.Holds(from, bytes) != from_device) Die("a copy from memory of the wrong side");
}

}  // namespace
}  // namespace cuda_sim

using cuda_sim::TheRuntime;
using Lock = std::lock_guard<std::recursive_mutex>;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "simulated";
}
cudaError_t cudaGetLastError() { return std::exchange(cuda_sim::last_error, cudaSuccess); }

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cuda_sim::Fails(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "simulated device");
  properties->totalGlobalMem = cuda_sim::kDeviceBytes;
  properties->major = TheRuntime().major;
  properties->minor = TheRuntime().minor;
  properties->multiProcessorCount = cuda_sim::kMultiprocessors;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int) {
  std::snprintf(text, static_cast<std::size_t>(length), "0000:00:00.0");
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cuda_sim::Fails(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cuda_sim::Fails(cudaErrorInvalidDevice);
  *value = attribute == cudaDevAttrMultiProcessorCount      ? cuda_sim::kMultiprocessors
           : attribute == cudaDevAttrComputeCapabilityMajor ? TheRuntime().major
                                                            : TheRuntime().minor;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = known ? reinterpret_cast<void*>(&cuda_sim::hopper::EncodeTiled) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const Lock lock(TheRuntime().mutex);
  TheRuntime().RunAll();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  *data = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (runtime.limit == 0 || runtime.memory.used_bytes() + bytes <= runtime.limit) {
    *data = runtime.memory.Take(bytes);
  }
  return *data != nullptr ? cudaSuccess : cuda_sim::Fails(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* data) {
  const Lock lock(TheRuntime().mutex);
  if (data == nullptr) return cudaSuccess;
  TheRuntime().RunAll();
  return TheRuntime().memory.Give(data) ? cudaSuccess : cuda_sim::Fails(cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  const Lock lock(TheRuntime().mutex);
  *data = std::malloc(bytes == 0 ? 1 : bytes);
  if (*data == nullptr) return cuda_sim::Fails(cudaErrorMemoryAllocation);
  std::memset(*data, 0xcb, bytes);
  TheRuntime().pinned[*data] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  const Lock lock(TheRuntime().mutex);
  if (data == nullptr) return cudaSuccess;
  if (TheRuntime().pinned.erase(data) == 0) return cuda_sim::Fails(cudaErrorInvalidValue);
  TheRuntime().RunAll();
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total) {
  const Lock lock(TheRuntime().mutex);
  *total = TheRuntime().limit == 0 ? cuda_sim::kDeviceBytes : TheRuntime().limit;
  const std::size_t used = TheRuntime().memory.used_bytes();
  *free_bytes = used < *total ? *total - used : 0;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyDefault) kind = cuda_sim::KindOf(runtime, to, from, bytes);
  cuda_sim::CheckCopy(runtime, to, from, bytes, kind);
  auto& at = runtime.Of(stream);
  const bool to_host = kind == cudaMemcpyDeviceToHost, from_host = kind == cudaMemcpyHostToDevice;
  const bool pageable =
      (to_host && !runtime.IsPinned(to, bytes)) || (from_host && !runtime.IsPinned(from, bytes));
  if (pageable && at.capture) return cuda_sim::Fails(cudaErrorStreamCaptureUnsupported);
  if (pageable && from_host) {  // taken at once
    const auto* begin = static_cast<const char*>(from);
    auto held = std::make_shared<std::vector<char>>(begin, begin + bytes);
    runtime.Put(at, [=] { std::memcpy(to, held->data(), bytes); });
    return cudaSuccess;
  }
  runtime.Put(at, [=] { std::memmove(to, from, bytes); });
  if (pageable) runtime.RunTo(at, at.put);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  if (bytes == 0) return cudaSuccess;
  if (!runtime.memory.Holds(to, bytes)) cuda_sim::Die("cudaMemsetAsync outside device memory");
  runtime.Put(runtime.Of(stream), [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(TheRuntime().mutex);
  *stream = new cuda_sim::Stream;
  TheRuntime().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  TheRuntime().RunTo(*stream, stream->put);
  TheRuntime().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  auto& at = TheRuntime().Of(stream);
  TheRuntime().RunTo(at, at.put);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  auto& at = TheRuntime().Of(stream);
  if (at.done == at.put) return cudaSuccess;
  if (++at.queries < cuda_sim::kQueriesUntilDone) return cudaErrorNotReady;
  at.queries = 0;
  TheRuntime().RunTo(at, at.put);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  cuda_sim::Stream* const from = event->stream;
  const std::uint64_t position = event->position;
  if (from == nullptr) return cudaSuccess;
  runtime.Put(runtime.Of(stream), [=, &runtime] {
    if (from == &runtime.default_stream || runtime.streams.contains(from)) {
      runtime.RunTo(*from, position);
    }
  });
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new cuda_sim::Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(TheRuntime().mutex);
  TheRuntime().RunAll();  // a record on its way names it
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  auto& at = runtime.Of(stream);
  runtime.Put(at, [event] { event->time = std::chrono::steady_clock::now(); });
  event->stream = &at;
  event->position = at.put;
  event->queries = 0;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(TheRuntime().mutex);
  if (event->stream == nullptr || event->stream->done >= event->position) return cudaSuccess;
  if (++event->queries < cuda_sim::kQueriesUntilDone) return cudaErrorNotReady;
  TheRuntime().RunTo(*event->stream, event->position);
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(TheRuntime().mutex);
  if (event->stream != nullptr) TheRuntime().RunTo(*event->stream, event->position);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const Lock lock(TheRuntime().mutex);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(TheRuntime().mutex);
  if (stream == nullptr) return cuda_sim::Fails(cudaErrorStreamCaptureUnsupported);
  stream->capture = std::make_unique<std::vector<cuda_sim::Work>>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(TheRuntime().mutex);
  if (stream == nullptr || !stream->capture) return cuda_sim::Fails(cudaErrorInvalidValue);
  *graph = new cuda_sim::Graph{std::move(*stream->capture)};
  stream->capture.reset();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  // A real one takes about so much of the device; here it only has to be there.
  const std::size_t bytes = graph->work.size() * (std::size_t{10} << 10);
  if (runtime.limit != 0 && runtime.memory.used_bytes() + bytes > runtime.limit) {
    return cuda_sim::Fails(cudaErrorMemoryAllocation);
  }
  *exec = new cuda_sim::GraphExec{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  if (runtime.launch_error != cudaSuccess) return cuda_sim::Fails(runtime.launch_error);
  for (const cuda_sim::Work& work : exec->work) runtime.Put(runtime.Of(stream), work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
