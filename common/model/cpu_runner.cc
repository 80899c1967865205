#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/check.h"
#include "common/model/step_runner.h"

namespace thresher::model {
namespace {

class CpuRunner final : public StepRunner {
 public:
  CpuRunner(const ModelConfig& config, std::int32_t pages, std::int32_t slots,
            WorkspacePtr workspace)
      : config_(config), slots_(slots), cache_(config, pages), workspace_(std::move(workspace)) {}

  std::int32_t pages() const override { return cache_.pages(); }
  std::int32_t slots() const override { return slots_; }
  int depth() const override { return 1; }
  bool RunsAhead(const RowSampling&) const override { return false; }

  Status SetWeights(std::shared_ptr<const PackedModel> weights) override {
    THRESHER_CHECK(!samples_, "weights changed while a step is on its way");
    weights_ = std::move(weights);
    return Status::Ok();
  }

  Status Launch(const StepInput& step) override {
    THRESHER_CHECK(!samples_ && weights_ != nullptr, "a step without weights or before its turn");
    for (const PageCopy& copy : step.copies) CopyPage(copy);
    rows_.token = step.token;
    rows_.position = step.position;
    rows_.page_table.clear();
    for (const auto& table : step.table) rows_.page_table.push_back(table.data());
    const auto width = static_cast<std::size_t>(config_.width);
    hidden_.resize(step.token.size() * width);
    Forward(*weights_, rows_, cache_, *workspace_, hidden_);
    drawn_hidden_.clear();
    sampling_.clear();
    for (const StepDraw& draw : step.draws) {
      const float* row = hidden_.data() + static_cast<std::size_t>(draw.row) * width;
      drawn_hidden_.insert(drawn_hidden_.end(), row, row + width);
      sampling_.push_back(draw.sampling);
    }
    samples_.emplace();
    if (!sampling_.empty()) samples_ = Sample(*weights_, drawn_hidden_, sampling_, *workspace_);
    return Status::Ok();
  }

  Result<std::vector<RowSample>> Collect() override {
    THRESHER_CHECK(samples_.has_value(), "no step is on its way");
    std::vector<RowSample> samples = std::move(*samples_);
    samples_.reset();
    return samples;
  }

 private:
  void CopyPage(const PageCopy& copy) {
    const std::size_t floats = cache_.page_stride_floats();
    for (int layer = 0; layer < config_.layers; ++layer) {
      for (float* pages : {cache_.layer_keys(layer), cache_.layer_values(layer)}) {
        const float* from = pages + floats * static_cast<std::size_t>(copy.from);
        std::copy(from, from + floats, pages + floats * static_cast<std::size_t>(copy.to));
      }
    }
  }

  ModelConfig config_;
  std::int32_t slots_;
  KvCache cache_;
  WorkspacePtr workspace_;
  std::shared_ptr<const PackedModel> weights_;
  RowBatch rows_;
  std::vector<float> hidden_, drawn_hidden_;
  std::vector<RowSampling> sampling_;
  std::optional<std::vector<RowSample>> samples_;
};

}  // namespace

void StepInput::Clear() {
  copies.clear();
  token.clear();
  position.clear();
  slot.clear();
  table.clear();
  draws.clear();
}

std::unique_ptr<StepRunner> MakeCpuRunner(const ModelConfig& config, std::int32_t pages,
                                          std::int32_t slots, WorkspacePtr workspace) {
  return std::make_unique<CpuRunner>(config, pages, slots, std::move(workspace));
}

}  // namespace thresher::model
