// Attention of one layer over pages, in the arithmetic of both sets of kernels: decode is limited
// by reading keys and values, prefill by arithmetic.
#include <numeric>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_bf16.h"
#include "tests/bench/gpu/device_fill.h"
#include "tests/bench/gpu/session.h"

namespace thresher::bench {
namespace {

using kernels::cuda::AttentionArgs;
using kernels::cuda::KvType;

constexpr std::int64_t kPage = 16, kContexts[] = {1024, 8192}, kBatches[] = {1, 16, 64, 256};
constexpr std::int64_t kPromptTokens = 2048;
constexpr double kMostBytes = 60e9;  // of keys and values; what needs more is not measured

// What is measured: pages of either type in fp32 arithmetic, and bf16 pages on the matrix units.
enum class Kind { kF32, kBf16, kMatrixUnits };
KvType TypeOf(Kind kind) { return kind == Kind::kF32 ? KvType::kF32 : KvType::kBf16; }

gpu::DeviceMemory Sent(const std::vector<std::int32_t>& values) {
  gpu::DeviceMemory memory = NeedMemory(4 * values.size());
  Need(cudaMemcpy(memory.data(), values.data(), 4 * values.size(), cudaMemcpyHostToDevice),
       "cudaMemcpy");
  return memory;
}

// Sequences of `context` positions whose pages lie scattered, and rows over them.
class Rows {
 public:
  // rows_each: the last so many positions of each sequence.
  Rows(Session& session, const BenchShape& shape, std::int64_t batch, std::int64_t context,
       std::int64_t rows_each, KvType type)
      : rows_(batch * rows_each), pages_each_(context / kPage) {
    PlaceRows(batch, context, rows_each);
    FillPages(session.meter.stream(), shape, batch * pages_each_, type);
    const auto q = static_cast<std::size_t>(rows_ * shape.heads * shape.head_dim);
    q_ = NeedMemory(4 * q), out_ = NeedMemory(4 * q);
    Need(FillF32(session.meter.stream(), q_.as<float>(), q, 6, 1.0f), "random queries");
    args_.max_positions = context;
    args_.heads = shape.heads, args_.kv_heads = shape.kv_heads, args_.head_dim = shape.head_dim;
    args_.q = q_.as<float>(), args_.ldq = shape.heads * shape.head_dim;
    args_.scale = 0.1f;
    args_.out = out_.as<float>(), args_.ldo = args_.ldq;
    scratch_ = NeedMemory(
        kernels::cuda::AttentionScratchBytes(rows_, shape.heads, shape.head_dim, context) + 16);
  }

  std::vector<double> Time(Session& session, Kind kind, kernels::cuda::AttentionForm form) {
    const kernels::cuda::AttentionScratch scratch{scratch_.data(), scratch_.bytes()};
    return session.meter.Time([&](int) {
      if (kind != Kind::kMatrixUnits) {
        return kernels::cuda::Attention(session.meter.stream(), args_, scratch, form);
      }
      return kernels::cuda::AttentionBf16(session.meter.stream(), args_, scratch,
                                          kernels::cuda::kAllBf16AttentionForms, form);
    });
  }

 private:
  void PlaceRows(std::int64_t batch, std::int64_t context, std::int64_t rows_each) {
    const std::int64_t pages = batch * pages_each_;
    std::vector<std::int32_t> table(static_cast<std::size_t>(pages)), positions, sequences;
    for (std::int64_t i = 0; i < pages; ++i) {  // 7919 is prime and divides no number of pages here
      table[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 7919 % pages);
    }
    for (std::int64_t s = 0; s < batch; ++s) {
      for (std::int64_t i = 0; i < rows_each; ++i) {
        positions.push_back(static_cast<std::int32_t>(context - rows_each + i));
        sequences.push_back(static_cast<std::int32_t>(s));
      }
    }
    table_ = Sent(table), positions_ = Sent(positions), sequences_ = Sent(sequences);
    args_.rows = {rows_, positions_.as<std::int32_t>(), table_.as<std::int32_t>(), pages_each_,
                  sequences_.as<std::int32_t>()};
  }

