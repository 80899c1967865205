#pragma once

#include <bit>
#include <concepts>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "broker/evaluation.h"
#include "broker/group_assembler.h"
#include "broker/run_state.h"
#include "common/data/byte_order.h"
#include "common/wire/records.h"

namespace thresher::broker {

// The bytes of a RunState. Each class names its fields once, in `template <typename Io> Fields(Io&
// io) { io(a, b); }`; a StateWriter appends them in that order, a StateReader takes them off again.
// Numbers are little-endian at their size, doubles by their bits, sequences behind their length
// (u64), journal records as wire::EncodeJournalRecord (and so may grow fields).

template <typename T>
concept JournalRecordType = requires(const T& record) {
  wire::JournalRecord(record);
};

// The largest value of each enumeration that is read.
constexpr int Largest(Stream) { return kStreamCount - 1; }
constexpr int Largest(OutcomeKind) { return static_cast<int>(OutcomeKind::kRejected); }
constexpr int Largest(Slot::State) { return static_cast<int>(Slot::State::kDropped); }

class StateWriter {
 public:
  template <typename... Ts>
  void operator()(const Ts&... values) {
    (Put(values), ...);
  }
  std::string Take() { return std::move(bytes_); }

 private:
  template <typename T>
  void Put(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      AppendLittle<std::uint8_t>(bytes_, value ? 1 : 0);
    } else if constexpr (std::is_enum_v<T>) {
      Put(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_unsigned_v<T>) {
      AppendLittle<T>(bytes_, value);
    } else if constexpr (std::is_same_v<T, double>) {
      Put(std::bit_cast<std::uint64_t>(value));
    } else if constexpr (JournalRecordType<T>) {
      Put(wire::EncodeJournalRecord(value));
    } else if constexpr (std::is_array_v<T>) {
      for (const auto& element : value) Put(element);
    } else {
      PutOther(value);
    }
  }
  void PutOther(const std::string& text) {
    AppendLittle<std::uint64_t>(bytes_, text.size());
    bytes_.append(text);
  }
  template <typename T, std::size_t kSize>
  void PutOther(const std::array<T, kSize>& values) {
    for (const T& value : values) Put(value);
  }
  template <typename A, typename B>
  void PutOther(const std::pair<A, B>& pair) {
    Put(pair.first);
    Put(pair.second);
  }
  template <typename T>
  void PutOther(const T& value) {
    if constexpr (requires { value.begin(); }) {
      AppendLittle<std::uint64_t>(bytes_, value.size());
      for (const auto& element : value) Put(element);
    } else if constexpr (requires { const_cast<T&>(value).Fields(*this); }) {
      const_cast<T&>(value).Fields(*this);  // which only reads here
    } else {
      Fields(*this, const_cast<T&>(value));
    }
  }

  std::string bytes_;
};

// What is malformed makes ok() false; what was read since is then not to be used. Allocates no more
// than a small multiple of the bytes there are.
class StateReader {
 public:
  explicit StateReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename... Ts>
  void operator()(Ts&... values) {
    (Get(values), ...);
  }
  // For Fields that find what was read to contradict itself.
  void Refuse() { ok_ = false; }
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

