// kernels/cuda/attention and kv_cache on a device: bit for bit what kernels/cpu gives.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/attention.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using cuda::AttentionForm;
using cuda::KvType;
using gpu::testing::OnDevice;
using Ints = std::vector<std::int32_t>;

struct Heads {
  std::int64_t heads, kv_heads, head_dim;
};
constexpr Heads kHeads[] = {{4, 2, 24}, {7, 1, 64},  {2, 2, 128},
                            {17, 1, 8}, {40, 1, 16}, {3, 1, 256}};

// The nearest bf16, ties to even; x is finite or infinite.
std::uint16_t ToBf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
Floats AsStored(KvType type, Floats values) {
  if (type == KvType::kF32) return values;
  for (float& value : values) value = Widen(WeightType::kBf16, ToBf16(value));
  return values;
}

// Sequences whose pages are scattered over a pool of NaN, and rows of them in one batch.
struct Batch {
  Heads h;
  std::int64_t ld_table;
  std::vector<std::int64_t> lengths;
  Floats k, v;  // of all positions of all sequences, one after another
  Ints table;   // [S, ld_table]; entries behind a sequence's end are of no page
  std::int64_t pages = 0;

  Batch(const Heads& heads, std::vector<std::int64_t> sequence_lengths, unsigned seed)
      : h(heads), lengths(std::move(sequence_lengths)) {
    const std::int64_t all = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    k = Random(all * KvWidth(), seed);
    v = Random(all * KvWidth(), seed + 1);
    ld_table = *std::max_element(lengths.begin(), lengths.end()) / kKvPageSize + 2;
    table.assign(lengths.size() * ld_table, 1 << 30);
    for (std::int64_t n : lengths) pages += (n + kKvPageSize - 1) / kKvPageSize;
    Ints ids(pages);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    auto id = ids.begin();
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      for (std::int64_t i = 0; i * kKvPageSize < lengths[s]; ++i) table[s * ld_table + i] = *id++;
    }
  }
  std::int64_t QWidth() const { return h.heads * h.head_dim; }
  std::int64_t KvWidth() const { return h.kv_heads * h.head_dim; }
  std::size_t PageFloats() const { return KvPageFloats(h.kv_heads, h.head_dim); }
  std::size_t PoolElements() const { return static_cast<std::size_t>(pages) * 2 * PageFloats(); }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(h.head_dim)); }
};

struct Rows {
  Ints position, sequence;
  void Add(std::int32_t s, std::int32_t p) {
    sequence.push_back(s);
    position.push_back(p);
  }
  std::int64_t t() const { return static_cast<std::int64_t>(position.size()); }
};

Rows AllPositions(const Batch& b) {
  Rows rows;
  for (std::size_t s = 0; s < b.lengths.size(); ++s) {
    for (std::int32_t p = 0; p < b.lengths[s]; ++p) rows.Add(static_cast<std::int32_t>(s), p);
  }
  return rows;
}

// What the CPU gives for the rows that are not padding, lse behind out; NaN for the others.
Floats OnCpu(const Batch& b, const Rows& rows, const Floats& q, KvType type) {
  const Floats k = AsStored(type, b.k), v = AsStored(type, b.v);
  Floats pool(b.PoolElements(), kNaN);
  const KvPages pages{pool.data(), pool.data() + b.PageFloats(), 2 * b.PageFloats()};
  const Rows all = AllPositions(b);
  const auto tables_of = [&](const Rows& of) {
    std::vector<const std::int32_t*> tables;
    for (std::int32_t s : of.sequence) tables.push_back(b.table.data() + s * b.ld_table);
    return tables;
  };
  WriteKv(all.t(), b.h.kv_heads, b.h.head_dim, k.data(), b.KvWidth(), v.data(), b.KvWidth(),
          tables_of(all).data(), all.position.data(), pages);
  Floats out(rows.t() * b.QWidth(), kNaN), lse(rows.t() * b.h.heads, kNaN);
  const auto tables = tables_of(rows);
  for (std::int64_t t = 0; t < rows.t(); ++t) {
    if (rows.position[t] < 0) continue;
    Attention(1, b.h.heads, b.h.kv_heads, b.h.head_dim, q.data() + t * b.QWidth(), b.QWidth(),
              &tables[t], &rows.position[t], b.Scale(), pages, out.data() + t * b.QWidth(),
              b.QWidth(), lse.data() + t * b.h.heads);
  }
  Append(&out, lse);
  return out;
}