  void FillPages(cudaStream_t stream, const BenchShape& shape, std::int64_t pages, KvType type) {
    const auto stride = static_cast<std::size_t>(shape.kv_heads * kPage * shape.head_dim);
    const std::size_t count = static_cast<std::size_t>(pages) * stride;
    k_ = NeedMemory(count * KvElementBytes(type)), v_ = NeedMemory(count * KvElementBytes(type));
    for (const auto* memory : {&k_, &v_}) {
      Need(type == KvType::kBf16 ? FillBf16(stream, memory->as<std::uint16_t>(), count, 5, 1.0f)
                                 : FillF32(stream, memory->as<float>(), count, 5, 1.0f),
           "random keys and values");
    }
    args_.kv = {type, k_.data(), v_.data(), stride};
  }

  std::int64_t rows_, pages_each_;
  gpu::DeviceMemory table_, positions_, sequences_, k_, v_, q_, out_, scratch_;
  AttentionArgs args_;
};

double KvBytes(const BenchShape& shape, std::int64_t batch, std::int64_t context, KvType type) {
  return 2.0 * static_cast<double>(batch * context * shape.kv_heads * shape.head_dim) *
         static_cast<double>(KvElementBytes(type));
}

std::string NameOf(const BenchShape& shape, Kind kind) {
  constexpr const char* kNames[] = {", fp32 pages, ", ", bf16 pages, ",
                                    ", bf16 pages, matrix units, "};
  return shape.name + std::string(kNames[static_cast<int>(kind)]);
}

nlohmann::json Decode(Session& session, const DeviceLimits& limits, const BenchShape& shape,
                      Kind kind, std::int64_t batch, std::int64_t context) {
  Rows rows(session, shape, batch, context, 1, TypeOf(kind));
  nlohmann::json row = RateOf(NameOf(shape, kind) + "decode, batch " + std::to_string(batch) +
                                  ", context " + std::to_string(context),
                              "GB/s", KvBytes(shape, batch, context, TypeOf(kind)) / 1e9,
                              rows.Time(session, kind, kernels::cuda::AttentionForm::kAuto));
  AddLimit(row, {"GB/s copied", limits.copy_gbytes});
  return row;
}

nlohmann::json Prefill(Session& session, const DeviceLimits& limits, const BenchShape& shape,
                       Kind kind) {
  Rows rows(session, shape, 1, kPromptTokens, kPromptTokens, TypeOf(kind));
  const double tflop = 2.0 * static_cast<double>(shape.heads * shape.head_dim) *
                       static_cast<double>(kPromptTokens * (kPromptTokens + 1)) / 1e12;
  nlohmann::json row =
      RateOf(NameOf(shape, kind) + "prefill of " + std::to_string(kPromptTokens), "TFLOP/s", tflop,
             rows.Time(session, kind, kernels::cuda::AttentionForm::kRows));
  if (limits.matrix_tflops > 0) AddLimit(row, {"TFLOP/s", limits.matrix_tflops});
  return row;
}

}  // namespace

nlohmann::json BenchAttention(Session& session) {
  const DeviceLimits limits = MeasureLimits(session);
  nlohmann::json results = nlohmann::json::array();
  for (const BenchShape& shape : kBenchShapes) {
    for (Kind kind : {Kind::kF32, Kind::kBf16, Kind::kMatrixUnits}) {
      if (kind == Kind::kMatrixUnits && !session.without_bf16.empty()) continue;
      for (std::int64_t context : kContexts) {
        for (std::int64_t batch : kBatches) {
          if (KvBytes(shape, batch, context, TypeOf(kind)) > kMostBytes) continue;
          results.push_back(Decode(session, limits, shape, kind, batch, context));
        }
      }
      results.push_back(Prefill(session, limits, shape, kind));
    }
  }
  return {{"results", results}};
}

}  // namespace thresher::bench
