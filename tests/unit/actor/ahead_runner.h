#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/model/step_runner.h"
#include "kernels/cpu/attention.h"

namespace thresher::actor {

// The steps of a StepRunner that computes behind the engine's back, as a GPU does: it takes steps
// before the tokens of those before are known, and holds its caller to the contract. Every broken
// rule is an error of Launch (kInternal) that names it, and what is asked for too early ends in one
// as well.
struct AheadOptions {
  int depth = 2;
  bool at_once = false;  // a step is computed by Launch, the earliest moment; else by Collect
  // By default what a GPU does: draws without filters and reports.
  std::function<bool(const model::RowSampling&)> runs_ahead = [](const model::RowSampling& row) {
    return !row.Filtered() && row.top_n == 0;
  };
  int failing_launch = -1, failing_collect = -1;  // the call of that number fails, and all after it
};

// What the runner saw; the test's own, for the engine owns the runner.
struct AheadLog {
  int launched = 0, collected = 0;
  std::size_t most_on_their_way = 0;
  std::uint64_t rows = 0;
  std::uint64_t unknown_tokens = 0;  // rows launched with kDrawnBefore
  std::uint64_t copies = 0;
};

inline Status PlantedFailure() { return Aborted("planted: the device is lost"); }

class AheadRunner final : public model::StepRunner {
 public:
  AheadRunner(const model::ModelConfig& config, std::int32_t pages, std::int32_t slots,
              AheadOptions options, AheadLog& log)
      : options_(std::move(options)),
        log_(log),
        vocab_(config.vocab),
        context_(config.context),
        cpu_(model::MakeCpuRunner(config, pages, slots, model::NewWorkspace())) {}

  std::int32_t pages() const override { return cpu_->pages(); }
  std::int32_t slots() const override { return cpu_->slots(); }
  int depth() const override { return options_.depth; }
  bool RunsAhead(const model::RowSampling& sampling) const override {
    return options_.depth > 1 && options_.runs_ahead(sampling);
  }

  Status SetWeights(std::shared_ptr<const model::PackedModel> weights) override {
    if (!on_their_way_.empty()) return InternalError("weights changed with steps on their way");
    has_weights_ = true;
    return cpu_->SetWeights(std::move(weights));
  }

  Status Launch(const model::StepInput& step) override {
    if (Fails(options_.failing_launch, log_.launched++)) return PlantedFailure();
    const std::string violation = Violation(step);
    if (!violation.empty()) return InternalError("contract: " + violation);
    Remember(step);
    OnItsWay& mine = on_their_way_.emplace_back(Own(step));
    log_.most_on_their_way = std::max(log_.most_on_their_way, on_their_way_.size());
    return options_.at_once ? Compute(mine) : Status::Ok();
  }

  Result<std::vector<model::RowSample>> Collect() override {
    if (Fails(options_.failing_collect, log_.collected++)) return PlantedFailure();
    if (on_their_way_.empty()) return InternalError("contract: nothing is on its way");
    OnItsWay step = std::move(on_their_way_.front());
    on_their_way_.pop_front();
    if (!options_.at_once) THRESHER_RETURN_IF_ERROR(Compute(step));
    return std::move(step.samples);
  }

 private:
  // What a draw borrows, owned: it may be gone before the step is computed.
  struct OwnedLists {
    std::vector<std::int32_t> seen, bias_ids;
    std::vector<float> bias_values;
    std::vector<std::uint64_t> allowed;
  };
  struct OnItsWay {
    model::StepInput input;
    std::deque<std::vector<std::int32_t>> tables;
    std::deque<OwnedLists> lists;
    std::vector<model::RowSample> samples;
  };
  // Of a slot, as launched.
  struct SlotState {
    int drew_in = -1;  // the last launch with a draw of it
    std::int32_t next_position = 0;
  };

  static bool Fails(int planted, int call) { return planted >= 0 && call >= planted; }

  static OnItsWay Own(const model::StepInput& step) {
    OnItsWay mine;
    mine.input = step;
    for (auto& table : mine.input.table) {
      table = mine.tables.emplace_back(table.begin(), table.end());
    }
    for (model::StepDraw& draw : mine.input.draws) {
      model::RowSampling& row = draw.sampling;
      OwnedLists& lists = mine.lists.emplace_back();
      lists.seen.assign(row.seen.begin(), row.seen.end());
      lists.bias_ids.assign(row.bias_ids.begin(), row.bias_ids.end());
      lists.bias_values.assign(row.bias_values.begin(), row.bias_values.end());
      lists.allowed.assign(row.allowed.begin(), row.allowed.end());
      row.seen = lists.seen;
      row.bias_ids = lists.bias_ids;
      row.bias_values = lists.bias_values;
      row.allowed = lists.allowed;
    }
    return mine;
  }

  Status Compute(OnItsWay& step) {
    for (std::size_t row = 0; row < step.input.token.size(); ++row) {
      std::int32_t& token = step.input.token[row];
      if (token != model::kDrawnBefore) continue;
      const auto last = last_drawn_.find(step.input.slot[row]);
      if (last == last_drawn_.end()) return InternalError("a token that nothing has drawn");
      // A draw that failed: any token will do, for the sequence ends.
      token = std::max(0, last->second);
    }
    THRESHER_RETURN_IF_ERROR(cpu_->Launch(step.input));
    THRESHER_ASSIGN_OR_RETURN(step.samples, cpu_->Collect());
    for (std::size_t i = 0; i < step.samples.size(); ++i) {
      const auto row = static_cast<std::size_t>(step.input.draws[i].row);
      last_drawn_[step.input.slot[row]] = step.samples[i].token;
    }
    return Status::Ok();
  }

