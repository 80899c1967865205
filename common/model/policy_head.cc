#include "common/model/policy_head.h"

#include <algorithm>
#include <limits>

#include "common/base/check.h"
#include "common/model/activations.h"
#include "common/model/forward.h"
#include "common/model/packed_model.h"
#include "common/model/parallel.h"

namespace thresher::model {
namespace {

// Rows of hidden states [T, D], whose count the other columns share.
std::int64_t CheckedRows(const PackedWeights& model, std::span<const float> hidden,
                         std::size_t rows, std::span<const float> temperature) {
  THRESHER_CHECK(hidden.size() == rows * static_cast<std::size_t>(model.config().width),
                 "hidden is not [T, D]");
  THRESHER_CHECK(temperature.size() == rows, "temperature is not [T]");
  for (float t : temperature) THRESHER_CHECK(t >= 0, "temperature below 0");
  return static_cast<std::int64_t>(rows);
}

void CheckTargets(const PackedWeights& model, std::span<const std::int32_t> target) {
  for (std::int32_t id : target) {
    THRESHER_CHECK(id >= 0 && id < model.valid_vocab(), "target is no valid id");
  }
}

kernels::HeadRows RowsOf(const PackedWeights& model, std::span<const float> hidden,
                         std::span<const float> temperature) {
  const ModelConfig& config = model.config();
  return {CheckedRows(model, hidden, temperature.size(), temperature),
          config.width,
          config.vocab,
          model.valid_vocab(),
          hidden.data(),
          config.width,
          model.head(),
          temperature.data()};
}

// Rows [begin, end) of a batch.
kernels::HeadRows Part(const kernels::HeadRows& rows, std::int64_t begin, std::int64_t end) {
  kernels::HeadRows part = rows;
  part.t = end - begin;
  part.hidden += begin * rows.ldh;
  part.temperature += begin;
  return part;
}

// HeadScan over all blocks of the vocabulary into the scratch of the head.
void ScanVocabulary(const kernels::HeadRows& rows, const std::int32_t* targets,
                    float* const* logits, Workspace& workspace) {
  const std::int64_t blocks = kernels::HeadBlockCount(rows.valid_vocab);
  const auto needed = static_cast<std::size_t>(rows.t * blocks);
  if (workspace.head.blocks.size() < needed) workspace.head.blocks.resize(needed);
  const Parallel parallel(workspace.pool, workspace.part_cost);
  const auto cost = static_cast<double>(rows.t * rows.d * kernels::kVocabBlock);
  parallel.Parts(blocks, 1, cost, [&](std::int64_t begin, std::int64_t end) {
    kernels::HeadScan(rows, targets, begin, end, workspace.head.blocks.data(), logits);
  });
}

kernels::HeadFilter FilterOf(const RowSampling& row) {
  kernels::HeadFilter filter;
  filter.temperature = row.temperature;
  filter.top_k = row.top_k;
  filter.top_p = row.top_p;
  filter.min_p = row.min_p;
  filter.repetition_penalty = row.repetition_penalty;
  filter.seen = row.seen.data();
  filter.seen_count = static_cast<std::int64_t>(row.seen.size());
  filter.bias_ids = row.bias_ids.data();
  filter.bias_values = row.bias_values.data();
  filter.bias_count = static_cast<std::int64_t>(row.bias_ids.size());
  filter.allowed = row.allowed.empty() ? nullptr : row.allowed.data();
  return filter;
}

// The end of the pass that begins with row `begin`: consecutive rows, of which at most `most_kept`
// are to keep their logits, for which there is room then: scratch.kept.
template <typename Keeps>
std::int64_t ReservePass(const kernels::HeadRows& all, std::int64_t begin, std::int64_t most_kept,
                         const Keeps& keeps, HeadScratch& scratch) {
  std::int64_t kept = 0, end = begin;
  for (; end < all.t && end - begin < kHeadPassRows; ++end) {
    if (keeps(end) && ++kept > most_kept) break;
  }
  Reserve(scratch.logits, static_cast<std::size_t>(std::min(kept, most_kept) * all.valid_vocab));
  scratch.kept.assign(static_cast<std::size_t>(end - begin), nullptr);
  float* next = scratch.logits.data();
  for (std::int64_t t = begin; t < end; ++t) {
    if (!keeps(t)) continue;
    scratch.kept[static_cast<std::size_t>(t - begin)] = next;
    next += all.valid_vocab;
  }
  return end;
}

std::int64_t MostKept(const kernels::HeadRows& rows) {
  return rows.valid_vocab <= kernels::kVocabBlock ? kHeadPassRows : kHeadKeptRows;
}

// One pass of Sample.
class SamplePass {
 public:
  SamplePass(const kernels::HeadRows& all, std::span<const RowSampling> sampling,
             std::int64_t begin, Workspace& workspace)
      : begin_(begin), sampling_(sampling), scratch_(workspace.head) {
    // A vocabulary of one block: the logits are kept rather than computed again.
    const bool small = all.valid_vocab <= kernels::kVocabBlock;
    const auto keeps = [&](std::int64_t t) {
      const RowSampling& row = sampling[static_cast<std::size_t>(t)];
      return small || row.Filtered() || row.top_n > 0;
    };
    rows_ = Part(all, begin, ReservePass(all, begin, MostKept(all), keeps, scratch_));
    ScanVocabulary(rows_, nullptr, scratch_.kept.data(), workspace);
  }

