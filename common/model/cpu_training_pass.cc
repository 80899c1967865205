#include <algorithm>
#include <array>
#include <utility>

#include "common/base/check.h"
#include "common/model/training_pass.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/value_head.h"

namespace thresher::model {
namespace {

constexpr auto kPageSize = static_cast<std::int32_t>(kernels::kKvPageSize);

// How the rows of a micro-batch were drawn, with what each had seen.
class DrawnRows {
 public:
  void Take(const TrainRows& rows, std::int32_t vocab) {
    rows_.assign(rows.filter.size(), RowSampling{});
    if (rows_.empty()) return;
    Seen seen(rows, vocab, seen_);
    for (std::size_t t = 0; t < rows_.size(); ++t) {
      const RowFilter& filter = rows.filter[t];
      rows_[t].temperature = rows.temperature[t];
      rows_[t].top_k = filter.top_k;
      rows_[t].top_p = filter.top_p;
      rows_[t].min_p = filter.min_p;
      rows_[t].repetition_penalty = filter.repetition_penalty;
      rows_[t].seen = seen.UpTo(t);
    }
  }
  std::span<const RowSampling> rows() const { return rows_; }

 private:
  // The distinct ids of each row's sequence up to the row, in the order in which they came first:
  // those of one row begin with those of the row before.
  class Seen {
   public:
    Seen(const TrainRows& rows, std::int32_t vocab, std::vector<std::int32_t>& ids)
        : rows_(rows), ids_(ids), last_(static_cast<std::size_t>(vocab), -1) {
      ids_.clear();
      ids_.reserve(rows.size());  // spans of it live
    }
    // Ascending rows.
    std::span<const std::int32_t> UpTo(std::size_t t) {
      if (rows_.position[t] == 0) {
        begin_ = ids_.size();
        ++sequence_;
      }
      std::int64_t& last = last_[static_cast<std::size_t>(rows_.token[t])];
      if (last != sequence_) ids_.push_back(rows_.token[t]);
      last = sequence_;
      return std::span(ids_).subspan(begin_);
    }

   private:
    const TrainRows& rows_;
    std::vector<std::int32_t>& ids_;
    std::vector<std::int64_t> last_;  // [vocab]: the sequence that had the id last
    std::size_t begin_ = 0;
    std::int64_t sequence_ = 0;
  };

  std::vector<RowSampling> rows_;
  std::vector<std::int32_t> seen_;
};

class CpuTrainingPass final : public TrainingPass {
 public:
  explicit CpuTrainingPass(const ModelConfig& config) : config_(config) {}

  Status BeginLeaf(std::shared_ptr<const PackedModel> policy, std::span<float> gradient) override {
    THRESHER_CHECK(policy_ == nullptr, "a leaf within a leaf");
    policy_ = std::move(policy);
    gradient_ = gradient;
    return Status::Ok();
  }

  Result<std::vector<float>> ReferenceLogProbs(std::shared_ptr<const PackedModel> reference,
                                               const TrainRows& rows) override {
    const kernels::ScopedFpEnv environment;
    Place(rows);
    Forward(*reference, batch_, *cache_, *workspace_, hidden_);
    return LogProb(*reference, hidden_, rows.target, rows.temperature, *workspace_).logprob;
  }

  Result<LogProbResult> LogProbs(const TrainRows& rows, bool recompute) override {
    THRESHER_CHECK(policy_ != nullptr, "rows outside a leaf");
    THRESHER_CHECK(rows.filter.size() == (rows.filter.empty() ? 0 : rows.size()) &&
                       (!rows.within_support || !rows.filter.empty()),
                   "filters for other rows");
    const kernels::ScopedFpEnv environment;
    Place(rows);
    tape_ = tapes_[recompute ? 1 : 0].get();
    Forward(*policy_, batch_, *cache_, *workspace_, hidden_, tape_);
    target_ = rows.target;
    temperature_ = rows.temperature;
    drawn_.Take(rows, config_.vocab);
    within_support_ = rows.within_support;
    // Without a gradient to come there is nobody to keep them for.
    KeptLogits* keep = gradient_.empty() ? nullptr : &kept_;
    kept_.most_bytes = recompute ? 0 : kMostKeptLogitBytes;
    result_ = LogProb(*policy_, hidden_, target_, temperature_, *workspace_, drawn_.rows(), keep);
    return result_;
  }

  Status Backward(std::span<const float> dlogprob, std::span<const float> dentropy) override {
    THRESHER_CHECK(policy_ != nullptr && tape_ != nullptr, "a gradient of no rows");
    const kernels::ScopedFpEnv environment;
    dhidden_.resize(hidden_.size());
    if (dlogprob.empty()) {
      std::ranges::fill(dhidden_, 0.0f);
    } else {
      LogProbBackward(*policy_, hidden_, target_, temperature_, result_, dlogprob, dentropy,
                      *workspace_, dhidden_, gradient_,
                      within_support_ ? drawn_.rows() : std::span<const RowSampling>(), needs_.head,
                      &kept_);
    }
    if (!dvalue_.empty()) AddValueGradient();
    model::Backward(*policy_, batch_, *std::exchange(tape_, nullptr), dhidden_, *workspace_,
                    gradient_, needs_, std::exchange(on_final_, {}));
    return Status::Ok();
  }

