// Which templates ChatTemplate knows, and how it finds them in a folder.

#include <array>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/model/json_fields.h"
#include "common/model/tokenizer/chat_template.h"
#include "common/model/tokenizer/template_form.h"
#include "common/model/tokenizer/tokenizer_stages.h"

namespace thresher::model {

struct ChatTemplate::Known {
  std::string_view name;
  Kind kind;
  std::string_view form;  // HashText128 of TemplateForm::text, as hexadecimal digits
  std::string_view default_system;
};

// The forms of the templates that the models carry; one name may have several.
std::span<const ChatTemplate::Known> ChatTemplate::AllKnown() {
  constexpr std::string_view kQwen =
      "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
  static const std::array<Known, 10> known = {{
      {"chatml", Kind::kChatMl, "92278126043f3ce5484fb1ce087611a8", ""},
      {"qwen2", Kind::kQwen2, "e24ffd9874af4f5b016f34d300095509", "You are a helpful assistant."},
      {"qwen2.5", Kind::kQwen25, "f5cad613bb8cf25daa46af385f0ec59e", kQwen},
      {"qwen3", Kind::kQwen3, "8f7b0ac9f214b61cb6be4db46ac9d85a", ""},
      {"qwen3", Kind::kQwen3, "c297d1c08ca32294a5418240b33c1815", ""},  // as first published
      {"qwen3-instruct", Kind::kQwen3Instruct, "42118e7933c3f7842214a7d74f16b2e1", ""},
      {"qwen3-thinking", Kind::kQwen3Thinking, "3a4c21ffd7296a005899e163f8ee076b", ""},
      {"llama3", Kind::kLlama3, "fd111dfd4b3e8ec1f6d638809965b6fc", ""},
      {"llama3.1", Kind::kLlama31, "bb748488845bc6e74257ea37a9fdf583", ""},
      {"llama3.2", Kind::kLlama32, "bbb4f6580ecaf964e7e24f3766f51071", ""},
  }};
  return known;
}

std::string ChatTemplate::Names() {
  std::string names;
  std::string_view last;
  for (const Known& known : AllKnown()) {
    if (known.name == last) continue;
    names += (names.empty() ? "" : ", ") + std::string(known.name);
    last = known.name;
  }
  return names;
}

std::string ChatTemplate::name() const {
  for (const Known& known : AllKnown()) {
    if (known.kind == kind_) return std::string(known.name);
  }
  return "";
}

Result<ChatTemplate> ChatTemplate::ByName(std::string_view name) {
  for (const Known& known : AllKnown()) {
    if (known.name == name) return ChatTemplate(known.kind, std::string(known.default_system));
  }
  return InvalidArgument("chat template " + Quoted(name) + "; allowed: " + Names());
}

Result<ChatTemplate> ChatTemplate::Recognise(std::string_view jinja, const std::string& origin) {
  const TemplateForm form = FormOfTemplate(jinja);
  const std::string hash = HashText128(form.text).ToString();
  for (const Known& known : AllKnown()) {
    if (known.form == hash) return ChatTemplate(known.kind, form.default_system);
  }
  return InvalidArgument(origin + ": an unknown chat template (form " + hash + "), " +
                         Quoted(jinja) + "; allowed: " + Names());
}

namespace {

// "default" of a list of {"name", "template"}, or the text itself.
Result<std::string> TemplateOf(const Json& value, const std::string& origin) {
  const std::string allowed =
      "; allowed: a template, a list of {\"name\", \"template\"} with a default";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return RefuseKey(origin, "chat_template", "is " + Shown(value) + allowed);
  for (std::size_t i = 0; i < value.size(); ++i) {
    JsonFields fields(value[i], origin, "chat_template[" + std::to_string(i) + "].");
    if (!value[i].is_object()) {
      return RefuseKey(origin, "chat_template", "has " + Shown(value[i]) + allowed);
    }
    const std::string name = fields.Text("name"), text = fields.Text("template");
    THRESHER_RETURN_IF_ERROR(fields.status());
    if (name == "default") return text;
  }
  return RefuseKey(origin, "chat_template", "has no default" + allowed);
}

// A special token of tokenizer_config.json: a text or {"content": text}; empty when there is none.
Result<std::string> SpecialToken(const Json& config, const std::string& key,
                                 const std::string& origin) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return RefuseKey(origin, key, "is " + Shown(*found) + "; allowed: a token");
}

}  // namespace

Result<ChatTemplate> ChatTemplate::FromFolder(const std::filesystem::path& folder) {
  const auto jinja_file = folder / "chat_template.jinja";
  const std::string config_file = (folder / "tokenizer_config.json").string();
  Json config = Json::object();
  if (Exists(config_file)) {
    THRESHER_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(config_file));
    THRESHER_ASSIGN_OR_RETURN(config, ParseJsonObject(bytes, config_file));
  }
  std::string jinja, origin = jinja_file.string();
  if (Exists(jinja_file)) {
    THRESHER_ASSIGN_OR_RETURN(jinja, ReadFile(jinja_file));
  } else if (config.contains("chat_template") && !config["chat_template"].is_null()) {
    THRESHER_ASSIGN_OR_RETURN(jinja, TemplateOf(config["chat_template"], config_file));
    origin = config_file + ": key 'chat_template'";
  } else {
    return NotFound(folder.string() +
                    ": no chat template: neither chat_template.jinja nor key "
                    "'chat_template' of tokenizer_config.json");
  }
  THRESHER_ASSIGN_OR_RETURN(ChatTemplate chat, Recognise(jinja, origin));
  THRESHER_ASSIGN_OR_RETURN(chat.bos_token_, SpecialToken(config, "bos_token", config_file));
  const bool llama = chat.name().starts_with("llama");
  if (llama && chat.bos_token_.empty()) {
    return RefuseKey(config_file, "bos_token", "is missing; allowed: the token a text begins with");
  }
  return chat;
}

}  // namespace thresher::model
