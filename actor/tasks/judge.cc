#include "actor/tasks/judge.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/base/check.h"

namespace thresher::tasks {
namespace {

// Why an answer fails: a reason code and a line for people. `reason` empty: it does not.
struct Fault {
  std::string reason;
  std::string detail;
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// A byte as people can read it, whatever it is.
std::string Shown(char c) {
  if (c >= 0x20 && c < 0x7f) return std::string("'") + c + "'";
  static constexpr char kHex[] = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  return std::string("byte 0x") + kHex[byte >> 4] + kHex[byte & 15];
}

// Reads an answer from left to right; the first fault ends it.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  // Fills `steps` with what was understood. An empty reason means the whole text was.
  Fault Parse(std::vector<Step>& steps) {
    if (text_.empty()) return {"not_parsed", "the answer is empty"};
    while (true) {
      Step step;
      if (!ParseStep(step)) return fault_;
      steps.push_back(step);
      if (AtEnd()) return Unfinished();
      const char separator = text_[position_++];
      if (separator == ';') break;
      if (separator != ',') return Unexpected(position_ - 1, "',' or ';'");
    }
    if (position_ == text_.size()) return {};
    return {"trailing_text", "text after ';' at character " + std::to_string(position_ + 1)};
  }

 private:
  bool AtEnd() const { return position_ >= std::min(text_.size(), kMaxAnswerChars); }

  bool ParseStep(Step& step) {
    if (!ParseNumber(step.a)) return false;
    if (AtEnd()) return Fail(Unfinished());
    step.op = text_[position_++];
    if (std::string_view("+-*/").find(step.op) == std::string_view::npos) {
      return Fail(Unexpected(position_ - 1, "one of + - * /"));
    }
    if (!ParseNumber(step.b)) return false;
    if (AtEnd()) return Fail(Unfinished());
    if (text_[position_++] != '=') return Fail(Unexpected(position_ - 1, "'='"));
    return ParseNumber(step.result);
  }

  bool ParseNumber(std::int64_t& value) {
    if (AtEnd()) return Fail(Unfinished());
    const std::size_t begin = position_;
    if (!IsDigit(text_[begin])) return Fail(Unexpected(begin, "a digit"));
    for (value = 0; !AtEnd() && IsDigit(text_[position_]); ++position_) {
      const int digit = text_[position_] - '0';
      if (value > (kMaxValue - digit) / 10) {
        return Fail({"overflow", "a number at character " + std::to_string(begin + 1) +
                                     " is above " + std::to_string(kMaxValue)});
      }
      value = value * 10 + digit;
    }
    if (text_[begin] == '0' && position_ - begin > 1) {
      return Fail({"not_parsed", "a leading zero at character " + std::to_string(begin + 1)});
    }
    return true;
  }

  bool Fail(Fault fault) {
    fault_ = std::move(fault);
    return false;
  }

  Fault Unexpected(std::size_t at, const std::string& wanted) const {
    return {"not_parsed", Shown(text_[at]) + " at character " + std::to_string(at + 1) + " where " +
                              wanted + " was expected"};
  }

  Fault Unfinished() const {
    if (text_.size() > kMaxAnswerChars) {
      return {"too_long", "no ';' within " + std::to_string(kMaxAnswerChars) + " characters"};
    }
    return {"unterminated", "the answer ends without ';'"};
  }

  std::string_view text_;
  std::size_t position_ = 0;
  Fault fault_;
};

// Plays the steps of an answer on the board.
class Referee {
 public:
  Referee(std::span<const std::int64_t> numbers, std::int64_t target, const Rules& rules)
      : board_(numbers), seen_(numbers.begin(), numbers.end()), target_(target), rules_(rules) {}

  // The first rule that `steps` (at least one) break.
  Fault Play(std::span<const Step> steps) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (won_) return {"step_after_target", "step " + std::to_string(i + 1) + " plays on"};
      Fault fault = PlayStep(steps[i]);
      if (!fault.reason.empty()) {
        fault.detail = "step " + std::to_string(i + 1) + ": " + fault.detail;
        return fault;
      }
    }
    return {};
  }