// The batch on the device.
class DeviceBatch {
 public:
  DeviceBatch(const Batch& b, KvType type)
      : b_(b),
        type_(type),
        table_(b.table),
        pool_(std::vector<std::uint8_t>(b.PoolElements() * cuda::KvElementBytes(type), 0xff)) {
    const Rows all = AllPositions(b);
    const OnDevice<std::int32_t> position(all.position), sequence(all.sequence);
    const OnDevice<float> k(b.k), v(b.v);
    EXPECT_EQ(cuda::WriteKv(nullptr, Paged(all, position, sequence), b.h.kv_heads, b.h.head_dim,
                            k.data(), b.KvWidth(), v.data(), b.KvWidth(), Kv()),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  }
  cuda::KvCache Kv() const {
    return {type_, pool_.data(), pool_.data() + b_.PageFloats() * cuda::KvElementBytes(type_),
            2 * b_.PageFloats()};
  }
  cuda::PagedRows Paged(const Rows& rows, const OnDevice<std::int32_t>& position,
                        const OnDevice<std::int32_t>& sequence) const {
    return {rows.t(), position.data(), table_.data(), b_.ld_table, sequence.data()};
  }
  std::vector<std::uint8_t> Pool() const { return pool_.Read(); }

  // Out, then lse; NaN where nothing was written.
  Floats Run(const Rows& rows, const Floats& q, AttentionForm form, std::int64_t max_positions,
             bool with_scratch = true) const {
    const OnDevice<std::int32_t> position(rows.position), sequence(rows.sequence);
    const OnDevice<float> gq(q), out(Floats(rows.t() * b_.QWidth(), kNaN)),
        lse(Floats(rows.t() * b_.h.heads, kNaN));
    const OnDevice<std::uint8_t> scratch(std::vector<std::uint8_t>(
        with_scratch
            ? cuda::AttentionScratchBytes(rows.t(), b_.h.heads, b_.h.head_dim, max_positions)
            : 0));
    EXPECT_EQ(cuda::Attention(nullptr,
                              {Paged(rows, position, sequence), max_positions, b_.h.heads,
                               b_.h.kv_heads, b_.h.head_dim, gq.data(), b_.QWidth(), b_.Scale(),
                               Kv(), out.data(), b_.QWidth(), lse.data()},
                              {scratch.data(), scratch.Read().size()}, form),
              cudaSuccess);
    Floats found = out.Read();
    Append(&found, lse.Read());
    return found;
  }

 private:
  const Batch& b_;
  KvType type_;
  OnDevice<std::int32_t> table_;
  OnDevice<std::uint8_t> pool_;
};

class CudaAttention : public gpu::testing::DeviceTest {};

TEST_F(CudaAttention, WriteKvStoresAndReadKvReturnsWhatTheCpuWould) {
  for (KvType type : {KvType::kF32, KvType::kBf16}) {
    Batch b({2, 2, 24}, {37, 5}, 1);
    // Ties, both ways; a carry into the exponent; what becomes infinite; denormals.
    const float special[] = {0x1.01p0f, 0x1.03p0f, 0x1.ffp5f, 0x1.fffffep127f, -0x1.2p-140f, -0.0f};
    std::copy(std::begin(special), std::end(special), b.k.begin());
    std::copy(std::begin(special), std::end(special), b.v.begin() + 7);
    const DeviceBatch device(b, type);
    Rows all = AllPositions(b);
    all.Add(0, -1);  // padding
    const OnDevice<std::int32_t> position(all.position), sequence(all.sequence);
    const OnDevice<float> k(Floats(all.t() * b.KvWidth(), kNaN)), v(k.Read());
    ASSERT_EQ(cuda::ReadKv(nullptr, device.Paged(all, position, sequence), 2, 24, device.Kv(),
                           k.data(), b.KvWidth(), v.data(), b.KvWidth()),
              cudaSuccess);
    Floats expected_k = AsStored(type, b.k), expected_v = AsStored(type, b.v);
    Append(&expected_k, Floats(b.KvWidth(), kNaN));
    Append(&expected_v, Floats(b.KvWidth(), kNaN));
    EXPECT_TRUE(SameBits(k.Read(), expected_k));
    EXPECT_TRUE(SameBits(v.Read(), expected_v));
    // Nothing else of the pool was touched: its 0xff are NaN in both types.
    const auto pool = device.Pool();
    const auto bytes = cuda::KvElementBytes(type);
    std::size_t untouched = 0;
    for (std::size_t i = 0; i < pool.size(); i += bytes) {
      untouched += std::all_of(&pool[i], &pool[i] + bytes, [](auto c) { return c == 0xff; });
    }
    EXPECT_EQ(untouched, b.PoolElements() - 2 * (all.t() - 1) * b.KvWidth());
  }
}

TEST_F(CudaAttention, ANaNStaysOneWhenItIsRounded) {
  Batch b({1, 1, 8}, {1}, 1);
  const std::uint32_t small_payload = 0x7f800001;
  std::memcpy(&b.k[0], &small_payload, sizeof small_payload);
  const DeviceBatch device(b, KvType::kBf16);
  const Rows all = AllPositions(b);
  const OnDevice<std::int32_t> position(all.position), sequence(all.sequence);
  const OnDevice<float> k(Floats(8, 0.0f)), v(Floats(8, 0.0f));
  ASSERT_EQ(cuda::ReadKv(nullptr, device.Paged(all, position, sequence), 1, 8, device.Kv(),
                         k.data(), 8, v.data(), 8),
            cudaSuccess);
  EXPECT_TRUE(std::isnan(k.Read()[0]));
}

TEST_F(CudaAttention, PagesAreCopiedInAllLayersAtOnce) {
  const std::int64_t kv_heads = 3, head_dim = 8, layers = 2, pages = 5;
  const std::size_t page = KvPageFloats(kv_heads, head_dim), layer = pages * 2 * page;
  for (KvType type : {KvType::kF32, KvType::kBf16}) {
    const std::size_t element = cuda::KvElementBytes(type);
    std::vector<std::uint8_t> pool(layers * layer * element);
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<std::uint8_t>(i * 31 >> 3);
    const OnDevice<std::uint8_t> device(pool);
    const OnDevice<std::int32_t> pairs(Ints{4, 0, -1, 2, 1, 3, 2, -1});
    ASSERT_EQ(cuda::CopyPages(nullptr, 4, pairs.data(), layers, layer, kv_heads, head_dim,
                              {type, device.data(), device.data() + page * element, 2 * page}),
              cudaSuccess);
    for (std::int64_t l = 0; l < layers; ++l) {
      for (const auto& [from, to] : {std::pair{4, 0}, std::pair{1, 3}}) {
        const auto at = pool.begin() + static_cast<std::ptrdiff_t>(l * layer * element);
        const auto bytes = static_cast<std::ptrdiff_t>(2 * page * element);
        std::copy_n(at + from * bytes, bytes, at + to * bytes);
      }
    }
    EXPECT_EQ(device.Read(), pool);
  }
}

// A prefill of one sequence beside decode steps of others, padding, rows out of order.
Rows Mixed(const Batch& b) {
  Rows rows;
  rows.Add(0, -1);
  for (std::int32_t p = 40; p < 75; ++p) rows.Add(0, p);
  rows.Add(1, static_cast<std::int32_t>(b.lengths[1]) - 1);
  rows.Add(0, -1);
  rows.Add(2, 0);
  rows.Add(0, 129);
  rows.Add(0, 3);
  rows.Add(1, 63);
  rows.Add(1, 64);
  rows.Add(2, -5);
  return rows;
}

TEST_F(CudaAttention, BothFormsGiveTheBitsOfTheCpu) {
  for (const Heads& h : kHeads) {
    Batch b(h, {130, 200, 1}, 3);
    // Of a position that some rows of the batch see and others do not.
    b.v[60 * b.KvWidth()] = kInf;
    const Rows rows = Mixed(b);
    const Floats q = Random(rows.t() * b.QWidth(), 9, 3.0f);
    for (KvType type : {KvType::kF32, KvType::kBf16}) {
      const DeviceBatch device(b, type);
      const Floats expected = OnCpu(b, rows, q, type);
      for (AttentionForm form : {AttentionForm::kRows, AttentionForm::kSplits}) {
        EXPECT_TRUE(SameBits(device.Run(rows, q, form, 200), expected))
            << h.heads << "x" << h.head_dim << " form " << int(form) << " type " << int(type);
      }
    }
  }
}

TEST_F(CudaAttention, ALongContextIsFoldedInMoreThanOnePart) {
  const Batch b({2, 1, 8}, {64 * 130 + 5}, 4);
  Rows rows;
  rows.Add(0, static_cast<std::int32_t>(b.lengths[0]) - 1);
  const Floats q = Random(b.QWidth(), 5, 4.0f), expected = OnCpu(b, rows, q, KvType::kF32);
  const DeviceBatch device(b, KvType::kF32);
  EXPECT_TRUE(SameBits(device.Run(rows, q, AttentionForm::kSplits, 9000), expected));
  EXPECT_TRUE(SameBits(device.Run(rows, q, AttentionForm::kRows, 9000), expected));
}

TEST_F(CudaAttention, TheChoiceFallsBackWithoutScratchAndRefusesToForceIt) {
  const Batch b({2, 1, 8}, {70}, 4);
  Rows rows;
  rows.Add(0, 69);
  const Floats q = Random(b.QWidth(), 5), expected = OnCpu(b, rows, q, KvType::kF32);
  const DeviceBatch device(b, KvType::kF32);
  EXPECT_TRUE(SameBits(device.Run(rows, q, AttentionForm::kAuto, 70, false), expected));
  EXPECT_TRUE(SameBits(device.Run(rows, q, AttentionForm::kAuto, 70, true), expected));
  cuda::AttentionArgs args;
  args.rows.t = 1;
  args.max_positions = 70;
  args.heads = 2, args.kv_heads = 1, args.head_dim = 8;
  EXPECT_EQ(cuda::Attention(nullptr, args, {}, AttentionForm::kSplits), cudaErrorInvalidValue);
  args.head_dim = 12;
  EXPECT_EQ(cuda::Attention(nullptr, args, {}), cudaErrorInvalidValue);
}

TEST_F(CudaAttention, ARowBeyondWhatTheSplitsWereMadeForIsNaN) {
  const Batch b({2, 1, 8}, {70}, 4);
  Rows rows;
  rows.Add(0, 69);
  rows.Add(0, 60);
  const Floats q = Random(2 * b.QWidth(), 5);
  const DeviceBatch device(b, KvType::kF32);
  const Floats found = device.Run(rows, q, AttentionForm::kSplits, 64);
  Floats expected = OnCpu(b, rows, q, KvType::kF32);
  std::fill_n(expected.begin(), b.QWidth(), kNaN);
  std::fill_n(expected.begin() + 2 * b.QWidth(), 2, kNaN);
  EXPECT_TRUE(SameBits(found, expected));
}

TEST_F(CudaAttention, AGraphIsReplayedWithOtherRows) {
  const Batch b({6, 2, 16}, {300, 90}, 6);
  const DeviceBatch device(b, KvType::kBf16);
  const Ints first_position{5, 5, -1, -1}, first_sequence{0, 0, 0, 0};
  const OnDevice<std::int32_t> position(first_position), sequence(first_sequence);
  const Floats q = Random(4 * b.QWidth(), 7);
  const OnDevice<float> gq(q), out(Floats(q.size(), kNaN));
  const std::size_t bytes = cuda::AttentionScratchBytes(4, 6, 16, 300);
  const OnDevice<std::uint8_t> scratch{std::vector<std::uint8_t>(bytes)};
  const auto stream = gpu::MakeStream();
  ASSERT_TRUE(stream.ok());
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  ASSERT_EQ(cudaStreamBeginCapture(stream->get(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cuda::Attention(
                stream->get(),
                {device.Paged({first_position, first_sequence}, position, sequence), 300, 6, 2, 16,
                 gq.data(), b.QWidth(), b.Scale(), device.Kv(), out.data(), b.QWidth(), nullptr},
                {scratch.data(), bytes}),
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
    Floats expected = Slice(OnCpu(b, rows, q, KvType::kBf16), 0, 4 * b.QWidth());
    for (std::int64_t t = 0; t < 4; ++t) {  // a padding row keeps what it held
      if (rows.position[t] >= 0) continue;
      std::copy_n(before.begin() + t * b.QWidth(), b.QWidth(), expected.begin() + t * b.QWidth());
    }
    EXPECT_TRUE(SameBits(out.Read(), expected));
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace thresher::kernels
