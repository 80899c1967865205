#include "broker/run_files.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

namespace thresher::broker {
namespace {

using Json = nlohmann::json;

Result<Json> ParseJsonFile(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return DataLoss(path.string() + ": not a JSON object");
  }
  return json;
}

// The text at `key`; empty when it is missing or no text.
std::string TextAt(const Json& json, const char* key) {
  auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint32_t NumberAt(const Json& json, const char* key) {
  auto found = json.find(key);
  return found != json.end() && found->is_number_unsigned() ? found->get<std::uint32_t>() : 0;
}

}  // namespace

Result<Hash128> ReadRunId(const std::filesystem::path& run) {
  std::filesystem::path path = run / "manifest.json";
  THRESHER_ASSIGN_OR_RETURN(Json json, ParseJsonFile(path));
  Result<Hash128> id = Hash128::Parse(TextAt(json, "run_id"));
  if (!id.ok()) return DataLoss(path.string() + ": run_id: 32 hexadecimal digits expected");
  return id;
}

Status WriteIdentity(const std::filesystem::path& file, const RunIdentity& identity) {
  Json json = {{"backend", identity.backend},
               {"architecture", identity.architecture},
               {"kernel_set", identity.kernel_set},
               {"weight_type", identity.weight_type},
               {"compute_type", identity.compute_type},
               {"kv_type", identity.kv_type},
               {"gemm_cut", identity.gemm_cut},
               {"attention_split", identity.attention_split},
               {"grad_leaves", identity.grad_leaves},
               {"build", identity.build},
               {"model_shape", identity.model_shape.ToString()},
               {"tokenizer", identity.tokenizer.ToString()},
               {"task", identity.task.ToString()},
               {"result_keys", identity.result_keys.ToString()},
               {"run_seed", std::to_string(identity.run_seed)},
               {"hash", identity.Hash().ToString()}};
  std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace);
  return WriteFileAtomic(file, text + "\n");
}

Result<std::optional<RunIdentity>> ReadIdentity(const std::filesystem::path& path) {
  if (!Exists(path)) return std::optional<RunIdentity>();
  THRESHER_ASSIGN_OR_RETURN(Json json, ParseJsonFile(path));
  RunIdentity identity;
  identity.backend = TextAt(json, "backend");
  identity.architecture = TextAt(json, "architecture");
  identity.kernel_set = TextAt(json, "kernel_set");
  identity.weight_type = TextAt(json, "weight_type");
  identity.compute_type = TextAt(json, "compute_type");
  identity.kv_type = TextAt(json, "kv_type");
  identity.gemm_cut = NumberAt(json, "gemm_cut");
  identity.attention_split = NumberAt(json, "attention_split");
  identity.grad_leaves = NumberAt(json, "grad_leaves");
  identity.build = TextAt(json, "build");
  for (auto [key, hash] :
       {std::pair{"model_shape", &identity.model_shape},
        std::pair{"tokenizer", &identity.tokenizer}, std::pair{"task", &identity.task},
        std::pair{"result_keys", &identity.result_keys}}) {
    Result<Hash128> parsed = Hash128::Parse(TextAt(json, key));
    if (!parsed.ok()) return DataLoss(path.string() + ": " + key + " is not a hash");
    *hash = *parsed;
  }
  identity.run_seed = std::strtoull(TextAt(json, "run_seed").c_str(), nullptr, 10);
  if (identity.Hash().ToString() != TextAt(json, "hash")) {
    return DataLoss(path.string() + ": the fields do not give the hash beside them");
  }
  return std::optional<RunIdentity>(identity);
}

Result<JsonLines> JsonLines::Open(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(AppendFile file, AppendFile::Open(path));
  return JsonLines(std::move(file));
}

bool JsonLines::Append(const std::string& json_line) {
  const bool written = file_.AppendLine(json_line).ok();
  if (!written) ++lost_;
  return written;
}

Result<EventLog> EventLog::Open(const std::filesystem::path& run, const Clock& clock) {
  THRESHER_ASSIGN_OR_RETURN(JsonLines lines, JsonLines::Open(run / "events.jsonl"));
  return EventLog(std::move(lines), clock);
}

std::optional<std::uint64_t> EventLog::Room(std::string_view event) {
  Recent& recent = recent_.try_emplace(std::string(event)).first->second;
  const TimePoint now = clock_->Now();
  if (recent.lines == 0 || now - recent.since >= std::chrono::minutes(1)) {
    const std::uint64_t left_out = recent.left_out;
    recent = {now, 1, 0};
    return left_out;
  }
  if (recent.lines >= kMostOfAKind) {
    ++recent.left_out;
    return std::nullopt;
  }
  ++recent.lines;
  return 0;
}

void EventLog::Add(EventLevel level, std::string_view event, std::string_view detail) {
  static constexpr const char* kNames[] = {"info", "warning", "alarm"};
  if (level == EventLevel::kAlarm) ++alarms_;
  if (level == EventLevel::kWarning) ++warnings_;
  if (level != EventLevel::kInfo) {
    last_fault_ = std::string(event) + ": " + std::string(detail);
    ++by_kind_.try_emplace(std::string(event), 0).first->second;
  }
  std::optional<std::uint64_t> left_out = level == EventLevel::kAlarm ? 0 : Room(event);
  if (!left_out) return;
  const std::string more =
      *left_out == 0 ? "" : " (and " + std::to_string(*left_out) + " that were not written)";
  Json json = {{"time", std::chrono::duration<double>(clock_->WallTime()).count()},
               {"process", "broker"},
               {"level", kNames[static_cast<int>(level)]},
               {"event", event},
               {"detail", std::string(detail) + more}};
  lines_.Append(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace thresher::broker