  // After Play without fault: whether the game is won.
  Fault Result(const Step& last) const {
    if (last.result != target_) {
      return {"wrong_target",
              "the result is " + std::to_string(last.result) + ", not " + std::to_string(target_)};
    }
    if (rules_.use_all && board_.size() > 1) {
      return {"unused_number", std::to_string(board_.size() - 1) + " number(s) left over"};
    }
    return {};
  }

 private:
  Fault Take(std::int64_t value) {
    if (board_.Remove(value)) return {};
    if (std::find(seen_.begin(), seen_.end(), value) != seen_.end()) {
      return {"reused_number", std::to_string(value) + " has been used already"};
    }
    return {"unknown_number", std::to_string(value) + " is neither given nor a result"};
  }

  Fault PlayStep(const Step& step) {
    if (Fault fault = Take(step.a); !fault.reason.empty()) return fault;
    if (Fault fault = Take(step.b); !fault.reason.empty()) return fault;
    const std::string shown = std::to_string(step.a) + step.op + std::to_string(step.b);
    std::int64_t result = 0;
    switch (Apply(step.op, step.a, step.b, &result)) {
      case StepError::kNone:
        break;
      case StepError::kNegative:
        return {"negative", shown + " is below 0"};
      case StepError::kDivisionByZero:
        return {"division_by_zero", shown};
      case StepError::kNotInteger:
        return {"not_integer", shown + " leaves a remainder"};
      case StepError::kOverflow:
        return {"overflow", shown + " is above " + std::to_string(kMaxValue)};
      case StepError::kUnknownOperator:
        return {"not_parsed", shown + " has an unknown operator"};
    }
    if (result != step.result) {
      return {"wrong_arithmetic",
              shown + " is " + std::to_string(result) + ", not " + std::to_string(step.result)};
    }
    board_.Insert(result);
    seen_.push_back(result);
    won_ = !rules_.use_all && result == target_;
    return {};
  }

  Board board_;
  std::vector<std::int64_t> seen_;  // every value that was ever on the board
  std::int64_t target_;
  Rules rules_;
  bool won_ = false;
};

Verdict MakeVerdict(OutcomeKind kind, Fault fault, bool well_formed, bool legal, bool solved,
                    std::span<const Step> steps) {
  Verdict verdict;
  verdict.kind = kind;
  verdict.score = solved ? 1 : 0;
  verdict.reason = solved ? "solved" : std::move(fault.reason);
  verdict.detail = std::move(fault.detail);
  if (!steps.empty()) {
    verdict.parsed = FormatSteps(steps);
    if (!well_formed) verdict.parsed.pop_back();  // the ';' was not reached
  }
  verdict.subscores = {{"well_formed", well_formed ? 1.0 : 0.0},
                       {"legal", legal ? 1.0 : 0.0},
                       {"solved", solved ? 1.0 : 0.0}};
  return verdict;
}

}  // namespace

Verdict JudgeSteps(std::span<const std::int64_t> numbers, std::int64_t target, const Rules& rules,
                   std::string_view text) {
  THRESHER_CHECK(!numbers.empty(), "an item without numbers");
  std::vector<Step> steps;
  if (Fault fault = Parser(text).Parse(steps); !fault.reason.empty()) {
    return MakeVerdict(OutcomeKind::kUnparsable, std::move(fault), false, false, false, steps);
  }
  Referee referee(numbers, target, rules);
  if (Fault fault = referee.Play(steps); !fault.reason.empty()) {
    return MakeVerdict(OutcomeKind::kScored, std::move(fault), true, false, false, steps);
  }
  Fault fault = referee.Result(steps.back());
  const bool solved = fault.reason.empty();
  return MakeVerdict(OutcomeKind::kScored, std::move(fault), true, true, solved, steps);
}

}  // namespace thresher::tasks
