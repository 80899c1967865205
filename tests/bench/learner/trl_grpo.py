"""GRPO end to end in TRL, from a checkpoint of ours and prompts that a run of ours was given.

  trl_grpo.py MODEL_FOLDER TRAJECTORIES.jsonl STEPS GROUPS GROUP_SIZE MAX_NEW THREADS

Prints a line of JSON: samples/s over the steps after the first, mean tokens of a completion, mean
reward. The reward is the string comparison that countdown comes down to: whether the answer ends in
the target, which is cheaper than a grader. Generation is Transformers' own, everything in fp32.
"""

import json
import os
import sys
import time


def text_of(tokenizer, ids):
    """What the tokenizer takes for exactly these tokens."""
    for begin in (0, 1):  # some put the first one there by themselves
        text = tokenizer.decode(ids[begin:], clean_up_tokenization_spaces=False)
        if tokenizer(text).input_ids == ids:
            return text
    raise SystemExit(f"no text for the prompt {ids}: {text!r} is {tokenizer(text).input_ids}")


def main():
    folder, trajectories, steps, groups, group_size, max_new, threads = sys.argv[1:]
    steps, groups, group_size = int(steps), int(groups), int(group_size)
    import torch
    torch.set_num_threads(int(threads))
    import datasets
    import transformers
    import trl
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token_id = 0
    prompts = []
    with open(trajectories) as file:
        for line in file:
            record = json.loads(line)
            ids = record["tokens"][:record["segments"][0]["end"]]
            text = text_of(tokenizer, ids)
            if text not in prompts:
                prompts.append(text)
    if not prompts:
        raise SystemExit(f"{trajectories}: no prompts")
    while len(prompts) < groups * steps:
        prompts += prompts[:groups * steps - len(prompts)]
    lengths, rewards, marks = [], [], []

    def reward(completions, prompts, completion_ids, **_):
        scores = []
        for prompt, completion in zip(prompts, completions):
            digits = "".join(c if c.isdigit() else " " for c in prompt).split()
            ends = "".join(c if c.isdigit() else " " for c in completion).split()
            scores.append(1.0 if digits and ends and digits[-1] == ends[-1] else 0.0)
        lengths.extend(len(ids) for ids in completion_ids)
        rewards.extend(scores)
        return scores

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            marks.append(time.perf_counter())

    options = trl.GRPOConfig(
        output_dir=os.environ.get("TMPDIR", "/tmp") + "/trl_grpo", use_cpu=True, bf16=False,
        per_device_train_batch_size=groups * group_size, num_generations=group_size,
        gradient_accumulation_steps=1, max_completion_length=int(max_new), temperature=1.0,
        beta=0.0, learning_rate=4e-4, max_steps=steps, logging_steps=steps, save_strategy="no",
        report_to=[], gradient_checkpointing=False, seed=1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=reward, args=options, processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}), callbacks=[Clock()])
    trainer.train()
    seconds = marks[-1] - marks[0]
    print(json.dumps({"trl": trl.__version__, "samples_per_s":
                      (len(marks) - 1) * groups * group_size / seconds,
                      "tokens": sum(lengths) / len(lengths), "reward": sum(rewards) / len(rewards),
                      "step_s": [b - a for a, b in zip(marks, marks[1:])]}))


if __name__ == "__main__":
    main()
