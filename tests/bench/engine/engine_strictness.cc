#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "tests/bench/engine/engine_tool.h"
#include "tests/bench/kernels_limits.h"

namespace thresher::bench {
namespace {

using nlohmann::json;
using Floats = std::vector<float>;

constexpr double kTurnSeconds = 5e-3;  // of one implementation, at least

// BLAS as a shared library exports it: 32-bit integers, Fortran's column-major view; and MKL's
// product with a matrix packed once, the fastest it has for weights.
class Blas {
 public:
  explicit Blas(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) Fail(dlerror());
    sgemm_ = reinterpret_cast<Sgemm>(dlsym(library, "sgemm_"));
    sgemv_ = reinterpret_cast<Sgemv>(dlsym(library, "sgemv_"));
    if (sgemm_ == nullptr) Fail((path + " exports no sgemm_").c_str());
    pack_size_ = reinterpret_cast<PackSize>(dlsym(library, "cblas_sgemm_pack_get_size"));
    pack_ = reinterpret_cast<Pack>(dlsym(library, "cblas_sgemm_pack"));
    compute_ = reinterpret_cast<Compute>(dlsym(library, "cblas_sgemm_compute"));
  }
  [[noreturn]] static void Fail(const char* what) {
    std::fprintf(stderr, "engine_tool: %s\n", what);
    std::exit(1);
  }
  bool packs() const { return pack_size_ != nullptr && pack_ != nullptr && compute_ != nullptr; }
  bool has_vector() const { return sgemv_ != nullptr; }

  // y [M, N] = x [M, K] W^T, W [N, K]: all row-major.
  void Product(int m, int n, int k, const float* x, const float* w, float* y) const {
    const float one = 1, zero = 0;
    sgemm_("T", "N", &n, &m, &k, &one, w, &k, x, &k, &zero, y, &n);
  }
  // The same for one row.
  void Vector(int n, int k, const float* x, const float* w, float* y) const {
    const float one = 1, zero = 0;
    const int step = 1;
    sgemv_("T", &k, &n, &one, w, &k, x, &step, &zero, y, &step);
  }
  Floats Packed(int m, int n, int k, const float* w) const {
    Floats image(pack_size_(kWeights, m, n, k) / sizeof(float) + 16);
    pack_(kRowMajor, kWeights, kTransposed, m, n, k, 1, w, k, image.data());
    return image;
  }
  void PackedProduct(int m, int n, int k, const float* x, const float* packed, float* y) const {
    compute_(kRowMajor, kPlain, kPacked, m, n, k, x, k, packed, k, 0, y, n);
  }

 private:
  static constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112, kPacked = 151;
  static constexpr int kWeights = 162;  // the right-hand matrix
  using Sgemm = void (*)(const char*, const char*, const int*, const int*, const int*, const float*,
                         const float*, const int*, const float*, const int*, const float*, float*,
                         const int*);
  using Sgemv = void (*)(const char*, const int*, const int*, const float*, const float*,
                         const int*, const float*, const int*, const float*, float*, const int*);
  using PackSize = std::size_t (*)(int, int, int, int);
  using Pack = void (*)(int, int, int, int, int, int, float, const float*, int, float*);
  using Compute = void (*)(int, int, int, int, int, int, const float*, int, const float*, int,
                           float, float*, int);
  Sgemm sgemm_;
  Sgemv sgemv_;
  PackSize pack_size_;
  Pack pack_;
  Compute compute_;
};

// W [N, K] in each implementation's form.
struct Product {
  int n, k;
  Floats plain;
  PackedWeights strict;
  Floats packed;  // the library's; empty if it does not pack
};

class Products {
 public:
  Products(const Blas& blas, const json& request) : blas_(blas), rows_(request.at("rows")) {
    std::size_t widest_x = 0, widest_y = 0;
    std::uint32_t seed = 0;
    for (const auto& [n, k, count] :
         request.at("products").get<std::vector<std::array<int, 3>>>()) {
      for (int i = 0; i < count; ++i) {
        Floats plain = SmallValues(std::int64_t{n} * k, ++seed);
        PackedWeights strict(kernels::WeightType::kF32, n, k, plain.data());
        Floats packed = blas.packs() ? blas.Packed(rows_, n, k, plain.data()) : Floats{};
        products_.push_back({n, k, std::move(plain), std::move(strict), std::move(packed)});
      }
      widest_x = std::max(widest_x, static_cast<std::size_t>(k) * rows_);
      widest_y = std::max(widest_y, static_cast<std::size_t>(n) * rows_);
    }
    x_ = SmallValues(static_cast<std::int64_t>(widest_x), 77);
    y_.resize(widest_y);
  }

  std::map<std::string, std::function<void(const Product&)>> Implementations() {
    std::map<std::string, std::function<void(const Product&)>> out;
    out["strict"] = [this](const Product& p) {
      kernels::Gemm(rows_, p.n, p.k, x_.data(), p.k, p.strict.matrix(), nullptr, y_.data(), p.n);
    };
    out["sgemm"] = [this](const Product& p) {
      blas_.Product(rows_, p.n, p.k, x_.data(), p.plain.data(), y_.data());
    };
    if (blas_.has_vector() && rows_ == 1) {
      out["sgemv"] = [this](const Product& p) {
        blas_.Vector(p.n, p.k, x_.data(), p.plain.data(), y_.data());
      };
    }
    if (blas_.packs()) {
      out["packed sgemm"] = [this](const Product& p) {
        blas_.PackedProduct(rows_, p.n, p.k, x_.data(), p.packed.data(), y_.data());
      };
    }
    return out;
  }

  template <class Implementation>
  void RunAll(const Implementation& implementation) const {
    for (const Product& product : products_) implementation(product);
  }

  // All implementations give the same first product but for rounding; else the process ends.
  void Check() {
    const Product& p = products_.front();
    Floats expected;
    for (const auto& [name, implementation] : Implementations()) {
      std::fill(y_.begin(), y_.end(), NAN);
      implementation(p);
      if (expected.empty()) expected = y_;
      for (std::size_t i = 0; i < static_cast<std::size_t>(p.n) * rows_; ++i) {
        if (!(std::fabs(y_[i] - expected[i]) < 1e-4f * std::sqrt(static_cast<float>(p.k)))) {
          Blas::Fail((name + " gives another product").c_str());
        }
      }
    }
  }

 private:
  const Blas& blas_;
  int rows_;
  std::vector<Product> products_;
  Floats x_, y_;
};

}  // namespace

json MeasureStrictness(const json& request) {
  const Blas blas(request.at("library"));
  Products products(blas, request);
  products.Check();
  const auto implementations = products.Implementations();
  std::map<std::string, std::vector<double>> seconds;
  const int pairs = request.at("pairs");
  const double once = BestSeconds(3, [&] { products.RunAll(implementations.at("strict")); });
  const int passes = static_cast<int>(kTurnSeconds / once) + 1;
  for (int turn = -1; turn < pairs; ++turn) {  // the first does not count
    for (const auto& [name, implementation] : implementations) {
      const double start = ThreadSeconds();
      for (int pass = 0; pass < passes; ++pass) products.RunAll(implementation);
      if (turn >= 0) seconds[name].push_back((ThreadSeconds() - start) / passes);
    }
  }
  return {{"rows", request.at("rows")}, {"seconds", seconds}};
}

}  // namespace thresher::bench
