#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace thresher::bench {

// Repeated measurements of a rate (units per second) and of its limit, taken in turns so that a busy
// machine disturbs both alike.
struct Rates {
  std::vector<double> rate;
  std::vector<double> limit;
};

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

// Seconds that `work` takes.
inline double Seconds(const std::function<void()>& work) {
  auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// {"name", "unit", "median", "min", "max", "runs", "limit": {"name", "median"}, "ratio": {...}}; the ratio is
// taken pair by pair.
inline nlohmann::json Describe(const std::string& name, const std::string& unit,
                               const std::string& limit_name, const Rates& rates) {
  auto spread = [](const std::vector<double>& v) {
    return nlohmann::json{{"median", Median(v)},
                          {"min", *std::min_element(v.begin(), v.end())},
                          {"max", *std::max_element(v.begin(), v.end())}};
  };
  std::vector<double> ratio;
  for (std::size_t i = 0; i < rates.rate.size(); ++i) ratio.push_back(rates.rate[i] / rates.limit[i]);
  nlohmann::json out = spread(rates.rate);
  out["name"] = name;
  out["unit"] = unit;
  out["runs"] = rates.rate.size();
  out["limit"] = spread(rates.limit);
  out["limit"]["name"] = limit_name;
  out["ratio"] = spread(ratio);
  return out;
}

}  // namespace thresher::bench
