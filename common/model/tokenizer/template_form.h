#pragma once

#include <string>
#include <string_view>

namespace thresher::model {

// A Jinja template in a form in which spelling does not matter: two templates with equal forms
// render alike. The form is the sequence of the template's literal text and its tags, after Jinja's
// white space control (with trim_blocks and lstrip_blocks, as Transformers sets them) and without
// comments; within tags, tokens stand apart by one space, strings are quoted one way, and
// `.role` and `.content` are written as ["role"] and ["content"].
struct TemplateForm {
  std::string text;
  // The system message that a ChatML template writes where a conversation has none: X in its one
  // string "<|im_start|>system\nX<|im_end|>\n". In `text` a mark stands for it, wherever it stood.
  std::string default_system;
};

// Never fails: what is no Jinja has a form that no known template has. Linear time, but for the
// template's strings, which are searched for the default system message.
TemplateForm FormOfTemplate(std::string_view jinja);

}  // namespace thresher::model
