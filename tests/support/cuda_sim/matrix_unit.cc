// Products of the simulated device's matrix unit (hopper.h).
#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/cuda_sim/block.h"
#include "tests/support/cuda_sim/hopper.h"

namespace cuda_sim::hopper {
namespace {

constexpr unsigned kWarpgroup = 128, kMostThreads = 1024;
constexpr int kRows = 64, kDepth = 16;

float Widened(std::uint16_t value) {
  const std::uint32_t bits = std::uint32_t{value} << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// Where the elements of an operand [mn, 16] lie: in [begin, end), element (i, k) at begin +
// offsets[k * mn + i].
struct Places {
  std::uint32_t begin = ~0u, end = 0;
  std::vector<std::uint32_t> offsets;
};

// A pure function, computed once for each descriptor.
const Places& PlacesOf(std::uint64_t descriptor, bool across, int mn) {
  static thread_local std::map<std::tuple<std::uint64_t, bool, int>, Places> known;
  Places& places = known[{descriptor, across, mn}];
  if (!places.offsets.empty()) return places;
  const Descriptor of = Decode(descriptor);
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < mn; ++i) {
      const std::uint32_t at = ElementAddress(of, across, i, k);
      places.begin = std::min(places.begin, at);
      places.end = std::max(places.end, at + 2);
      places.offsets.push_back(at);
    }
  }
  for (std::uint32_t& at : places.offsets) at -= places.begin;
  return places;
}

// The operand, widened: [16, mn].
std::vector<float> Read(const Places& places) {
  RequireNoCopyTo(places.begin, places.end);
  RequireNoPieceTo(places.begin, places.end);
  const unsigned char* view = AsyncView(places.begin, places.end);
  std::vector<float> values;
  values.reserve(places.offsets.size());
  for (const std::uint32_t offset : places.offsets) {
    std::uint16_t value;
    std::memcpy(&value, view + offset, sizeof value);
    values.push_back(Widened(value));
  }
  return values;
}

// One wgmma.mma_async of a warpgroup.
struct Product {
  std::uint64_t a, b;
  int columns;
  bool across_a, across_b, keep;
  const Places *places_a = nullptr, *places_b = nullptr;
  unsigned left = kWarpgroup;    // threads that have not awaited it
  std::vector<float> sums = {};  // [64, columns], once it is done

  bool SameAs(const Product& o) const {
    return a == o.a && b == o.b && columns == o.columns && across_a == o.across_a &&
           across_b == o.across_b && keep == o.keep;
  }
};

void Do(Product& product) {
  const std::vector<float> a = Read(*product.places_a), b = Read(*product.places_b);
  const auto n = static_cast<std::size_t>(product.columns);
  product.sums.assign(kRows * n, 0.0f);
  for (std::size_t row = 0; row < kRows; ++row) {
    float* sums = &product.sums[row * n];
    for (std::size_t k = kDepth; k-- > 0;) {
      const float left = a[k * kRows + row];
      const float* right = &b[k * n];
      for (std::size_t column = 0; column < n; ++column) sums[column] += left * right[column];
    }
  }
}

struct ThreadState {
  struct Started {
    Sums* sums;
    std::uint64_t product;
  };
  std::deque<std::vector<Started>> groups;  // committed
  std::vector<Started> open;                // not yet
  std::uint64_t started = 0, fences = 1;
};

}  // namespace

// The products under way of the running block.
class MatrixUnit {
 public:
  static MatrixUnit& The() {
    static thread_local MatrixUnit unit;
    return unit;
  }
  ThreadState& thread() {
    used_ = true;
    return threads_[ThreadIndex()];
  }

  void Start(Sums& sums, const Product& product) {
    ThreadState& self = thread();
    if (!(sums.fences_ < self.fences)) Die("sums go to a product without a fence");
    Log& log = logs_[ThreadIndex() / kWarpgroup];
    const std::uint64_t number = self.started++;
    if (number == log.first + log.products.size()) {
      log.products.push_back(product);
      Product& added = log.products.back();
      added.places_a = &PlacesOf(product.a, product.across_a, kRows);
      added.places_b = &PlacesOf(product.b, product.across_b, product.columns);
    }
    const Product& logged = log.products.at(static_cast<std::size_t>(number - log.first));
    if (!logged.SameAs(product)) Die("threads of a warpgroup start different products");
    RequireNoCopyTo(logged.places_a->begin, logged.places_a->end);
    RequireNoCopyTo(logged.places_b->begin, logged.places_b->end);
    ++sums.under_way_;
    sums.settled_ = false;
    self.open.push_back({&sums, number});
  }

  void Commit() {
    ThreadState& self = thread();
    self.groups.push_back(std::move(self.open));
    self.open.clear();
  }

  void Await(std::size_t pending) {
    ThreadState& self = thread();
    while (self.groups.size() > pending) {
      for (const auto& started : self.groups.front()) Finish(*started.sums, started.product);
      self.groups.pop_front();
    }
  }

  void Settle(Sums& sums) {
    if (sums.under_way_ != 0) Die("sums are touched before their product is awaited");
    sums.settled_ = true;
    sums.Touch();
  }

  void RequireNoneOn(std::uint32_t begin, std::uint32_t end) const {
    for (const Log& log : logs_) {
      for (const Product& product : log.products) {
        for (const Places* read : {product.places_a, product.places_b}) {
          if (begin < read->end && read->begin < end) {
            Die("a copy to a tile that a product still reads");
          }
        }
      }
    }
  }

