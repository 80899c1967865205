// thresher-actor: generates, grades and uploads trajectories of one run.
#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>

#include "actor/actor.h"
#include "common/backend/backend.h"
#include "common/base/fault.h"
#include "common/config/config.h"
#include "common/log/log.h"
#include "common/model/kernel_choice.h"
#include "common/model/run_context.h"
#include "kernels/cpu/fpenv.h"

namespace thresher::actor {
namespace {

constexpr int kExitFailure = 3, kExitConfig = 2, kExitStopped = 75;

Actor* g_actor = nullptr;
void OnSignal(int) {
  if (g_actor != nullptr) g_actor->RequestStop();
}

int Fail(const Status& status, int code) {
  std::cerr << "thresher-actor: " << status.ToString() << "\n";
  return code;
}

WorkerPoolOptions PoolOptionsOf(const Config& config) {
  WorkerPoolOptions options;
  options.threads = config.actors.threads;
  options.on_start = [] { kernels::PinFpEnv(); };
  options.name = "engine";
  return options;
}

Result<Device> DeviceOf(const Config& config, int index) {
  THRESHER_ASSIGN_OR_RETURN(const auto choice, ParseDevices(config.actors.device, "actors.device"));
  return backend::DeviceOf(choice, index);
}

// The actor's turns on its device, if it shares it.
Result<std::unique_ptr<DeviceTurn>> TurnOn(const Device& device, const model::RunContext& run) {
  if (!run.config.engine.colocated) return std::unique_ptr<DeviceTurn>();
  return backend::OpenTurn(device, run.folder, TurnSide::kActors);
}

int Main(const std::string& run_folder, const ActorOptions& options) {
  auto faults = FaultPlan::FromEnvironment("actor-" + std::to_string(options.index));
  if (!faults.ok()) return Fail(faults.status(), kExitConfig);
  auto run = model::OpenRun(run_folder);
  if (!run.ok()) return Fail(run.status(), kExitConfig);
  Status chosen = model::ChooseCpuVariant(run->config.engine.kernels, "engine.kernels");
  if (!chosen.ok()) return Fail(chosen, kExitConfig);
  kernels::PinFpEnv();

  WorkerPool pool(PoolOptionsOf(run->config));
  const auto device = DeviceOf(run->config, static_cast<int>(options.index));
  if (!device.ok()) return Fail(device.status().WithContext("actors.device"), kExitFailure);
  auto engine = MakeEngine(run->model, EngineOptionsOf(run->config), *device, &pool);
  if (!engine.ok()) return Fail(engine.status().WithContext("actors.device"), kExitFailure);
  auto turn = TurnOn(*device, *run);
  if (!turn.ok()) return Fail(turn.status().WithContext("engine.colocated"), kExitFailure);
  Actor actor(*run, options, std::move(faults).value(), std::move(engine).value(),
              std::move(turn).value());
  g_actor = &actor;
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGINT, OnSignal);
  Status status = actor.Run();
  g_actor = nullptr;
  if (status.ok()) return 0;
  if (status.code() == StatusCode::kCancelled) return kExitStopped;
  return Fail(status, kExitFailure);
}

}  // namespace
}  // namespace thresher::actor

int main(int argc, char** argv) {
  CLI::App app{"Generates, grades and uploads trajectories of one run.", "thresher-actor"};
  std::string run;
  thresher::actor::ActorOptions options;
  int patience_s = 120;
  app.add_option("--run", run,
                 "Run directory, or on another host a copy of its config.yaml, manifest.json, "
                 "model/ and keys/")
      ->required();
  app.add_option("--index", options.index, "Number of this actor, unique in the run")->required();
  app.add_option("--broker", options.endpoint,
                 "tcp://host:port of the broker; default: the run directory's rendezvous.json");
  app.add_option("--patience", patience_s, "Seconds to look for a broker before giving up")
      ->check(CLI::Range(1, 86400));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.patience = std::chrono::seconds(patience_s);
  try {
    thresher::LogOptions log;
    log.process = "actor-" + std::to_string(options.index);
    (void)thresher::InitLog(log);
    return thresher::actor::Main(run, options);
  } catch (const thresher::ConfigError& error) {
    std::cerr << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "thresher-actor: " << error.what() << "\n";
    return 3;
  }
}