  std::int64_t end() const { return begin_ + rows_.t; }
  // Of one row, in multiply-adds: a block computed again, or some passes over the row's logits.
  double DrawCost() const {
    const bool whole = scratch_.kept.front() != nullptr;
    return static_cast<double>(whole ? 16 * rows_.valid_vocab : kernels::kVocabBlock * rows_.d);
  }

  // Row `t` of the batch.
  RowSample Draw(std::int64_t t) const {
    const RowSampling& row = sampling_[static_cast<std::size_t>(t)];
    const std::int64_t r = t - begin_;
    const kernels::HeadBlock* blocks =
        scratch_.blocks.data() + r * kernels::HeadBlockCount(rows_.valid_vocab);
    const float* const* logits = scratch_.kept.data() + r;
    RowSample out;
    if (row.Filtered()) {
      const kernels::HeadDraw draw = kernels::HeadSampleFiltered(
          rows_.valid_vocab, *logits, blocks, FilterOf(row), row.uniform, nullptr);
      out.token = draw.token;
      out.logprob = draw.logprob;
      out.kept_mass_logprob = draw.kept_mass_logprob;
    } else {
      kernels::HeadChoose(Part(rows_, r, r + 1), blocks, *logits == nullptr ? nullptr : logits,
                          &row.uniform, &out.token, &out.logprob);
    }
    if (row.top_n > 0) out.top = Likeliest(row, *logits, blocks);
    return out;
  }

 private:
  std::vector<TokenLogProb> Likeliest(const RowSampling& row, const float* logits,
                                      const kernels::HeadBlock* blocks) const {
    const std::int64_t n = std::min<std::int64_t>(row.top_n, rows_.valid_vocab);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
    std::vector<float> logprobs(ids.size());
    kernels::HeadTopLogProbs(rows_.valid_vocab, logits, blocks, row.temperature, n, ids.data(),
                             logprobs.data());
    std::vector<TokenLogProb> top;
    for (std::size_t i = 0; i < ids.size(); ++i) top.push_back({ids[i], logprobs[i]});
    return top;
  }

  std::int64_t begin_;
  std::span<const RowSampling> sampling_;
  HeadScratch& scratch_;
  kernels::HeadRows rows_;
};

// The supports of the rows from `begin` on, which were scanned as `part`.
void FindSupports(const kernels::HeadRows& part, std::int64_t begin,
                  std::span<const std::int32_t> target, std::span<const RowSampling> drawn,
                  Workspace& workspace, LogProbResult& result) {
  const HeadScratch& scratch = workspace.head;
  const std::int64_t count = kernels::HeadBlockCount(part.valid_vocab);
  const auto find = [&](std::int64_t r) {
    const auto t = static_cast<std::size_t>(begin + r);
    const float* logits = scratch.kept[static_cast<std::size_t>(r)];
    result.support[t] =
        !drawn[t].Filtered()
            ? kernels::HeadSupport{0, result.lse[t], -std::numeric_limits<float>::infinity(), true}
            : kernels::HeadFindSupport(part.valid_vocab, logits, scratch.blocks.data() + r * count,
                                       FilterOf(drawn[t]), target[t], result.logprob[t]);
  };
  const Parallel parallel(workspace.pool, workspace.part_cost);
  // Some passes over a row's logits.
  const auto cost = static_cast<double>(16 * part.valid_vocab);
  parallel.Parts(part.t, 1, cost, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t r = from; r < to; ++r) find(r);
  });
}

