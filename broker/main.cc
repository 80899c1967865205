#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>

#include "broker/broker_loop.h"
#include "broker/freed_memory.h"
#include "common/base/build_info.h"
#include "common/config/config.h"

namespace {

thresher::broker::BrokerLoop* running = nullptr;

void OnSignal(int) {
  if (running != nullptr) running->RequestStop();
}

int Serve(const thresher::broker::BrokerOptions& options) {
  thresher::broker::KeepFreedMemory();
  thresher::Config config = thresher::LoadConfig(options.run / "config.yaml", {});
  auto loop = thresher::broker::BrokerLoop::Start(options, config, thresher::SystemClock());
  if (!loop.ok()) {
    std::fprintf(stderr, "thresher-broker: %s\n", loop.status().ToString().c_str());
    return thresher::broker::BrokerLoop::kFailed;
  }
  running = loop->get();
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGINT, OnSignal);
  std::signal(SIGPIPE, SIG_IGN);
  for (const std::string& endpoint : running->endpoints()) {
    std::fprintf(stderr, "thresher-broker: listening on %s\n", endpoint.c_str());
  }
  if (const std::string http = running->http_address(); !http.empty()) {
    std::fprintf(stderr, "thresher-broker: http://%s/status.json\n", http.c_str());
  }
  int code = running->Run();
  if (code == thresher::broker::BrokerLoop::kFailed) {
    std::fprintf(stderr, "thresher-broker: %s\n", running->failure().c_str());
  }
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  running = nullptr;
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The broker of a Thresher run: the ledger of all work.", "thresher-broker");
  thresher::broker::BrokerOptions options;
  std::string run;
  bool version = false;
  app.add_option("--run", run, "run directory, holds config.yaml and manifest.json");
  app.add_option("--listen", options.listen,
                 "endpoint besides the run's ipc socket, tcp://address:port; may be repeated");
  app.add_option("--http", options.http, "address:port of status and metrics (net.http), or none");
  app.add_flag("--version", version, "revision and build, then exit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    int code = app.exit(error, std::cerr, std::cerr);
    return code == 0 ? 0 : 2;
  }
  if (version) {
    const thresher::BuildInfo& build = thresher::GetBuildInfo();
    std::printf("thresher-broker %s (%s, %s, %s)\n", build.version, build.revision,
                build.build_type, build.compiler);
    return 0;
  }
  if (run.empty()) {
    std::fprintf(stderr, "thresher-broker: --run RUN_DIR is required\n");
    return 2;
  }
  options.run = run;
  try {
    return Serve(options);
  } catch (const thresher::ConfigError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "thresher-broker: %s\n", error.what());
    return 3;
  }
}
