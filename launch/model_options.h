#pragma once

#include <CLI/CLI.hpp>

#include "launch/commands.h"

namespace thresher::launch {

// Sub-commands that work on a MODEL, and their options. The references outlive `app`.
CLI::App* AddGenerate(CLI::App& app, GenerateOptions& options);
CLI::App* AddScore(CLI::App& app, ScoreOptions& options);
CLI::App* AddInit(CLI::App& app, InitOptions& options);
// --device of a command; see ChooseDevice.
void AddDevice(CLI::App& sub, std::string& device);
// `bench engine`.
CLI::App* AddBenchEngine(CLI::App& app, BenchEngineOptions& options);

}  // namespace thresher::launch