// Room for the logits of the first rows.
void ReserveKept(const kernels::HeadRows& rows, KeptLogits& keep) {
  const auto count = static_cast<std::size_t>(rows.t);
  const auto row_bytes = static_cast<std::size_t>(rows.valid_vocab) * sizeof(float);
  const std::size_t bytes = KeptLogitBytes(keep.most_bytes, count, rows.valid_vocab);
  float* next = Reserve(keep.logits, bytes / sizeof(float));
  keep.rows.assign(count, nullptr);
  for (std::size_t t = 0; t < bytes / row_bytes; ++t, next += rows.valid_vocab) keep.rows[t] = next;
}

}  // namespace

std::size_t KeptLogitBytes(std::size_t most_bytes, std::size_t rows, std::int64_t valid_vocab) {
  const auto row = static_cast<std::size_t>(valid_vocab) * sizeof(float);
  return std::min(rows, most_bytes / row) * row;
}

LogProbResult LogProb(const PackedModel& packed, std::span<const float> hidden,
                      std::span<const std::int32_t> target, std::span<const float> temperature,
                      Workspace& workspace, std::span<const RowSampling> drawn, KeptLogits* keep) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const kernels::HeadRows rows = RowsOf(model, hidden, temperature);
  THRESHER_CHECK(
      target.size() == temperature.size() && (drawn.empty() || drawn.size() == target.size()),
      "columns of unequal length");
  CheckTargets(model, target);
  LogProbResult result;
  result.logprob.resize(target.size());
  result.lse.resize(target.size());
  result.entropy.resize(target.size());
  result.support.resize(drawn.size());
  if (keep != nullptr) ReserveKept(rows, *keep);
  HeadScratch& scratch = workspace.head;
  const auto stays = [&](std::int64_t t) {
    return keep != nullptr ? keep->rows[static_cast<std::size_t>(t)] : nullptr;
  };
  const auto keeps = [&](std::int64_t t) {
    return !drawn.empty() && drawn[static_cast<std::size_t>(t)].Filtered() && stays(t) == nullptr;
  };
  for (std::int64_t begin = 0; begin < rows.t;) {
    const std::int64_t end = ReservePass(rows, begin, MostKept(rows), keeps, scratch);
    for (std::int64_t t = begin; t < end; ++t) {
      if (stays(t) != nullptr) scratch.kept[static_cast<std::size_t>(t - begin)] = stays(t);
    }
    const auto part = Part(rows, begin, end);
    ScanVocabulary(part, target.data() + begin, scratch.kept.data(), workspace);
    kernels::HeadFold(part, target.data() + begin, scratch.blocks.data(),
                      result.logprob.data() + begin, result.lse.data() + begin,
                      result.entropy.data() + begin);
    if (!drawn.empty()) FindSupports(part, begin, target, drawn, workspace, result);
    begin = end;
  }
  return result;
}

std::vector<RowSample> Sample(const PackedModel& packed, std::span<const float> hidden,
                              std::span<const RowSampling> sampling, Workspace& workspace) {
  const PackedWeights& model = PackedWeights::Of(packed);
  std::vector<float>& temperature = workspace.head.temperature;
  temperature.clear();
  for (const RowSampling& row : sampling) {
    THRESHER_CHECK(row.bias_ids.size() == row.bias_values.size(), "biases of unequal columns");
    THRESHER_CHECK(row.allowed.empty() ||
                       row.allowed.size() * 64 >= static_cast<std::size_t>(model.valid_vocab()),
                   "the mask does not cover the vocabulary");
    temperature.push_back(row.temperature);
  }
  const kernels::HeadRows rows = RowsOf(model, hidden, temperature);
  std::vector<RowSample> out(sampling.size());
  const Parallel parallel(workspace.pool, workspace.part_cost);
  for (std::int64_t begin = 0; begin < rows.t;) {
    const SamplePass pass(rows, sampling, begin, workspace);
    parallel.Parts(pass.end() - begin, 1, pass.DrawCost(), [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t t = begin + from; t < begin + to; ++t) {
        out[static_cast<std::size_t>(t)] = pass.Draw(t);
      }
    });
    begin = pass.end();
  }
  return out;
}

