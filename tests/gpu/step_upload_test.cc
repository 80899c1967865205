// What a step sends to the device, and where it lies there.
#include "common/model/cuda/step_upload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/gpu/device_testing.h"

namespace thresher::model {
namespace {

using Pages = std::vector<std::int32_t>;
using Pairs = std::vector<std::int32_t>;

TEST(StepLayout, ColumnsDoNotOverlapAndAreAligned) {
  for (std::int32_t rows = 1; rows <= 300; ++rows) {
    for (std::int32_t draws = 0; draws <= std::min(rows, 140); ++draws) {
      const StepLayout at(rows, draws);
      const auto t = static_cast<std::size_t>(rows), d = static_cast<std::size_t>(draws);
      const std::pair<std::size_t, std::size_t> columns[] = {
          {at.token, 4 * t},    {at.position, 4 * t},  {at.slot, 4 * t},
          {at.draw_row, 4 * d}, {at.draw_slot, 4 * d}, {at.temperature, 4 * d},
          {at.uniform, 8 * d},  {at.stop, 16 * d},     {at.updates, 0}};
      std::size_t end = 0;
      for (const auto& [begin, bytes] : columns) {
        ASSERT_GE(begin, end) << rows << " rows, " << draws << " draws";
        ASSERT_EQ(begin % 16, 0u);
        end = begin + bytes;
      }
      // And no more room between them than that takes.
      ASSERT_LE(at.updates, 3 * (4 * t + 15) + 3 * (4 * d + 15) + 8 * d + 15 + 16 * d);
    }
  }
}

TEST(TableMirror, SendsExactlyWhatHasChanged) {
  TableMirror mirror(3, 8);
  const auto sent = [&](std::int32_t slot, const Pages& pages) {
    Pairs pairs;
    mirror.Update(slot, pages, pairs);
    return pairs;
  };
  EXPECT_EQ(sent(1, {5, 6}), (Pairs{8, 5, 9, 6}));
  EXPECT_EQ(sent(1, {5, 6}), Pairs{});
  EXPECT_EQ(sent(1, {5, 6, 7}), (Pairs{10, 7}));  // it has grown
  EXPECT_EQ(sent(1, {5, 9, 7}), (Pairs{9, 9}));
  EXPECT_EQ(sent(1, {5}), Pairs{});  // another sequence: what lies behind is not read
  EXPECT_EQ(sent(1, {5, 9, 4}), (Pairs{10, 4}));
  EXPECT_EQ(sent(2, {0}), (Pairs{16, 0}));  // page 0 is not what is there from the beginning
  EXPECT_EQ(sent(0, {}), Pairs{});
  Pairs pairs{1, 2};  // appended
  mirror.Update(0, Pages{3}, pairs);
  EXPECT_EQ(pairs, (Pairs{1, 2, 0, 3}));
}

TEST(TableMirror, KeepsTheDevicesTableRight) {
  constexpr std::int32_t kSlots = 5, kEach = 12;
  TableMirror mirror(kSlots, kEach);
  std::vector<std::int32_t> device(kSlots * kEach, -7);
  std::vector<Pages> tables(kSlots);
  std::uint32_t state = 1;
  const auto below = [&](std::uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return static_cast<std::int32_t>((state >> 8) % n);
  };
  std::size_t sent = 0;
  for (int step = 0; step < 5000; ++step) {
    const std::int32_t slot = below(kSlots);
    Pages& table = tables[static_cast<std::size_t>(slot)];
    if (below(6) == 0) {
      table.assign(static_cast<std::size_t>(below(kEach) + 1), 0);
      for (std::int32_t& page : table) page = below(30);
    } else if (table.size() < kEach) {
      table.push_back(below(30));
    }
    Pairs pairs;
    mirror.Update(slot, table, pairs);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      ASSERT_NE(device[static_cast<std::size_t>(pairs[i])], pairs[i + 1]);
      device[static_cast<std::size_t>(pairs[i])] = pairs[i + 1];
      ++sent;
    }
    for (std::size_t i = 0; i < table.size(); ++i) {
      ASSERT_EQ(device[static_cast<std::size_t>(slot * kEach) + i], table[i]);
    }
  }
  EXPECT_GT(sent, 5000u);
}

TEST(TableMirrorDeathTest, ATableOfTooManyPagesIsABug) {
  TableMirror mirror(1, 2);
  Pairs pairs;
  EXPECT_DEATH(mirror.Update(0, Pages{1, 2, 3}, pairs), "too many pages");
}

class StepUploadOnDevice : public gpu::testing::DeviceTest {};

template <class T>
std::vector<T> Read(const T* from, std::size_t count) {
  std::vector<T> values(count);
  EXPECT_EQ(cudaMemcpy(values.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost),
            cudaSuccess);
  return values;
}

TEST_F(StepUploadOnDevice, AStepArrivesWithItsPadding) {
  auto upload = StepUpload::Make(8, 4, 6, 2);
  ASSERT_TRUE(upload.ok()) << upload.status().ToString();
  auto stream = gpu::MakeStream();
  ASSERT_TRUE(stream.ok());
  const Pages first = {3, 4}, second = {9};
  StepInput step;
  step.token = {7, 8, kDrawnBefore};
  step.position = {16, 17, 2};
  step.slot = {2, 2, 0};
  step.table = {first, first, second};
  step.draws.resize(2);
  step.draws[0].row = 1;
  step.draws[0].sampling.temperature = 0.25f;
  step.draws[0].sampling.uniform = 0.125;
  step.draws[1].row = 2;
  const Pages one = {6}, many = {1, 2, 3, 4, 5};
  step.draws[0].stop = one, step.draws[1].stop = many;
  step.copies = {{1, 3}, {5, 9}};
  const StepLayout layout(4, 4);
  ASSERT_TRUE(upload->Send(step, layout, 1, stream->get()).ok());
  ASSERT_TRUE(gpu::Await(*stream, "a copy").ok());
  const auto ints = [&](std::size_t offset, std::size_t count) {
    return Read(upload->At<std::int32_t>(offset), count);
  };
  EXPECT_EQ(ints(layout.token, 4), (Pages{7, 8, kDrawnBefore, 0}));
  EXPECT_EQ(ints(layout.position, 4), (Pages{16, 17, 2, -1}));
  EXPECT_EQ(ints(layout.slot, 4), (Pages{2, 2, 0, 4}));
  EXPECT_EQ(ints(layout.draw_row, 4), (Pages{1, 2, 0, 0}));
  EXPECT_EQ(ints(layout.draw_slot, 4), (Pages{2, 0, 4, 4}));
  EXPECT_EQ(Read(upload->At<float>(layout.temperature), 4),
            (std::vector<float>{0.25f, 1.0f, 1.0f, 1.0f}));
  EXPECT_EQ(Read(upload->At<double>(layout.uniform), 4),
            (std::vector<double>{0.125, 0.5, 0.5, 0.5}));
  EXPECT_EQ(ints(layout.stop, 16),
            (Pages{6, -1, -1, -1, 1, 2, 3, 4, -1, -1, -1, -1, -1, -1, -1, -1}));
  ASSERT_EQ(upload->updates(), 3);
  EXPECT_EQ(ints(layout.updates, 6), (Pages{12, 3, 13, 4, 0, 9}));
  ASSERT_EQ(upload->copies(), 2);
  EXPECT_EQ(ints(upload->copies_at(layout), 4), (Pages{1, 3, 5, 9}));
}

TEST_F(StepUploadOnDevice, TheLargestStepHasRoom) {
  constexpr std::int32_t kSlots = 5, kEach = 4, kRows = 9;
  auto upload = StepUpload::Make(kRows, kSlots, kEach, 1);
  ASSERT_TRUE(upload.ok());
  auto stream = gpu::MakeStream();
  ASSERT_TRUE(stream.ok());
  // Every slot has a full table of new pages, a draw and a page copied for it.
  for (std::int32_t round = 0; round < 3; ++round) {
    std::vector<Pages> tables(kSlots);
    StepInput step;
    for (std::int32_t slot = 0; slot < kSlots; ++slot) {
      Pages& table = tables[static_cast<std::size_t>(slot)];
      for (std::int32_t i = 0; i < kEach; ++i) table.push_back(100 * round + 10 * slot + i);
      for (int row = 0; row < (slot < kRows - kSlots ? 2 : 1); ++row) {
        step.token.push_back(1);
        step.position.push_back(row);
        step.slot.push_back(slot);
        step.table.push_back(table);
      }
      step.draws.push_back({step.rows() - 1, {}});
      step.copies.push_back({slot, slot + 50});
    }
    const StepLayout layout(kRows, kSlots);
    ASSERT_TRUE(upload->Send(step, layout, 0, stream->get()).ok());
    ASSERT_TRUE(gpu::Await(*stream, "a copy").ok());
    EXPECT_EQ(upload->updates(), kSlots * kEach);
    const auto copies = Read(upload->At<std::int32_t>(upload->copies_at(layout)), 2 * kSlots);
    EXPECT_EQ(copies.back(), kSlots - 1 + 50);
  }
}

}  // namespace
}  // namespace thresher::model
