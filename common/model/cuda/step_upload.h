#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "common/gpu/handles.h"
#include "common/model/cuda/device_array.h"
#include "common/model/step_runner.h"

namespace thresher::model {

// Where the columns of a step lie in what is sent to the device, in bytes. They depend on its rows
// and draws alone, so that a recorded graph finds them where it left them.
struct StepLayout {
  StepLayout(std::int32_t rows, std::int32_t draws);
  std::int32_t rows, draws;
  std::size_t token, position, slot;                      // int32 [T]
  std::size_t draw_row, draw_slot, temperature, uniform;  // int32, int32, float, double [D]
  std::size_t stop;                                       // int32 [D, kStopIds]
  std::size_t updates;                                    // pairs of int32, then the page copies
};

// Page tables as the device has them: what of a step's tables it does not know yet.
class TableMirror {
 public:
  TableMirror(std::int32_t slots, std::int32_t pages_each)
      : pages_each_(pages_each), known_(static_cast<std::size_t>(slots)) {}
  // Appends (index into the table [slots, pages_each], page) for every entry that has changed.
  void Update(std::int32_t slot, std::span<const std::int32_t> pages,
              std::vector<std::int32_t>& pairs);

  // Nothing is known any more.
  void Forget() {
    for (auto& slot : known_) slot.clear();
  }

 private:
  std::int32_t pages_each_;
  std::vector<std::vector<std::int32_t>> known_;  // by slot
};

// Sends the inputs of steps: written side by side into pinned memory, of which there is a piece for
// each step on its way, and copied to one piece of the device's as a whole.
class StepUpload {
 public:
  // max_rows, slots: of a step; pages_each: of a slot's table.
  static Result<StepUpload> Make(std::int32_t max_rows, std::int32_t slots, std::int32_t pages_each,
                                 int depth);

  // Puts the copy of `step`, padded to the layout's rows and draws, on the stream. Padding rows
  // have position -1; they and padding draws belong to the slot behind the last one. `piece`: of
  // pinned memory, whose last copy is done.
  Status Send(const StepInput& step, const StepLayout& layout, int piece, cudaStream_t stream);

  // The page tables on the device are gone; the next step sends its own anew.
  void ForgetTables() { mirror_.Forget(); }

  // On the device, for what was sent last.
  template <class T>
  T* At(std::size_t offset) const {
    return reinterpret_cast<T*>(device_.data() + offset);
  }
  std::int64_t updates() const { return static_cast<std::int64_t>(updates_.size() / 2); }
  std::int64_t copies() const { return copies_; }
  // Of the page copies, behind the updates.
  std::size_t copies_at(const StepLayout& layout) const {
    return layout.updates + updates_.size() * sizeof(std::int32_t);
  }

 private:
  StepUpload(std::int32_t slots, std::int32_t pages_each)
      : slots_(slots), mirror_(slots, pages_each) {}
  void Write(const StepInput& step, const StepLayout& layout, std::byte* to) const;

  std::int32_t slots_;
  TableMirror mirror_;
  std::vector<std::int32_t> updates_;
  std::int64_t copies_ = 0;
  std::vector<gpu::PinnedMemory> pinned_;
  DeviceArray<std::byte> device_;
};

}  // namespace thresher::model