  void Need(const GradientNeeds& needs) override { needs_ = needs; }
  void TellFinal(OnFinal on_final) override { on_final_ = std::move(on_final); }

  Status Hidden(const TrainRows& rows, std::optional<TapeKind> tape) override {
    THRESHER_CHECK(policy_ != nullptr, "rows outside a leaf");
    const kernels::ScopedFpEnv environment;
    Place(rows);
    tape_ = tape ? tapes_[*tape == TapeKind::kLayerInputs ? 1 : 0].get() : nullptr;
    Forward(*policy_, batch_, *cache_, *workspace_, hidden_, tape_);
    return Status::Ok();
  }

  Result<std::vector<float>> Values(std::span<const float> head) override {
    const std::size_t width = CheckedWidth(head);
    std::vector<float> value(hidden_.size() / width);
    kernels::ValueHeadForward(std::ssize(value), config_.width, hidden_.data(), config_.width,
                              head.data(), head.data() + width, value.data());
    return value;
  }

  Status ValueBackward(const ValueGradient& of) override {
    const std::size_t width = CheckedWidth(of.head);
    THRESHER_CHECK(of.dhead.size() == of.head.size(), "the gradient of another head");
    THRESHER_CHECK(of.dvalue.size() * width == hidden_.size(), "dvalue is not [T]");
    kernels::ValueHeadBackwardArgs args = HeadArgs(of.head, of.dvalue);
    args.dweight = of.dhead.data();
    args.dbias = of.dhead.data() + width;
    kernels::ValueHeadBackward(args);
    if (of.trunk == 0) return Status::Ok();
    head_.assign(of.head.begin(), of.head.end());
    dvalue_.assign(of.dvalue.begin(), of.dvalue.end());
    for (float& d : dvalue_) d *= of.trunk;
    return Status::Ok();
  }

  Status EndLeaf() override {
    THRESHER_CHECK(policy_ != nullptr, "the end of no leaf");
    policy_.reset();
    return Status::Ok();
  }

  bool FindsSupports() const override { return true; }

 private:
  std::size_t CheckedWidth(std::span<const float> head) const {
    const auto width = static_cast<std::size_t>(config_.width);
    THRESHER_CHECK(head.size() == width + 1, "the head is not [D + 1]");
    return width;
  }

  kernels::ValueHeadBackwardArgs HeadArgs(std::span<const float> head,
                                          std::span<const float> dvalue) const {
    kernels::ValueHeadBackwardArgs args{};
    args.t = std::ssize(dvalue);
    args.d = config_.width;
    args.hidden = hidden_.data();
    args.ldh = config_.width;
    args.weight = head.data();
    args.dvalue = dvalue.data();
    return args;
  }

  void AddValueGradient() {
    kernels::ValueHeadBackwardArgs args = HeadArgs(head_, dvalue_);
    args.dhidden = dhidden_.data();
    args.lddh = config_.width;
    kernels::ValueHeadBackward(args);
    dvalue_.clear();
  }

  // Pages for the rows' sequences, counted up.
  void Place(const TrainRows& rows) {
    tables_.clear();
    std::int32_t pages = 0;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      if (rows.position[t] == 0) tables_.emplace_back();
      if (rows.position[t] % kPageSize == 0) tables_.back().push_back(pages++);
    }
    batch_.token = rows.token;
    batch_.position = rows.position;
    batch_.page_table.clear();
    std::size_t sequence = 0;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      if (t > 0 && rows.position[t] == 0) ++sequence;
      batch_.page_table.push_back(tables_[sequence].data());
    }
    if (!cache_ || cache_->pages() < pages) cache_ = std::make_unique<KvCache>(config_, pages);
    hidden_.resize(rows.size() * static_cast<std::size_t>(config_.width));
  }

  const ModelConfig config_;
  WorkspacePtr workspace_ = NewWorkspace();
  std::unique_ptr<KvCache> cache_;
  // One for each kind: memory that is kept costs no page faults.
  std::array<TapePtr, 2> tapes_ = {NewTape(TapeKind::kAllActivations),
                                   NewTape(TapeKind::kLayerInputs)};
  std::shared_ptr<const PackedModel> policy_;
  std::span<float> gradient_;  // of the leaf
  GradientNeeds needs_;
  OnFinal on_final_;  // of the next Backward
  // Of the last rows.
  RowBatch batch_;
  std::vector<std::vector<std::int32_t>> tables_;  // one per sequence
  Tape* tape_ = nullptr;
  std::vector<float> hidden_, dhidden_, temperature_;
  std::vector<std::int32_t> target_;
  LogProbResult result_;
  KeptLogits kept_;
  std::vector<float> head_, dvalue_;  // of a critic, for the next Backward; empty: none
  DrawnRows drawn_;
  bool within_support_ = false;
};

Status NoCritic() { return FailedPrecondition("this pass computes no values of a critic"); }

}  // namespace

Status TrainingPass::Hidden(const TrainRows&, std::optional<TapeKind>) { return NoCritic(); }
Result<std::vector<float>> TrainingPass::Values(std::span<const float>) { return NoCritic(); }
Status TrainingPass::ValueBackward(const ValueGradient&) { return NoCritic(); }

std::unique_ptr<TrainingPass> MakeCpuTrainingPass(const ModelConfig& config) {
  return std::make_unique<CpuTrainingPass>(config);
}

}  // namespace thresher::model
