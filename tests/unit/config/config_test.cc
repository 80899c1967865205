#include "common/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "common/config/schema.h"

namespace thresher {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Config Parse(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return ParseConfig(yaml, "test.yaml", overrides);
}

// What ParseConfig complains about; fails the test if it does not.
std::string ErrorOf(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    Parse(yaml, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << yaml;
  return "";
}

TEST(ConfigTest, EmptyFileGivesTheDocumentedDefaults) {
  Config config = Parse("");
  EXPECT_EQ(config.rl.group_size, 8);
  EXPECT_EQ(config.sampling.temperature, 1.0);
  EXPECT_EQ(config.task.name, "countdown");
  EXPECT_TRUE(config.engine.strict);
  EXPECT_EQ(config.controls, "none");
}

TEST(ConfigTest, ValuesReachTheirOwnFieldOnly) {
  // Each key is set alone to a value that is not its default: exactly its line of the resolved
  // text must change. Catches two rows of the schema that share a field.
  std::string base = ResolvedYaml(Parse(""));
  for (const auto& key : config_internal::Schema()) {
    Config config = config_internal::DefaultConfig();
    auto field = key.field(config);
    if (auto* text = std::get_if<std::string*>(&field))
      **text += "x";
    else if (auto* flag = std::get_if<bool*>(&field))
      **flag = !**flag;
    else if (auto* whole = std::get_if<int*>(&field))
      **whole += 1;
    else if (auto* real = std::get_if<double*>(&field))
      **real += 0.5;
    else
      **std::get_if<std::uint64_t*>(&field) += 1;
    std::string changed = ResolvedYaml(config);
    std::istringstream a(base), b(changed);
    std::string line_a, line_b;
    int differing = 0;
    while (std::getline(a, line_a) && std::getline(b, line_b)) differing += line_a != line_b;
    EXPECT_EQ(differing, 1) << key.path;
  }
}

TEST(ConfigTest, UnknownKeySuggestsTheNearest) {
  EXPECT_THAT(
      ErrorOf("rl:\n  grop_size: 4\n"),
      ::testing::StrEq("test.yaml:2: rl.grop_size: unknown key; did you mean rl.group_size?"));
  EXPECT_THAT(ErrorOf("rll:\n  groups: 4\n"),
              HasSubstr("rll.groups: unknown key; did you mean rl.groups?"));
  EXPECT_THAT(ErrorOf("rl:\n  temperature: 1\n"),
              HasSubstr("sampling.temperature or eval.temperature"));
  EXPECT_THAT(ErrorOf("task:\n  difficulty:\n    numbers: 4\n"),
              HasSubstr("did you mean task.numbers?"));
  EXPECT_THAT(ErrorOf("zzzzzz: 1\n"), HasSubstr("unknown key; `thresher check` lists all"));
  EXPECT_THAT(ErrorOf("", {"rl.group=4"}),
              HasSubstr("--set: rl.group: unknown key; did you mean rl.groups?"));
}

TEST(ConfigTest, WrongTypesNameValueAndAllowedRange) {
  EXPECT_EQ(ErrorOf("rl:\n  groups: many\n"),
            "test.yaml:2: rl.groups: value 'many'; allowed: integer, 1 to 65536");
  EXPECT_THAT(ErrorOf("rl: {groups: 2.5}"), HasSubstr("value '2.5'; allowed: integer, 1 to 65536"));
  EXPECT_THAT(ErrorOf("rl: {groups: \"4\"}"), HasSubstr("value \"4\" is text"));
  EXPECT_THAT(ErrorOf("rl: {groups: 010}"), HasSubstr("value '010'"));
  EXPECT_THAT(ErrorOf("rl: {groups: 1e3}"), HasSubstr("value '1e3'"));
  EXPECT_THAT(ErrorOf("rl: {groups: [1]}"), HasSubstr("rl.groups: a list or nested keys"));
  EXPECT_THAT(ErrorOf("rl: {groups: }"), HasSubstr("rl.groups: no value"));
  EXPECT_THAT(ErrorOf("rl: {groups: {a: 1}}"), HasSubstr("rl.groups.a: unknown key"));
  EXPECT_THAT(ErrorOf("rl: 5"), HasSubstr("rl: a value; allowed: the keys of this section"));
  EXPECT_THAT(ErrorOf("rl: {drop_zero_variance: yes}"),
              HasSubstr("value 'yes'; allowed: true, false"));
  EXPECT_THAT(ErrorOf("run: {name: 42}"), HasSubstr("value '42' is not text"));
  EXPECT_THAT(ErrorOf("run: {name: true}"), HasSubstr("value 'true' is not text"));
  EXPECT_EQ(Parse("run: {name: '42'}").run.name, "42");
}

TEST(ConfigTest, AListOfNamesIsAsGoodAsTheirText) {
  const std::string listed = "learner: {freeze: [model.norm.weight, \"*.bias\"]}";
  EXPECT_EQ(Parse(listed).learner.freeze, "model.norm.weight, *.bias");
  EXPECT_EQ(ResultKeysText(Parse(listed)),
            ResultKeysText(Parse("learner: {freeze: \"model.norm.weight, *.bias\"}")));
  EXPECT_EQ(Parse("", {"lora.targets=[q_proj, v_proj]"}).lora.targets, "q_proj, v_proj");
  EXPECT_EQ(ListItems(" a,b c , ,d,"), (std::vector<std::string>{"a", "b c", "d"}));
  EXPECT_THAT(ErrorOf("run: {name: [a, b]}"), HasSubstr("run.name: a list or nested keys"));
  EXPECT_THAT(ErrorOf("learner: {freeze: [a, [b]]}"),
              HasSubstr("learner.freeze: a list or nested"));
  EXPECT_THAT(ErrorOf("learner: {freeze: ['a,b']}"), HasSubstr("learner.freeze: a list or nested"));
  EXPECT_THAT(ErrorOf("learner: {freeze: a/b}"),
              HasSubstr("learner.freeze: value 'a/b'; allowed: "));
}

TEST(ConfigTest, AdaptersAreRefusedWhereTheyMakeNoSense) {
  const std::string allowed = "allowed: all-linear, or a list of q_proj, ";
  EXPECT_THAT(ErrorOf("lora: {targets: qkv}"), HasSubstr("value 'qkv'; " + allowed));
  EXPECT_THAT(ErrorOf("lora: {targets: [q_proj, q_proj]}"), HasSubstr(allowed));
  EXPECT_THAT(ErrorOf("lora: {targets: [q_proj, all-linear]}"), HasSubstr(allowed));
  EXPECT_THAT(ErrorOf("lora: {targets: \"\"}"), HasSubstr(allowed));
  EXPECT_THAT(ErrorOf("{lora: {rank: 4}, rl: {steps: 0}}"),
              HasSubstr("lora.phase: value rl; allowed: all with rl.steps (0)"));
  EXPECT_THAT(ErrorOf("{lora: {rank: 4}, learner: {device: cuda}}"),
              HasSubstr("learner.device: value cuda; allowed: cpu, or with "
                        "learner.offload_optimizer: true, for with lora.rank (4)"));
  EXPECT_THAT(ErrorOf("{learner: {device: cuda, freeze: lm_head.weight}}"),
              HasSubstr("for with learner.freeze (lm_head.weight)"));
  EXPECT_TRUE(Parse("{lora: {rank: 4, phase: all}, rl: {steps: 0}}").lora.on());
}

TEST(ConfigTest, NonFiniteAndOverflowingNumbersAreRefused) {
  for (const char* value :
       {".nan", ".inf", "-.inf", "nan", "inf", "1e999", "0x10", "1_000", "--1"}) {
    EXPECT_THAT(ErrorOf(std::string("objective: {clip_low: ") + value + "}"),
                HasSubstr("objective.clip_low: value"))
        << value;
  }
  EXPECT_THAT(ErrorOf("rl: {groups: 99999999999999999999}"),
              HasSubstr("allowed: integer, 1 to 65536"));
  EXPECT_THAT(ErrorOf("run: {seed: 18446744073709551616}"), HasSubstr("run.seed: value"));
  EXPECT_THAT(ErrorOf("run: {seed: -1}"), HasSubstr("run.seed: value"));
  EXPECT_EQ(Parse("run: {seed: 18446744073709551615}").run.seed, 18446744073709551615u);
}

TEST(ConfigTest, BoundsAreIncludedAndBeyondIsRefused) {
  EXPECT_EQ(Parse("task: {numbers: 2}").task.numbers, 2);
  EXPECT_EQ(Parse("task: {numbers: 6}").task.numbers, 6);
  EXPECT_THAT(ErrorOf("task: {numbers: 1}"), HasSubstr("value '1'; allowed: integer, 2 to 6"));
  EXPECT_THAT(ErrorOf("task: {numbers: 7}"), HasSubstr("value '7'; allowed: integer, 2 to 6"));
  EXPECT_THAT(ErrorOf("actors: {count: 0}"),
              HasSubstr("actors.count: value '0'; allowed: integer, 1 to 4096"));
  EXPECT_THAT(ErrorOf("run: {mode: async}"), HasSubstr("run.mode: value 'async'; allowed: sync"));
}

TEST(ConfigTest, EveryErrorOfAFileIsPrinted) {
  std::string error =
      ErrorOf("rl:\n  groups: 0\n  nonsense: 1\nmodel:\n  layers: x\n", {"eval.items=-1"});
  EXPECT_THAT(error, HasSubstr("test.yaml:2: rl.groups"));
  EXPECT_THAT(error, HasSubstr("test.yaml:3: rl.nonsense"));
  EXPECT_THAT(error, HasSubstr("test.yaml:5: model.layers"));
  EXPECT_THAT(error, HasSubstr("--set: eval.items"));
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 3);
}

TEST(ConfigTest, YamlHazards) {
  EXPECT_THAT(ErrorOf("rl:\n  groups: 4\n  groups: 8\n"),
              HasSubstr("test.yaml:3: rl.groups: given twice"));
  EXPECT_THAT(ErrorOf("rl: {steps: 1}\nrl: {groups: 4}\n"), HasSubstr("rl: given twice"));
  EXPECT_THAT(ErrorOf("rl:\n  groups: [4\n"), HasSubstr("YAML syntax"));
  EXPECT_THAT(ErrorOf("rl:\n\tgroups: 4\n"), HasSubstr("test.yaml:2: YAML syntax"));
  EXPECT_THAT(ErrorOf("- a\n- b\n"), HasSubstr("not a YAML mapping"));
  EXPECT_THAT(ErrorOf("rl: {steps: 1}\n---\nrl: {steps: 2}\n"),
              HasSubstr("more than one YAML document"));
  EXPECT_THAT(ErrorOf("rl: {groups: !!int 4}"), HasSubstr("allowed: no tags"));
  EXPECT_THAT(ErrorOf("? [a, b]\n: 1\n"), HasSubstr("a key that is not text"));
  EXPECT_THAT(ErrorOf("rl: &x\n  y: *x\n"), HasSubstr("rl.y"));  // a cycle ends at the depth limit
  EXPECT_THAT(ErrorOf(std::string(2 << 20, '#')), HasSubstr("bytes; allowed: up to"));
  EXPECT_THAT(ErrorOf(std::string(5000, '[')), HasSubstr("YAML"));
  EXPECT_NO_THROW(Parse("rl:\n# groups: 4\n"));  // a section left empty
}

TEST(ConfigTest, ExponentialAliasesEndQuickly) {
  std::string yaml =
      "a: &a {k0: 1, k1: 1, k2: 1, k3: 1, k4: 1, k5: 1, k6: 1, k7: 1, k8: 1, k9: 1}\n";
  for (char name = 'b'; name < 'h'; ++name) {
    yaml += std::string(1, name) + ": &" + name + " {";
    for (int i = 0; i < 10; ++i)
      yaml += "k" + std::to_string(i) + ": *" + static_cast<char>(name - 1) + ",";
    yaml += "}\n";
  }
  EXPECT_THAT(ErrorOf(yaml), HasSubstr("more than 4096 values"));
}

TEST(ConfigTest, OverridesApplyInOrderAfterTheFile) {
  Config config = Parse("rl: {groups: 4}",
                        {"rl.groups=8", "run.name=abc", "rl.groups=16",
                         "model.init=", "objective.kl=0.5", "controls=all", "engine.strict=false"});
  EXPECT_EQ(config.rl.groups, 16);
  EXPECT_EQ(config.run.name, "abc");
  EXPECT_EQ(config.model.init, "");
  EXPECT_EQ(config.objective.kl, 0.5);
  EXPECT_EQ(config.controls, "all");
  EXPECT_FALSE(config.engine.strict);
}

TEST(ConfigTest, MalformedOverridesAreNamed) {
  EXPECT_THAT(ErrorOf("", {"rl.groups"}), HasSubstr("--set: 'rl.groups'; allowed: KEY=VALUE"));
  EXPECT_THAT(ErrorOf("", {"=4"}), HasSubstr("--set: '=4'"));
  EXPECT_THAT(ErrorOf("", {"rl.groups={a: 1}"}), HasSubstr("allowed: one scalar"));
  EXPECT_THAT(ErrorOf("", {"rl.groups=[1]"}), HasSubstr("a list"));
  EXPECT_THAT(ErrorOf("", {"rl.groups="}), HasSubstr("rl.groups: value \"\" is text"));
  EXPECT_THAT(ErrorOf("", {"run.name=a\tb"}), HasSubstr("run.name"));
}

TEST(ConfigTest, RulesBlameTheKeyWhereItWasSet) {
  EXPECT_EQ(ErrorOf("learner:\n  ranks: 3\n"),
            "test.yaml:2: learner.ranks: value 3; allowed: a power of two");
  EXPECT_EQ(ErrorOf("", {"learner.grad_leaves=6"}),
            "--set: learner.grad_leaves: value 6; allowed: a power of two");
}

struct RuleCase {
  const char* yaml;
  const char* error;
};

TEST(ConfigTest, RulesThatSpanSeveralKeys) {
  const RuleCase cases[] = {
      {"learner: {ranks: 16}",
       "learner.grad_leaves: value 8; allowed: at least learner.ranks (16)"},
      {"learner: {ranks: 2, communicator: local}",
       "learner.communicator: value local; allowed: with learner.ranks (2): auto, mpi or nccl"},
      {"learner: {bucket_bytes: 262143}",
       "learner.bucket_bytes: value 262143; allowed: at least 262144"},
      {"learner: {zero: 1, device: cuda}",
       "learner.zero: value 1; allowed: 0 with learner.device (cuda), whose memory holds the "
       "moments, or learner.offload_optimizer: true"},
      {"model: {kv_heads: 4}", "model.kv_heads: value 4; allowed: a divisor of model.heads (6)"},
      {"model: {head_dim: 12}", "model.head_dim: value 12; allowed: a multiple of 8"},
      {"model: {context: 40}",
       "sampling.max_new_tokens: value 40; allowed: less than model.context (40)"},
      {"rl: {group_size: 1}", "rl.group_size: value 1"},
      {"rl: {group_size: 40000}", "at most 1048576 samples in a batch of rl.groups (32) groups"},
      {"{rl: {steps: 0}, supervised: {steps: 0}}", "rl.steps: value 0"},
      {"learner: {micro_batch_tokens: 32}", "at least model.context (64)"},
      {"actors: {kv_pages: 3}", "actors.kv_pages: value 3"},
      {"task: {min_target: 60}",
       "task.min_target: value 60; allowed: at most task.max_target (50)"},
      {"task: {numbers: 2, max_number: 2, min_target: 10}", "can reach"},
      {"task: {name: digits}", "task.use_all: value true; allowed: false for digits"},
      {"supervised: {off_target: 0.7, perturbed: 0.5}", "at most 1 - supervised.off_target"},
      {"supervised: {warmup_steps: 2000}", "at most supervised.steps (1000)"},
      {"rl: {warmup_steps: 2000}", "at most rl.steps (120)"},
      {"rl: {min_learning_rate: 0.1}", "at most rl.learning_rate"},
      {"eval: {every: 5, every_items: 0}", "eval.every_items: value 0"},
      {"broker: {max_message_bytes: 65536}", "a weight chunk of weights.chunk_bytes (1048576)"},
      {"{model: {context: 1000000}, learner: {micro_batch_tokens: 1000000}}",
       "the largest trajectory of model.context (1000000) tokens"},
      {"broker: {memory_bytes: 100000000}",
       "broker.memory_bytes: value 100000000; allowed: 0, or at least 134217728: credit for the "
       "largest trajectory of each of actors.count (2)"},
      {"{broker: {memory_bytes: 268435456}, actors: {count: 4000}}", "at least 290888704"},
      {"{broker: {memory_bytes: 268435456}, rl: {group_size: 60000, groups: 1}}",
       "a group of rl.group_size (60000)"},
      {"{broker: {memory_bytes: 134217728}, journal: {mode: off}, checkpoint: {every: 1000}}",
       "that actors keep, as journal.mode (off) asks: whole groups of twice "
       "checkpoint.every (1000) steps"},
      {"{checkpoint: {keep_best: 2, every: 50}, supervised: {steps: 30}, rl: {steps: 100}, eval: "
       "{every: 25, every_items: 4}}",
       "checkpoint.keep_best: value 2; allowed: 0, or with an evaluation within the rl phase "
       "(eval.every (25), rl.steps (100)) after a step that makes a checkpoint (checkpoint.every "
       "(50))"},
      {"rl: {dynamic_sampling: true, drop_zero_variance: false}",
       "rl.dynamic_sampling: value true; allowed: false, or with rl.drop_zero_variance: true"},
      {"rl: {dynamic_sampling: true, steps: 100000000, groups: 65536, group_size: 2}",
       "rl.max_rounds: value 4; allowed: at most 1e13 prompts"},
      {"journal: {segment_bytes: 65536}", "at least broker.max_message_bytes"},
      {"net: {heartbeat_ms: 4000}", "at least twice net.heartbeat_ms (4000)"},
  };
  for (const RuleCase& c : cases) EXPECT_THAT(ErrorOf(c.yaml), HasSubstr(c.error)) << c.yaml;
}

TEST(ConfigTest, AddressesAreChecked) {
  EXPECT_EQ(Parse("net: {listen: 'tcp://*:0'}").net.listen, "tcp://*:0");
  EXPECT_EQ(Parse("net: {listen: 'tcp://[::1]:7777'}").net.listen, "tcp://[::1]:7777");
  for (const char* bad :
       {"tcp", "tcp://host", "tcp://:1", "tcp://host:99999", "tcp://h:x", "udp://h:1", "ipc://x"}) {
    EXPECT_THAT(ErrorOf(std::string("net: {listen: '") + bad + "'}"), HasSubstr("net.listen"))
        << bad;
  }
  EXPECT_THAT(ErrorOf("net: {http: 'localhost'}"), HasSubstr("allowed: ADDRESS:PORT"));
}

TEST(ConfigTest, ResolvedTextRoundTrips) {
  Config config =
      Parse("", {"run.seed=18446744073709551615", "objective.clip_high=0.1", "model.norm_eps=1e-6",
                 "model.init=\"a \\\"b\\\" c\\\\d\"", "rl.learning_rate=3.3333333333333335e-4",
                 "engine.strict=false", "controls=permuted"});
  std::string text = ResolvedYaml(config);
  Config again = ParseConfig(text, "resolved", {});
  EXPECT_EQ(ResolvedYaml(again), text);
  EXPECT_EQ(again.model.init, "a \"b\" c\\d");
  EXPECT_EQ(again.rl.learning_rate, 3.3333333333333335e-4);
  EXPECT_EQ(again.run.seed, 18446744073709551615u);
}

TEST(ConfigTest, ResultKeysLeaveOutWhatResultsDoNotDependOn) {
  std::string base = ResultKeysText(Parse(""));
  for (const char* same : {"run.name=other",
                           "actors.count=7",
                           "actors.threads=3",
                           "actors.max_batch=5",
                           "actors.upload_batch=3",
                           "actors.partial_tokens=64",
                           "learner.ranks=4",
                           "learner.communicator=mpi",
                           "learner.threads=9",
                           "learner.audit_every=7",
                           "learner.max_restarts=1",
                           "net.heartbeat_ms=500",
                           "net.listen=tcp://*:0",
                           "journal.mode=async",
                           "journal.mode=off",
                           "metrics.tensorboard=false",
                           "weights.retain=3",
                           "checkpoint.every=3",
                           "checkpoint.keep=9",
                           "broker.lease_silence_ms=9000",
                           "engine.kernels=avx2",
                           "controls=all",
                           "learner.recompute_activations=true",
                           "learner.offload_optimizer=true"}) {
    EXPECT_EQ(ResultKeysText(Parse("", {same})), base) << same;
  }
  // Keys that came later leave the identity of older runs as it was.
  EXPECT_EQ(base.find("rl.dynamic_sampling"), std::string::npos);
  EXPECT_EQ(ResultKeysText(Parse("", {"rl.when_short=train", "sampling.top_k=0"})), base);
  for (const char* other : {"run.seed=2",
                            "rl.groups=16",
                            "task.max_number=10",
                            "model.layers=4",
                            "learner.grad_leaves=16",
                            "sampling.temperature=0.9",
                            "sampling.top_k=20",
                            "sampling.top_p=0.9",
                            "sampling.min_p=0.1",
                            "sampling.repetition_penalty=1.1",
                            "learner.freeze=model.norm.weight",
                            "lora.rank=4",
                            "objective.ratio_distribution=sampled",
                            "engine.strict=false",
                            "rl.permute_rewards=true",
                            "rl.dynamic_sampling=true",
                            "eval.items=100",
                            "optimizer.beta1=0.8",
                            "model.dtype=bfloat16",
                            "engine.kernel_set=cpu-bf16dot-v1"}) {
    EXPECT_NE(ResultKeysText(Parse("", {other})), base) << other;
  }
}

TEST(ConfigTest, EveryKeyIsDocumentedOnce) {
  std::set<std::string> paths;
  for (const KeyDoc& key : DocumentedKeys()) {
    EXPECT_TRUE(paths.insert(key.path).second) << key.path;
    EXPECT_FALSE(key.doc.empty() || key.allowed.empty() || key.type.empty()) << key.path;
  }
  // One key per field: the structures hold this many.
  EXPECT_EQ(paths.size(), 176u);
}

TEST(ConfigTest, EditDistanceOfKnownPairs) {
  EXPECT_EQ(config_internal::EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(config_internal::EditDistance("", "abc"), 3);
  EXPECT_EQ(config_internal::EditDistance("same", "same"), 0);
}

TEST(ConfigTest, MissingFileIsNamed) {
  try {
    LoadConfig("no/such/file.yaml", {});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no/such/file.yaml: no such file"));
  }
  EXPECT_THROW(LoadConfig(std::filesystem::temp_directory_path(), {}), ConfigError);
}

TEST(ConfigTest, NoBytesOfAFileCrashTheReader) {
  const std::string base =
      "rl:\n  groups: 4 # c\nrun: {name: \"a\", seed: 3}\nmodel: &m\n  layers: 2\n";
  std::uint64_t state = 1;
  for (int i = 0; i < 1000; ++i) {
    std::string text = base;
    for (int k = 0; k < 3; ++k) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      text[(state >> 33) % text.size()] = static_cast<char>(state >> 25);
    }
    try {
      Parse(text);
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("test.yaml"));
    }
  }
}

}  // namespace
}  // namespace thresher