  void Begin() {
    if (!std::exchange(used_, false)) return;
    for (Log& log : logs_) log = {};
    for (ThreadState& state : threads_) state = {};
  }
  void End() const {
    for (const Log& log : logs_) {
      if (!log.products.empty()) {
        Die("a block ends with a product that not all threads of its warpgroup awaited");
      }
    }
  }

 private:
  struct Log {
    std::deque<Product> products;  // not yet awaited by all
    std::uint64_t first = 0;       // number of products[0]
  };

  void Finish(Sums& sums, std::uint64_t number) {
    const unsigned thread = ThreadIndex() % kWarpgroup;
    Log& log = logs_[ThreadIndex() / kWarpgroup];
    Product& product = log.products.at(static_cast<std::size_t>(number - log.first));
    if (product.sums.empty()) Do(product);
    const float* sums_of = product.sums.data();
    for (int i = 0; i < sums.count_; ++i) {
      const int row = static_cast<int>(thread / 32 * 16 + thread % 32 / 4) + 8 * (i / 2 % 2);
      const int column = 8 * (i / 4) + 2 * static_cast<int>(thread % 4) + i % 2;
      const float sum = sums_of[row * product.columns + column];
      sums.values_[i] = product.keep ? sums.values_[i] + sum : sum;
    }
    --sums.under_way_;
    --product.left;
    while (!log.products.empty() && log.products.front().left == 0) {
      log.products.pop_front();
      ++log.first;
    }
  }

  std::array<Log, kMostThreads / kWarpgroup> logs_;
  std::array<ThreadState, kMostThreads> threads_;
  bool used_ = false;  // since Begin
};

Descriptor Decode(std::uint64_t bits) {
  const auto field = [bits](int at) {
    return static_cast<std::uint32_t>(bits >> at & 0x3fff) << 4;
  };
  const Descriptor of{field(0), field(16), field(32), static_cast<int>(bits >> 49 & 7),
                      static_cast<int>(bits >> 62)};
  if (of.base_offset != 0) Die("a descriptor whose pattern does not begin at its alignment");
  // The tile's pattern repeats every 8 rows; inside it only the row's bytes may be advanced.
  constexpr std::uint32_t kRowsOf[] = {0, 128, 64, 32};
  const std::uint32_t row = kRowsOf[of.swizzle];
  if (of.swizzle != 0 && of.start % (8 * row) >= row) Die("a descriptor that is not aligned");
  if (of.swizzle != 0 && of.stride_bytes % (8 * row) != 0) Die("a stride that is not aligned");
  return of;
}

std::uint32_t ElementAddress(const Descriptor& of, bool across, int mn, int k) {
  constexpr std::uint32_t kRowsOf[] = {16, 128, 64, 32};
  constexpr std::uint32_t kMasks[] = {0, 7, 3, 1};
  const std::uint32_t row = kRowsOf[of.swizzle];
  // The index that runs along a row of the pattern, and the one that goes from row to row.
  const auto along = static_cast<std::uint32_t>(across ? mn : k);
  const auto down = static_cast<std::uint32_t>(across ? k : mn);
  std::uint32_t leading = of.leading_bytes, stride = of.stride_bytes;
  if (across && of.swizzle == 0) std::swap(leading, stride);
  const std::uint32_t per_row = row / 2;
  const std::uint32_t in_row = of.start % row + along % per_row * 2;
  if (!across && of.swizzle != 0 && in_row >= row) Die("a descriptor that leaves its row");
  const std::uint32_t at = of.start + along % per_row * 2 + along / per_row * leading +
                           down % 8 * row + down / 8 * stride;
  return at ^ (at >> 7 & kMasks[of.swizzle]) << 4;
}

Sums::Sums(float* values, int count) : values_(values), count_(count) {
  std::memset(values, 0xcb, sizeof(float) * static_cast<std::size_t>(count));
  Touch();
}
Sums::~Sums() {
  if (under_way_ != 0) Die("sums leave their thread before their product is awaited");
}
void Sums::Touch() const { fences_ = MatrixUnit::The().thread().fences; }
float Sums::Get(int i) const {
  if (under_way_ != 0 || !settled_) Die("sums are touched before their product is awaited");
  Touch();
  return values_[i];
}
void Sums::Set(int i, float value) {
  if (under_way_ != 0 || !settled_) Die("sums are touched before their product is awaited");
  Touch();
  values_[i] = value;
}

void FenceSums() { ++MatrixUnit::The().thread().fences; }
void StartProduct(Sums& sums, int columns, std::uint64_t a, std::uint64_t b, bool across_a,
                  bool across_b, bool keep) {
  MatrixUnit::The().Start(sums, {a, b, columns, across_a, across_b, keep});
}
void Commit() { MatrixUnit::The().Commit(); }
void AwaitGroups(int pending) {
  MatrixUnit::The().Await(static_cast<std::size_t>(pending));
  Exchange(0xffffffffu, 0, LaneOfWarp());  // .sync.aligned
}
void SettleSums(Sums& sums) { MatrixUnit::The().Settle(sums); }
void RequireNoProductOn(std::uint32_t begin, std::uint32_t end) {
  MatrixUnit::The().RequireNoneOn(begin, end);
}
void BeginProducts() { MatrixUnit::The().Begin(); }
void EndProducts() { MatrixUnit::The().End(); }

}  // namespace cuda_sim::hopper
