#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher::tasks {

// The rules that countdown and digits share. A board holds numbers; a step takes two of them, of
// values a and b, and puts back a+b, a-b (a >= b), a*b or a/b (b > 0, exact). Values are all that
// counts: two equal numbers are interchangeable, and so are the operands of + and *.

inline constexpr int kMinNumbers = 2;
inline constexpr int kMaxNumbers = 6;
// Bounds that keep every value of a game below 10^18: the product of all given numbers is largest.
inline constexpr std::int64_t kMaxGivenNumber = 1000;
inline constexpr std::int64_t kMaxTarget = 1'000'000;
inline constexpr std::int64_t kMaxValue = 1'000'000'000'000'000'000;

// What differs between the tasks.
struct Rules {
  // true: every given number must be used, the last result is the answer. false: numbers may stay
  // unused and the game ends when the target appears.
  bool use_all = true;
  // Whether solutions that contain a step x1 or /1 are counted and shown. Playing one is always
  // legal.
  bool count_identity_steps = true;
};

// Error: kInvalidArgument for an unknown task name. `use_all` is the option; digits ignores it.
Result<Rules> RulesFor(std::string_view task, bool use_all);

struct Step {
  char op = '+';  // + - * /
  std::int64_t a = 0;
  std::int64_t b = 0;
  std::int64_t result = 0;
  friend bool operator==(const Step&, const Step&) = default;
};

// "9*7=63,63-3=60;": every step as a op b = result, separated by ',', ended by ';'.
std::string FormatSteps(std::span<const Step> steps);

enum class StepError {
  kNone,
  kUnknownOperator,
  kNegative,
  kDivisionByZero,
  kNotInteger,
  kOverflow
};

// a op b for operands >= 0. On kNone `*result` is set and in 0..kMaxValue.
StepError Apply(char op, std::int64_t a, std::int64_t b, std::int64_t* result);

// A multiset of at most kMaxNumbers values >= 0, kept ascending, so that equality is equality of
// multisets. A value type of 56 bytes.
class Board {
 public:
  Board() = default;
  // numbers.size() <= kMaxNumbers (checked).
  explicit Board(std::span<const std::int64_t> numbers);

  std::size_t size() const { return size_; }
  std::int64_t operator[](std::size_t i) const { return values_[i]; }
  bool Contains(std::int64_t value) const;
  // Removes one occurrence; false, and nothing changed, when there is none.
  bool Remove(std::int64_t value);
  // size() < kMaxNumbers (checked).
  void Insert(std::int64_t value);
  // The board after a legal step on it.
  Board After(const Step& step) const;

  friend bool operator==(const Board&, const Board&) = default;

 private:
  std::array<std::int64_t, kMaxNumbers> values_{};  // unused entries are 0
  std::size_t size_ = 0;
};

struct BoardHash {
  std::size_t operator()(const Board& board) const noexcept;
};

// The legal steps of a board, distinct by value, in a fixed order. The larger operand comes first,
// except in 0/b. A board of 6 has at most 60.
class StepList {
 public:
  void Add(char op, std::int64_t a, std::int64_t b, std::int64_t result) {
    steps_[size_++] = {op, a, b, result};
  }
  std::size_t size() const { return size_; }
  const Step& operator[](std::size_t i) const { return steps_[i]; }
  const Step* begin() const { return steps_.data(); }
  const Step* end() const { return steps_.data() + size_; }

 private:
  std::array<Step, 4 * kMaxNumbers*(kMaxNumbers - 1) / 2> steps_;
  std::size_t size_ = 0;
};

// With `identity_steps` false, x1 and /1 are left out.
StepList LegalSteps(const Board& board, bool identity_steps = true);

}  // namespace thresher::tasks
