#include "launch/status_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace thresher::launch {
namespace {

using nlohmann::json;

// What a broker serves (docs/status.md), the parts that are shown.
json LiveStatus() {
  return json::parse(R"({
    "format": 1, "paused": "", "draining": false, "phase": "rl", "phase_step": 12,
    "phase_steps": 300, "reward_mean": 0.5, "staleness_max": 0, "mismatched_tokens": 0,
    "tokens": {"generated_per_second": 1500, "trained_per_second": 900},
    "ledger": {"balanced": true, "streams": [
      {"stream": "train", "equation": "issued 10 = trained 4 + evaluated 0 + dropped 0 + held 6"}]},
    "evals": [{"label": "final", "items": 3, "samples": 2,
               "pass_at": {"1": {"value": 0.5, "low": 0.25, "high": 0.75}}}],
    "queues": {"received": {"messages": 0, "bytes": 0}, "journal": {"bytes": 2048},
               "batches": {"bytes": 1048576, "limit_bytes": 268435456}},
    "leases": {"now": 2, "samples": 7, "expired": 1},
    "credits": null,
    "actors": [{"name": "actor-0@h\u001b[2J", "alive": true, "heartbeat_age_seconds": 0.4, "pid": 7,
                "version": "0.12", "leased_samples": 7}],
    "learners": [{"name": "learner-0@h", "alive": false, "heartbeat_age_seconds": 75.2, "pid": 8}],
    "faults": {"alarms": 0, "warnings": 4, "by_kind": {"refused": 1, "restarted": 3},
               "last": "restarted: actor 0 has a new process, pid 7"}})");
}

TEST(StatusText, ShowsWhatAnOperatorAsksFor) {
  EXPECT_EQ(StatusText(LiveStatus()).substr(StatusText(LiveStatus()).find('\n') + 1),
            R"(actor-0@h\x1b[2J: alive, heartbeat 0:00 ago, pid 7, version 0.12, 7 samples leased
learner-0@h: SILENT, heartbeat 1:15 ago, pid 8
leases: 2 with 7 samples, 1 expired
queues: batches 1.0 MiB of 256.0 MiB, journal 2.0 KiB
train: issued 10 = trained 4 + evaluated 0 + dropped 0 + held 6
ledger balanced
held-out 'final':  pass@1 0.500 [0.250, 0.750]  (3 items x 2)
alarms 0  warnings 4  mismatched tokens 0  staleness 0
faults: restarted 3, refused 1
last fault: restarted: actor 0 has a new process, pid 7
)");
}

TEST(StatusText, APausedRunSaysSoFirst) {
  json status = LiveStatus();
  status["paused"] = "RESOURCE_EXHAUSTED: journal: No space left on device";
  status["draining"] = true;
  const std::string text = StatusText(status);
  EXPECT_NE(text.find("\nPAUSED: RESOURCE_EXHAUSTED: journal: No space left on device; nothing is "
                      "lost, goes on by itself once it can\nstopping: "),
            std::string::npos)
      << text;
}

TEST(StatusText, ACheckpointThatWaitsIsInTheFirstLine) {
  json status = LiveStatus();
  status["learners"][0]["waiting"] = "step-40: No space\nleft on device";
  const std::string text = StatusText(status);
  EXPECT_NE(text.substr(0, text.find('\n'))
                .find("CHECKPOINT WAITS: step-40: No space\\nleft on device"),
            std::string::npos)
      << text;
}

TEST(StatusText, CreditIsShownWhereThereIsSome) {
  json status = LiveStatus();
  status["credits"] = json::parse(R"({"budget_bytes": 67108864, "granted_bytes": 50331648,
      "in_use_bytes": 1048576, "waiting": 0, "by_actor": {"0": {"refused": 0}, "9": {"refused": 17}}})");
  EXPECT_NE(StatusText(status).find("\ncredits: 1.0 MiB in use, 48.0 MiB granted of 64.0 MiB; "
                                    "refused: actor 9 17\n"),
            std::string::npos)
      << StatusText(status);
  status["credits"]["waiting"] = 3;
  EXPECT_NE(StatusText(status).find("of 64.0 MiB; 3 ACTORS WAIT for broker.memory_bytes; refused"),
            std::string::npos);
}

TEST(StatusText, WhatActorsKeepIsShownWhereThereIsAny) {
  json status = LiveStatus();
  status["kept"] = {{"uploads", 0}, {"samples", 0}, {"lost", 0}, {"not_stored", 0}};
  EXPECT_EQ(StatusText(status).find("kept"), std::string::npos);
  status["kept"] = {{"uploads", 12}, {"samples", 300}, {"lost", 5}, {"not_stored", 40}};
  EXPECT_NE(StatusText(status).find("\nkept by actors: 12 uploads with 300 open samples; 5 LOST "
                                    "samples come again; 40 trajectories not stored\n"),
            std::string::npos)
      << StatusText(status);
}

TEST(StatusText, UnfinishedSamplesAreShownWhereSomethingIsKept) {
  json status = LiveStatus();
  EXPECT_EQ(StatusText(status).find("unfinished"), std::string::npos);
  status["partials"] = {{"now", 12}, {"tokens", 9000}};
  status["tokens"]["continued"] = 700;
  status["tokens"]["generated_twice"] = 30;
  EXPECT_NE(StatusText(status).find("\nunfinished: 12 prefixes kept with 9000 tokens; 700 tokens "
                                    "continued, 30 drawn twice\n"),
            std::string::npos)
      << StatusText(status);
}

TEST(StatusText, AnEmptyDocumentIsReadNotTrusted) {
  EXPECT_NE(StatusText(json::object()).find("NOT BALANCED"), std::string::npos);
  json other = LiveStatus();
  other["actors"] = json::parse(R"([{"name": 5}])");
  EXPECT_THROW(StatusText(other), json::exception);
}

TEST(StatusText, ASummaryIsTheEndOfARun) {
  json summary = LiveStatus();
  summary["finished"] = true;
  summary["steps"] = 312;
  EXPECT_EQ(SummaryText(summary).find("finished after 312 steps\ntrain: issued 10"), 0u);
}

}  // namespace
}  // namespace thresher::launch