  void Remember(const model::StepInput& step) {
    ++steps_;
    log_.rows += step.token.size();
    log_.copies += step.copies.size();
    for (std::size_t row = 0; row < step.token.size(); ++row) {
      slots_[step.slot[row]].next_position = step.position[row] + 1;
      log_.unknown_tokens += step.token[row] == model::kDrawnBefore ? 1 : 0;
    }
    for (const model::StepDraw& draw : step.draws) {
      slots_[step.slot[static_cast<std::size_t>(draw.row)]].drew_in = steps_;
    }
  }

  // The first rule that a step breaks; empty if it keeps them all.
  std::string Violation(const model::StepInput& step) const {
    const std::size_t rows = step.token.size();
    if (!has_weights_) return "a step without weights";
    if (on_their_way_.size() >= static_cast<std::size_t>(options_.depth)) return "too many steps";
    if (rows == 0 || step.position.size() != rows || step.slot.size() != rows ||
        step.table.size() != rows) {
      return "columns of different lengths, or none";
    }
    std::string violation = OfCopies(step);
    for (std::size_t row = 0; row < rows && violation.empty(); ++row) violation = OfRow(step, row);
    if (violation.empty()) violation = OfSlots(step);
    if (violation.empty()) violation = OfDraws(step);
    return violation;
  }

  bool IsPage(std::int32_t page) const { return page >= 0 && page < pages(); }

  std::string OfCopies(const model::StepInput& step) const {
    std::set<std::int32_t> written;
    for (const model::PageCopy& copy : step.copies) {
      if (!IsPage(copy.from) || !IsPage(copy.to)) return "a copy of no page";
      if (copy.from == copy.to) return "a page copied to itself";
      if (!written.insert(copy.to).second) return "two copies to one page";
    }
    return "";
  }

  std::string OfRow(const model::StepInput& step, std::size_t row) const {
    const std::int32_t position = step.position[row], slot = step.slot[row];
    if (slot < 0 || slot >= slots()) return "no such slot";
    if (position < 0 || position >= context_) return "a position outside the context";
    const auto pages_needed = static_cast<std::size_t>(position) / kernels::kKvPageSize + 1;
    if (step.table[row].size() < pages_needed) return "a table that does not cover its position";
    for (std::int32_t page : step.table[row]) {
      if (!IsPage(page)) return "a table with no page";
    }
    const std::int32_t token = step.token[row];
    if (token != model::kDrawnBefore) return token < 0 || token >= vocab_ ? "no such token" : "";
    const auto state = slots_.find(slot);
    if (state == slots_.end() || state->second.drew_in != steps_) {
      return "a token that the step before does not draw";
    }
    return position == state->second.next_position ? "" : "a drawn token at another position";
  }

  // Rows of a slot stand together and in order, and no slot writes a page that another one has.
  std::string OfSlots(const model::StepInput& step) const {
    std::set<std::int32_t> seen;
    std::map<std::int32_t, std::set<std::int32_t>> having, writing;  // slots, by page
    for (std::size_t row = 0; row < step.token.size(); ++row) {
      const std::int32_t slot = step.slot[row];
      if (row > 0 && step.slot[row - 1] == slot) {
        if (step.position[row] != step.position[row - 1] + 1) return "positions with a gap";
        if (step.token[row] == model::kDrawnBefore) return "an unknown token behind another row";
      } else if (!seen.insert(slot).second) {
        return "two sequences in one slot";
      }
      for (std::int32_t page : step.table[row]) having[page].insert(slot);
      const auto index = static_cast<std::size_t>(step.position[row]) / kernels::kKvPageSize;
      writing[step.table[row][index]].insert(slot);
    }
    for (const auto& [page, slots] : writing) {
      if (having[page].size() > 1) return "a shared page is written";
    }
    return "";
  }

  std::string OfDraws(const model::StepInput& step) const {
    std::set<std::int32_t> drawn;
    std::int32_t before = -1;
    for (const model::StepDraw& draw : step.draws) {
      if (draw.row <= before || draw.row >= step.rows()) return "draws that do not ascend";
      before = draw.row;
      const auto row = static_cast<std::size_t>(draw.row);
      if (!drawn.insert(step.slot[row]).second) return "two draws of one slot";
      const bool last = row + 1 == step.slot.size() || step.slot[row + 1] != step.slot[row];
      if (!last) return "a draw before the slot's last row";
      if (step.token[row] == model::kDrawnBefore && !RunsAhead(draw.sampling)) {
        return "a sequence that may not run ahead does";
      }
    }
    return "";
  }

  const AheadOptions options_;
  AheadLog& log_;
  const std::int32_t vocab_, context_;
  std::unique_ptr<model::StepRunner> cpu_;
  bool has_weights_ = false;
  int steps_ = -1;  // number of the last one launched
  std::map<std::int32_t, SlotState> slots_;
  std::map<std::int32_t, std::int32_t> last_drawn_;  // by slot, as computed
  std::deque<OnItsWay> on_their_way_;
};

}  // namespace thresher::actor
