#include "actor/tasks/rules.h"

#include <algorithm>

#include "common/base/check.h"

namespace thresher::tasks {

Result<Rules> RulesFor(std::string_view task, bool use_all) {
  if (task == "countdown") return Rules{.use_all = use_all, .count_identity_steps = true};
  if (task == "digits") return Rules{.use_all = false, .count_identity_steps = false};
  return InvalidArgument("unknown task '" + std::string(task) + "'; allowed: countdown, digits");
}

std::string FormatSteps(std::span<const Step> steps) {
  std::string text;
  for (const Step& step : steps) {
    if (!text.empty()) text += ',';
    text += std::to_string(step.a);
    text += step.op;
    text += std::to_string(step.b);
    text += '=';
    text += std::to_string(step.result);
  }
  return text + ';';
}

StepError Apply(char op, std::int64_t a, std::int64_t b, std::int64_t* result) {
  switch (op) {
    case '+':
      if (__builtin_add_overflow(a, b, result)) return StepError::kOverflow;
      break;
    case '-':
      if (a < b) return StepError::kNegative;
      *result = a - b;
      break;
    case '*':
      if (__builtin_mul_overflow(a, b, result)) return StepError::kOverflow;
      break;
    case '/':
      if (b == 0) return StepError::kDivisionByZero;
      if (a % b != 0) return StepError::kNotInteger;
      *result = a / b;
      break;
    default:
      return StepError::kUnknownOperator;
  }
  return *result > kMaxValue ? StepError::kOverflow : StepError::kNone;
}

Board::Board(std::span<const std::int64_t> numbers) : size_(numbers.size()) {
  THRESHER_CHECK(numbers.size() <= kMaxNumbers, "more numbers than a board holds");
  std::copy(numbers.begin(), numbers.end(), values_.begin());
  std::sort(values_.begin(), values_.begin() + size_);
}

bool Board::Contains(std::int64_t value) const {
  return std::binary_search(values_.begin(), values_.begin() + size_, value);
}

bool Board::Remove(std::int64_t value) {
  const auto end = values_.begin() + size_;
  const auto found = std::lower_bound(values_.begin(), end, value);
  if (found == end || *found != value) return false;
  std::copy(found + 1, end, found);
  values_[--size_] = 0;
  return true;
}

void Board::Insert(std::int64_t value) {
  THRESHER_CHECK(size_ < kMaxNumbers, "the board is full");
  const auto end = values_.begin() + size_;
  const auto place = std::upper_bound(values_.begin(), end, value);
  std::copy_backward(place, end, end + 1);
  *place = value;
  ++size_;
}

Board Board::After(const Step& step) const {
  Board next = *this;
  const bool legal = next.Remove(step.a) && next.Remove(step.b);
  THRESHER_CHECK(legal, "a step uses a number that is not on the board");
  next.Insert(step.result);
  return next;
}

std::size_t BoardHash::operator()(const Board& board) const noexcept {
  std::uint64_t hash = board.size();
  for (std::size_t i = 0; i < board.size(); ++i) {
    // Multiply and fold, as in wyhash; the constant is 2^64 divided by the golden ratio.
    hash = (hash ^ static_cast<std::uint64_t>(board[i])) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
  }
  return hash;
}

StepList LegalSteps(const Board& board, bool identity_steps) {
  StepList steps;
  for (std::size_t i = 0; i + 1 < board.size(); ++i) {
    if (i > 0 && board[i] == board[i - 1]) continue;
    for (std::size_t j = i + 1; j < board.size(); ++j) {
      if (j > i + 1 && board[j] == board[j - 1]) continue;
      const std::int64_t low = board[i], high = board[j];
      steps.Add('+', high, low, high + low);
      steps.Add('-', high, low, high - low);
      if (identity_steps || (low != 1 && high != 1)) steps.Add('*', high, low, high * low);
      if (low > 0 && high % low == 0 && (identity_steps || low != 1)) {
        steps.Add('/', high, low, high / low);
      }
      if (low == 0 && high > 0 && (identity_steps || high != 1)) steps.Add('/', low, high, 0);
    }
  }
  return steps;
}

}  // namespace thresher::tasks
