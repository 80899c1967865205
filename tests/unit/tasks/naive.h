#pragma once

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>
#include <string>
#include <vector>

// Slow, obvious answers to the questions that actor/tasks answers fast; they share no code with it.
namespace thresher::tasks::naive {

using Numbers = std::vector<long long>;

// All distinct solutions as text, the larger operand of + and * first. Tries every ordered pair of
// positions with every operator and remembers the texts; nothing is memoised.
inline void Collect(const Numbers& board, long long target, bool use_all, bool identity,
                    const std::string& before, std::set<std::string>& found) {
  for (std::size_t i = 0; i < board.size(); ++i) {
    for (std::size_t j = 0; j < board.size(); ++j) {
      if (i == j) continue;
      const long long a = board[i], b = board[j];
      for (const char op : {'+', '-', '*', '/'}) {
        const bool ordered = op == '-' || op == '/';
        if (!ordered && a < b) continue;
        if (op == '-' && a < b) continue;
        if (op == '/' && (b == 0 || a % b != 0)) continue;
        if (!identity && op == '*' && (a == 1 || b == 1)) continue;
        if (!identity && op == '/' && b == 1) continue;
        const long long result = op == '+' ? a + b : op == '-' ? a - b : op == '*' ? a * b : a / b;
        Numbers rest{result};
        for (std::size_t k = 0; k < board.size(); ++k) {
          if (k != i && k != j) rest.push_back(board[k]);
        }
        const std::string text = before + (before.empty() ? "" : ",") + std::to_string(a) + op +
                                 std::to_string(b) + "=" + std::to_string(result);
        if (result == target && (!use_all || rest.size() == 1)) {
          found.insert(text + ";");
          continue;
        }
        Collect(rest, target, use_all, identity, text, found);
      }
    }
  }
}

inline std::set<std::string> Solutions(const Numbers& board, long long target, bool use_all,
                                       bool identity) {
  std::set<std::string> found;
  Collect(board, target, use_all, identity, "", found);
  return found;
}

// Reads one number without leading zeros and of at most 18 digits from the front of `text`.
inline bool EatNumber(std::string& text, long long& value) {
  std::size_t n = 0;
  while (n < text.size() && text[n] >= '0' && text[n] <= '9') ++n;
  if (n == 0 || n > 18 || (n > 1 && text[0] == '0')) return false;
  value = std::stoll(text.substr(0, n));
  text.erase(0, n);
  return true;
}

inline bool EatChar(std::string& text, const std::string& allowed, char& c) {
  if (text.empty() || allowed.find(text[0]) == std::string::npos) return false;
  c = text[0];
  text.erase(0, 1);
  return true;
}

// Whether `text` is a right answer.
inline bool IsRight(const Numbers& numbers, long long target, bool use_all, std::string text) {
  std::multiset<long long> board(numbers.begin(), numbers.end());
  const auto take = [&](long long value) {
    const auto at = board.find(value);
    if (at == board.end()) return false;
    board.erase(at);
    return true;
  };
  while (true) {
    long long a = 0, b = 0, claimed = 0;
    char op = 0, separator = 0;
    if (!EatNumber(text, a) || !EatChar(text, "+-*/", op) || !EatNumber(text, b)) return false;
    if (!EatChar(text, "=", separator) || !EatNumber(text, claimed)) return false;
    if (!EatChar(text, ",;", separator)) return false;
    if (!take(a) || !take(b)) return false;
    const __int128 wide = op == '+'   ? static_cast<__int128>(a) + b
                          : op == '-' ? static_cast<__int128>(a) - b
                          : op == '*' ? static_cast<__int128>(a) * b
                          : b != 0    ? static_cast<__int128>(a) / b
                                      : -1;
    if (wide < 0 || (op == '/' && wide * b != a) || wide != claimed) return false;
    board.insert(claimed);
    if (separator == ';')
      return text.empty() && claimed == target && (!use_all || board.size() == 1);
    if (!use_all && claimed == target) return false;  // the game was over
  }
}

}  // namespace thresher::tasks::naive
