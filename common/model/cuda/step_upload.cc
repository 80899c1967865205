#include "common/model/cuda/step_upload.h"

#include <algorithm>
#include <cstring>

#include "common/base/check.h"
#include "kernels/cuda/rows.h"

namespace thresher::model {
namespace {

namespace cuda = kernels::cuda;

constexpr std::size_t kWord = sizeof(std::int32_t);

std::size_t Aligned(std::size_t offset) { return (offset + 15) / 16 * 16; }

}  // namespace

StepLayout::StepLayout(std::int32_t row_count, std::int32_t draw_count)
    : rows(row_count), draws(draw_count) {
  const std::size_t row_bytes = Aligned(static_cast<std::size_t>(rows) * kWord);
  const std::size_t draw_bytes = Aligned(static_cast<std::size_t>(draws) * kWord);
  token = 0;
  position = token + row_bytes;
  slot = position + row_bytes;
  draw_row = slot + row_bytes;
  draw_slot = draw_row + draw_bytes;
  temperature = draw_slot + draw_bytes;
  uniform = temperature + draw_bytes;
  stop = Aligned(uniform + static_cast<std::size_t>(draws) * sizeof(double));
  updates = stop + static_cast<std::size_t>(draws) * cuda::kStopIds * kWord;
}

void TableMirror::Update(std::int32_t slot, std::span<const std::int32_t> pages,
                         std::vector<std::int32_t>& pairs) {
  std::vector<std::int32_t>& known = known_[static_cast<std::size_t>(slot)];
  THRESHER_CHECK(pages.size() <= static_cast<std::size_t>(pages_each_),
                 "a table of too many pages");
  if (known.size() < pages.size()) known.resize(pages.size(), -1);
  if (std::memcmp(known.data(), pages.data(), pages.size_bytes()) == 0) return;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (known[i] == pages[i]) continue;
    known[i] = pages[i];
    pairs.push_back(slot * pages_each_ + static_cast<std::int32_t>(i));
    pairs.push_back(pages[i]);
  }
}

Result<StepUpload> StepUpload::Make(std::int32_t max_rows, std::int32_t slots,
                                    std::int32_t pages_each, int depth) {
  StepUpload upload(slots, pages_each);
  const StepLayout largest(max_rows, slots);
  const std::size_t entries = static_cast<std::size_t>(slots) *
                              (static_cast<std::size_t>(pages_each) + 1);  // and a copy each
  const std::size_t bytes = largest.updates + 2 * entries * kWord;
  THRESHER_ASSIGN_OR_RETURN(upload.device_, DeviceArray<std::byte>::Make(bytes));
  for (int i = 0; i < depth; ++i) {
    THRESHER_ASSIGN_OR_RETURN(auto piece, gpu::MakePinnedMemory(bytes));
    upload.pinned_.push_back(std::move(piece));
  }
  return upload;
}

void StepUpload::Write(const StepInput& step, const StepLayout& layout, std::byte* to) const {
  const auto column = [&]<class T>(std::size_t offset, T) {
    return reinterpret_cast<T*>(to + offset);
  };
  auto* token = column(layout.token, std::int32_t{});
  auto* position = column(layout.position, std::int32_t{});
  auto* slot = column(layout.slot, std::int32_t{});
  std::copy(step.token.begin(), step.token.end(), token);
  std::copy(step.position.begin(), step.position.end(), position);
  std::copy(step.slot.begin(), step.slot.end(), slot);
  for (std::int32_t row = step.rows(); row < layout.rows; ++row) {
    token[row] = 0;
    position[row] = -1;
    slot[row] = slots_;
  }
  auto* draw_row = column(layout.draw_row, std::int32_t{});
  auto* draw_slot = column(layout.draw_slot, std::int32_t{});
  auto* temperature = column(layout.temperature, float{});
  auto* uniform = column(layout.uniform, double{});
  auto* stop = column(layout.stop, std::int32_t{});
  const auto draws = static_cast<std::int32_t>(step.draws.size());
  for (std::int32_t i = 0; i < layout.draws; ++i) {
    const StepDraw* draw = i < draws ? &step.draws[static_cast<std::size_t>(i)] : nullptr;
    draw_row[i] = draw != nullptr ? draw->row : 0;
    draw_slot[i] = draw != nullptr ? slot[draw->row] : slots_;
    temperature[i] = draw != nullptr ? draw->sampling.temperature : 1.0f;
    uniform[i] = draw != nullptr ? draw->sampling.uniform : 0.5;
    for (std::size_t s = 0; s < cuda::kStopIds; ++s) {
      *stop++ = draw != nullptr && s < draw->stop.size() ? draw->stop[s] : -1;
    }
  }
  std::memcpy(to + layout.updates, updates_.data(), updates_.size() * kWord);
  auto* copies = column(copies_at(layout), std::int32_t{});
  for (const PageCopy& copy : step.copies) {
    *copies++ = copy.from;
    *copies++ = copy.to;
  }
}

Status StepUpload::Send(const StepInput& step, const StepLayout& layout, int piece,
                        cudaStream_t stream) {
  updates_.clear();
  for (std::size_t row = 0; row < step.slot.size(); ++row) {
    if (row > 0 && step.slot[row] == step.slot[row - 1]) continue;
    mirror_.Update(step.slot[row], step.table[row], updates_);
  }
  copies_ = static_cast<std::int64_t>(step.copies.size());
  const std::size_t bytes = copies_at(layout) + 2 * step.copies.size() * kWord;
  const gpu::PinnedMemory& from = pinned_[static_cast<std::size_t>(piece)];
  THRESHER_CHECK(bytes <= device_.bytes(), "a step larger than was planned for");
  Write(step, layout, from.as<std::byte>());
  return gpu::ToStatus(
      cudaMemcpyAsync(device_.data(), from.data(), bytes, cudaMemcpyHostToDevice, stream),
      "copy of a step's inputs");
}

}  // namespace thresher::model
