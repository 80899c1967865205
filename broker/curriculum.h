#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace thresher::broker {

// Which level of difficulty the groups of the next step have. It reads the outcomes of committed
// groups alone, in the order of their issue, so that every run with equal outcomes, and every
// recovery from its journal, chooses the same levels whatever arrived when. Integers only: no
// rounding differs between machines. Plain data.
class Curriculum {
 public:
  enum class Kind : std::uint8_t {
    kWindow,    // one level at a time: up when it is mostly solved, down when it hardly is
    kVariance,  // all levels, in proportion to p (1 - p) of each
  };
  struct Options {
    Kind kind = Kind::kWindow;
    std::uint32_t levels = 1;
    std::uint32_t window_groups = 64;  // newest outcomes of a level that count
    std::uint32_t down_percent = 20;   // kWindow: at most this much solved
    std::uint32_t up_percent = 80;     // at least this much
    friend bool operator==(const Options&, const Options&) = default;
  };

  // levels and window_groups at least 1, down below up. Checked.
  explicit Curriculum(const Options& options);

  // A committed group, in issue order.
  void Commit(std::uint32_t level, std::uint32_t solved, std::uint32_t samples);
  // The levels of the next `groups` groups, in issue order.
  std::vector<std::uint32_t> NextLevels(std::uint32_t groups) const;

  friend bool operator==(const Curriculum&, const Curriculum&) = default;

 private:
  struct Outcome {
    std::uint32_t solved = 0, samples = 0;
    friend bool operator==(const Outcome&, const Outcome&) = default;
  };
  struct Level {
    std::deque<Outcome> newest{};
    std::uint64_t solved = 0, samples = 0;  // of these
    friend bool operator==(const Level&, const Level&) = default;
  };
  void Move();
  std::uint32_t Weight(const Level& level) const;

  Options options_;
  std::vector<Level> levels_;
  std::uint32_t level_ = 0;  // kWindow
};

}  // namespace thresher::broker