void Sample(const PackedModel& packed, std::span<const float> hidden,
            std::span<const float> temperature, std::span<const double> uniform,
            Workspace& workspace, std::span<std::int32_t> token, std::span<float> logprob) {
  THRESHER_CHECK(temperature.size() == token.size() && uniform.size() == token.size() &&
                     logprob.size() == token.size(),
                 "columns of unequal length");
  std::vector<RowSampling> rows(token.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].temperature = temperature[i];
    rows[i].uniform = uniform[i];
  }
  const std::vector<RowSample> samples = Sample(packed, hidden, rows, workspace);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    token[i] = samples[i].token;
    logprob[i] = samples[i].logprob;
  }
}

std::vector<float> Logits(const PackedModel& packed, std::span<const float> hidden) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const std::int64_t width = model.config().width;
  const std::int64_t rows = static_cast<std::int64_t>(hidden.size()) / width;
  THRESHER_CHECK(static_cast<std::int64_t>(hidden.size()) == rows * width, "hidden is not [T, D]");
  std::vector<float> logits(static_cast<std::size_t>(rows * model.valid_vocab()));
  kernels::HeadLogits(rows, width, model.valid_vocab(), hidden.data(), width, model.head(),
                      logits.data(), model.valid_vocab());
  return logits;
}

void LogProbBackward(const PackedModel& packed, std::span<const float> hidden,
                     std::span<const std::int32_t> target, std::span<const float> temperature,
                     const LogProbResult& result, std::span<const float> dlogprob,
                     std::span<const float> dentropy, Workspace& workspace,
                     std::span<float> dhidden, std::span<float> gradient,
                     std::span<const RowSampling> drawn, bool needs_head, const KeptLogits* kept) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const ModelConfig& config = model.config();
  THRESHER_CHECK(model.with_backward(), "model was packed without a backward pass");
  THRESHER_CHECK(result.lse.size() == target.size() && dlogprob.size() == target.size(),
                 "columns of unequal length");
  THRESHER_CHECK(dentropy.empty() ||
                     (dentropy.size() == target.size() && result.entropy.size() == target.size()),
                 "columns of unequal length");
  THRESHER_CHECK(drawn.empty() || (drawn.size() == target.size() && dentropy.empty() &&
                                   result.support.size() == target.size()),
                 "supports that were not found, or an entropy term over them");
  THRESHER_CHECK(dhidden.size() == hidden.size(), "dhidden is not [T, D]");
  THRESHER_CHECK(gradient.size() == GradientSize(config), "gradient of another model");
  CheckTargets(model, target);
  kernels::HeadBackwardArgs args{};
  args.t = CheckedRows(model, hidden, target.size(), temperature);
  args.d = args.ldh = args.lddh = config.width;
  args.v = config.vocab;
  args.valid_vocab = model.valid_vocab();
  args.hidden = hidden.data();
  args.packed_head = model.head();
  args.packed_head_transposed = model.head_transposed();
  args.temperature = temperature.data();
  args.targets = target.data();
  args.lse = result.lse.data();
  args.dlogprob = dlogprob.data();
  if (!dentropy.empty()) {
    args.entropy = result.entropy.data();
    args.dentropy = dentropy.data();
  }
  if (!drawn.empty()) {
    std::vector<kernels::HeadFilter>& filter = workspace.head.filter;
    filter.clear();
    for (const RowSampling& row : drawn) filter.push_back(FilterOf(row));
    args.filter = filter.data();
    args.support = result.support.data();
  }
  THRESHER_CHECK(kept == nullptr || kept->rows.size() == target.size(), "logits of other rows");
  if (kept != nullptr) args.logits = kept->rows.data();
  args.dhidden = dhidden.data();
  args.dhead = needs_head ? gradient.data() + model.layout().head_gradient : nullptr;
  kernels::HeadBackward(args);
}

}  // namespace thresher::model
