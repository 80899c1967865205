"""Chat templates: recognised, and rendered as Transformers renders them.

Usage: check_templates.py TOOL. The models' own templates come from the `trl` package; those it does
not have are stated here. Exit 1 with the first differences if there is any.
"""

import importlib.util
import json
import pathlib
import random
import re
import sys
import tempfile

import transformers
from tokenizers import Tokenizer, models

import corpus
from tool import ask

CONVERSATIONS = 400  # a template
BOS = "<|begin_of_text|>"

CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
          "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
DEFAULT_SYSTEM = ("{% if loop.first and messages[0]['role'] != 'system' %}"
                  "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}")
# What the llama3 forms mean, said once more and shorter: the text must be this.
LLAMA3 = ("{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
          "\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
          "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}")


def trl_template(name):
    """A file of the trl package, without importing the package."""
    root = pathlib.Path(importlib.util.find_spec("trl").submodule_search_locations[0])
    return (root / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def respelled(template):
    """The same template written otherwise: quotes, members, white space, comments."""
    def tag(match):
        inside = match.group(0)
        if '"' not in inside:
            inside = inside.replace("'", '"')
        inside = re.sub(r"message\.(role|content)\b", r"message['\1']", inside)
        return inside.replace("- ", "-   ").replace(" %}", "\t %}").replace(" }}", "   }}")
    return "{#- said otherwise #}" + re.sub(r"\{[{%].*?[%}]\}", tag, template, flags=re.S)


def templates():
    """(name, template, keywords for Transformers, options for us)."""
    qwen2 = CHATML.replace("%}{{", "%}" + DEFAULT_SYSTEM + "{{", 1)
    qwen25, qwen3 = trl_template("qwen2_5"), trl_template("qwen3")
    math = qwen25.replace("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                          "Please reason step by step, and put your final answer within \\\\boxed{}.")
    thinking = re.sub(r"\{%- if add_generation_prompt %\}.*", lambda _: (
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n<think>\\n' }}\n"
        "{%- endif %}"), qwen3, flags=re.S)
    date = {"date": "01 Feb 2025"}
    dated = {"date_string": "01 Feb 2025"}
    return [
        ("chatml", CHATML, {}, {}), ("qwen2", qwen2, {}, {}), ("qwen2", respelled(qwen2), {}, {}),
        ("qwen2.5", qwen25, {}, {}), ("qwen2.5", respelled(qwen25), {}, {}),
        ("qwen2.5", math, {}, {}),
        ("qwen3", qwen3, {}, {}), ("qwen3", respelled(qwen3), {}, {}),
        ("qwen3", qwen3, {"enable_thinking": False}, {"thinking": False}),
        ("qwen3-instruct", trl_template("qwen3_instruct_2507"), {}, {}),
        ("qwen3-thinking", thinking, {}, {}),
        ("llama3", trl_template("llama3"), {}, {}),
        ("llama3", respelled(trl_template("llama3")), {}, {}),
        ("llama3.1", trl_template("llama3_1"), {}, {}),
        ("llama3.1", trl_template("llama3_1"), dated, date),
        ("llama3.2", trl_template("llama3_2"), dated, date),
    ]


def conversation(rng, tools, sources, mark):
    """Random messages in any order of roles."""
    roles = ["system", "user", "assistant", "user", "assistant"] + ["tool"] * tools
    messages = []
    for at in range(rng.randrange(1, 9)):
        role = rng.choice(roles if at or rng.randrange(2) else ["system"])
        content = corpus.random_string(rng, ["<|im_end|>", "<think>", BOS], sources, mark)
        if rng.randrange(3) == 0:
            content = rng.choice([" ", "\n\n", "\u3000\t", ""]) + content + rng.choice(["\n", "\x1f"])
        if rng.randrange(3) == 0:
            thought = rng.choice(["", "<think>", "<think>\n", "\n<think>x<think>"]) + content[:20]
            content = thought + rng.choice(["\n", ""]) + "</think>" + rng.choice(["\n\n", ""]) + content
        if rng.randrange(6) == 0:
            content = "<tool_response>" + content + rng.choice(["</tool_response>", ""])
        messages.append({"role": role, "content": content})
    return messages


def write_folder(folder, template, where):
    """The template in one of the places where Transformers puts it."""
    config = {"bos_token": BOS if where else {"content": BOS}}
    if where == 0:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
        config["chat_template"] = template if where == 1 else named
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def check(number, entry, tool):
    """Compares one template; returns the number of differences."""
    name, template, keywords, options = entry
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token=BOS)
    rng, sources, mark = random.Random(number), corpus.code(), corpus.marks()
    requests, expected = [], []
    for _ in range(CONVERSATIONS):
        messages = conversation(rng, not name.startswith("llama"), sources, mark)
        prompt = rng.randrange(2) == 0
        requests.append(json.dumps(
            {"messages": messages, "options": {"add_generation_prompt": prompt, **options}}).encode())
        expected.append(reference.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt,
            **keywords))
        if name == "llama3":
            short = reference.apply_chat_template(messages, chat_template=LLAMA3, tokenize=False,
                                                  add_generation_prompt=prompt)
            assert short == expected[-1], (messages, short, expected[-1])
    with tempfile.TemporaryDirectory() as folder:
        write_folder(pathlib.Path(folder), template, number % 3)
        got_name, *replies = (r.decode("utf-8") for r in ask([tool, "chat", folder], requests, 1))
    wrong = [(r, e, g) for r, e, g in zip(requests, expected, replies) if e != g]
    for request, want, got in wrong[:3]:
        print(f"{name}: {request!r}\n  expected {want!r}\n  got      {got!r}")
    if got_name != name:
        print(f"{name}: taken for {got_name}")
    print(f"{name}: {len(wrong)} differences in {len(requests)} conversations", flush=True)
    return len(wrong) + (got_name != name)


def main():
    wrong = sum(check(n, entry, sys.argv[1]) for n, entry in enumerate(templates()))
    print(f"transformers {transformers.__version__}: {wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