 private:
  template <typename T>
  void Get(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      std::uint8_t byte = 0;
      Get(byte);
      ok_ = ok_ && byte <= 1;
      value = byte == 1;
    } else if constexpr (std::is_enum_v<T>) {
      std::underlying_type_t<T> number = 0;
      Get(number);
      ok_ = ok_ && number <= Largest(T{});
      if (ok_) value = static_cast<T>(number);
    } else if constexpr (std::is_unsigned_v<T>) {
      if (!Has(sizeof(T))) return;
      value = LoadLittle<T>(bytes_.data());
      bytes_.remove_prefix(sizeof(T));
    } else if constexpr (std::is_same_v<T, double>) {
      std::uint64_t bits = 0;
      Get(bits);
      value = std::bit_cast<double>(bits);
    } else if constexpr (JournalRecordType<T>) {
      GetRecord(value);
    } else if constexpr (std::is_array_v<T>) {
      for (auto& element : value) Get(element);
    } else {
      GetOther(value);
    }
  }
  template <typename T>
  void GetRecord(T& value) {
    std::string bytes;
    Get(bytes);
    if (!ok_) return;
    Result<wire::JournalRecord> record = wire::DecodeJournalRecord(bytes);
    T* found = record.ok() ? std::get_if<T>(&*record) : nullptr;
    ok_ = found != nullptr;
    if (ok_) value = std::move(*found);
  }
  void GetOther(std::string& text) {
    const std::uint64_t size = Length(1);
    text.assign(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
  }
  template <typename T, std::size_t kSize>
  void GetOther(std::array<T, kSize>& values) {
    for (T& value : values) Get(value);
  }
  template <typename T>
  void GetOther(std::vector<T>& values) {
    const std::uint64_t size = Length(1);
    values.clear();
    for (std::uint64_t i = 0; i < size && ok_; ++i) Get(values.emplace_back());
  }
  template <typename A, typename B>
  void GetOther(std::pair<A, B>& pair) {
    Get(const_cast<std::remove_const_t<A>&>(pair.first));
    Get(pair.second);
  }
  template <typename T>
  void GetOther(T& value) {
    if constexpr (requires { typename T::mapped_type; }) {
      const std::uint64_t size = Length(1);
      value.clear();
      for (std::uint64_t i = 0; i < size && ok_; ++i) {
        typename T::key_type key{};
        Get(key);
        auto [entry, added] = value.try_emplace(std::move(key));
        ok_ = ok_ && added;
        Get(entry->second);
      }
    } else if constexpr (requires { value.Fields(*this); }) {
      value.Fields(*this);
    } else {
      Fields(*this, value);
    }
  }
  bool Has(std::uint64_t bytes) {
    ok_ = ok_ && bytes <= bytes_.size();
    return ok_;
  }
  // Of a sequence whose elements take at least `least` bytes each; 0 when that is not there.
  std::uint64_t Length(std::uint64_t least) {
    std::uint64_t size = 0;
    Get(size);
    ok_ = ok_ && size <= bytes_.size() / least;
    return ok_ ? size : 0;
  }

  std::string_view bytes_;
  bool ok_ = true;
};

template <typename Io>
void Fields(Io& io, Hash128& v) {
  io(v.high, v.low);
}
template <typename Io>
void Fields(Io& io, PolicyVersion& v) {
  io(v.lineage, v.step);
}
template <typename Io>
void Fields(Io& io, TrajectoryId& v) {
  io(v.stream, v.island, v.item, v.sample);
}
template <typename Io, typename Tag, typename Rep>
void Fields(Io& io, StrongId<Tag, Rep>& v) {
  io(v.value);
}
template <typename Io>
void Fields(Io& io, Dedup::First& v) {
  io(v.content_hash, v.actor);
}
template <typename Io>
void Fields(Io& io, UnitKey& v) {
  io(v.evaluation, v.number, v.round);
}
template <typename Io>
void Fields(Io& io, GroupKey& v) {
  io(v.stream, v.island, v.item);
}
template <typename Io>
void Fields(Io& io, Unit& v) {
  io(v.issued, v.outstanding, v.slots);
}
template <typename Io>
void Fields(Io& io, Slot& v) {
  io(v.state, v.arrived, v.content_hash, v.reward, v.loss_tokens, v.outcome, v.truncated,
     v.staleness);
}
template <typename Io>
void Fields(Io& io, StreamCounts& v) {
  io(v.issued, v.trained, v.evaluated, v.dropped, v.held);
}
template <typename Io>
void Fields(Io& io, Estimate& v) {
  io(v.value, v.low, v.high);
}
template <typename Io>
void Fields(Io& io, EvalRound& v) {
  io(v.round, v.label, v.phase_end, v.version, v.first_item, v.items, v.samples);
}
template <typename Io>
void Fields(Io& io, EvalSummary& v) {
  io(v.round, v.pass_at, v.mean_reward, v.arrived, v.digest);
}
template <typename Io>
void Fields(Io& io, StepStatistics& v) {
  io(v.accepted, v.reward_sum, v.loss_tokens, v.outcomes, v.zero_variance, v.not_selected,
     v.surplus, v.other_drops, v.rounds);
}
template <typename Io>
void Fields(Io& io, LogPosition& v) {
  io(v.segment, v.offset);
}
template <typename Io>
void Fields(Io& io, LogCursor& v) {
  io(v.position, v.sequence, v.previous);
}

template <typename Io>
void RunState::Fields(Io& io) {
  io(ledger_, groups_, dedup_, epoch_, issued_, settled_, batches_, commits_, published_, evals_,
     statistics_, last_durable_, committed_steps_, durable_steps_, remembered_from_, finished_,
     published_versions_, nondeterministic_, trained_tokens_, audited_tokens_, mismatched_tokens_,
     retrained_steps_, max_staleness_, heldout_);
}

}  // namespace thresher::broker
