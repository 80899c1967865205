#include "tests/bench/gpu/cublas_lt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "tests/bench/gpu/measure.h"

// The part of cublasLt.h that is used; that header belongs to no package of the build. Source:
// cuBLAS documentation, "Using the cublasLt API" (values are the same in versions 11 to 13).
namespace thresher::bench {
namespace {

constexpr int kReal32F = 0, kReal16BF = 14;   // CUDA_R_32F, CUDA_R_16BF
constexpr int kCompute32F = 68;               // CUBLAS_COMPUTE_32F
constexpr int kTransposeA = 3;                // CUBLASLT_MATMUL_DESC_TRANSA
constexpr int kWorkspaceBytes = 1;            // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
constexpr std::int32_t kTransposed = 1;       // CUBLAS_OP_T
constexpr std::size_t kWorkspace = 32 << 20;  // what cuBLAS recommends for compute capability 9.0

struct Algorithm {
  std::uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

std::vector<std::string> Places() {
  std::vector<std::string> places;
  if (const char* named = std::getenv("THRESHER_CUBLASLT")) places.emplace_back(named);
  for (const char* folder : {"", "/usr/local/cuda/lib64/", THRESHER_CUBLAS_BESIDE_TORCH "cu13/lib/",
                             THRESHER_CUBLAS_BESIDE_TORCH "cublas/lib/"}) {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
      places.push_back(std::string(folder) + name);
    }
  }
  return places;
}

}  // namespace

struct CublasLt::Calls {
  int (*create)(void**);
  int (*destroy)(void*);
  int (*make_product)(void**, int, int);
  int (*drop_product)(void*);
  int (*set_product)(void*, int, const void*, std::size_t);
  int (*make_layout)(void**, int, std::uint64_t, std::uint64_t, std::int64_t);
  int (*drop_layout)(void*);
  int (*make_preference)(void**);
  int (*drop_preference)(void*);
  int (*set_preference)(void*, int, const void*, std::size_t);
  int (*heuristics)(void*, void*, void*, void*, void*, void*, void*, int, Heuristic*, int*);
  int (*multiply)(void*, void*, const void*, const void*, void*, const void*, void*, const void*,
                  const void*, void*, void*, void*, const Algorithm*, void*, std::size_t,
                  cudaStream_t);

  bool Find(void* library) {
    const auto find = [library](auto& call, const char* name) {
      call = reinterpret_cast<std::remove_reference_t<decltype(call)>>(dlsym(library, name));
      return call != nullptr;
    };
    return find(create, "cublasLtCreate") && find(destroy, "cublasLtDestroy") &&
           find(make_product, "cublasLtMatmulDescCreate") &&
           find(drop_product, "cublasLtMatmulDescDestroy") &&
           find(set_product, "cublasLtMatmulDescSetAttribute") &&
           find(make_layout, "cublasLtMatrixLayoutCreate") &&
           find(drop_layout, "cublasLtMatrixLayoutDestroy") &&
           find(make_preference, "cublasLtMatmulPreferenceCreate") &&
           find(drop_preference, "cublasLtMatmulPreferenceDestroy") &&
           find(set_preference, "cublasLtMatmulPreferenceSetAttribute") &&
           find(heuristics, "cublasLtMatmulAlgoGetHeuristic") && find(multiply, "cublasLtMatmul");
  }
};

struct CublasLt::Product {
  explicit Product(const Calls& calls) : calls(calls) {}
  ~Product() {
    if (description != nullptr) calls.drop_product(description);
    for (void* layout : {w, x, y}) {
      if (layout != nullptr) calls.drop_layout(layout);
    }
  }
  const Calls& calls;
  void *description = nullptr, *w = nullptr, *x = nullptr, *y = nullptr;
  Algorithm algorithm{};
};

CublasLt::CublasLt() : calls_(std::make_unique<Calls>()) {}

CublasLt::~CublasLt() {
  product_.reset();
  if (handle_ != nullptr) calls_->destroy(handle_);
}

std::unique_ptr<CublasLt> CublasLt::Load(std::string* why) {
  *why = "no libcublasLt.so.13 or .12";
  for (const std::string& place : Places()) {
    void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) continue;
    std::unique_ptr<CublasLt> made(new CublasLt());
    if (!made->calls_->Find(library)) {
      *why = place + " lacks a function";
    } else if (made->calls_->create(&made->handle_) != 0) {
      made->handle_ = nullptr;
      *why = place + ": cublasLtCreate failed";
    } else {
      made->path_ = place;
      made->workspace_ = NeedMemory(kWorkspace);
      return made;
    }
  }
  return nullptr;
}

bool CublasLt::Prepare(std::int64_t t, std::int64_t n, std::int64_t k, std::int64_t ldx,
                       std::int64_t ldw, std::int64_t ldy) {
  // Column-major to cuBLAS: y^T [N, T] = (w^T)^T x^T.
  product_ = std::make_unique<Product>(*calls_);
  Product& p = *product_;
  const auto at = [](std::int64_t value) { return static_cast<std::uint64_t>(value); };
  void* preference = nullptr;
  Heuristic found{};
  int count = 0;
  const bool ready =
      calls_->make_product(&p.description, kCompute32F, kReal32F) == 0 &&
      calls_->set_product(p.description, kTransposeA, &kTransposed, sizeof kTransposed) == 0 &&
      calls_->make_layout(&p.w, kReal16BF, at(k), at(n), ldw) == 0 &&
      calls_->make_layout(&p.x, kReal16BF, at(k), at(t), ldx) == 0 &&
      calls_->make_layout(&p.y, kReal16BF, at(n), at(t), ldy) == 0 &&
      calls_->make_preference(&preference) == 0 &&
      calls_->set_preference(preference, kWorkspaceBytes, &kWorkspace, sizeof kWorkspace) == 0 &&
      calls_->heuristics(handle_, p.description, p.w, p.x, p.y, p.y, preference, 1, &found,
                         &count) == 0;
  if (preference != nullptr) calls_->drop_preference(preference);
  p.algorithm = found.algorithm;
  return ready && count == 1 && found.state == 0;
}

cudaError_t CublasLt::Run(cudaStream_t stream, const std::uint16_t* x, const std::uint16_t* w,
                          std::uint16_t* y) {
  const float one = 1, zero = 0;
  const Product& p = *product_;
  const int status =
      calls_->multiply(handle_, p.description, &one, w, p.w, x, p.x, &zero, y, p.y, y, p.y,
                       &p.algorithm, workspace_.data(), workspace_.bytes(), stream);
  return status == 0 ? cudaSuccess : cudaErrorUnknown;
}

}  // namespace thresher::bench
