#pragma once

#include <string>

#include "broker/context.h"
#include "broker/step_figures.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// The numbers that leave the broker. docs/metrics.md defines them.

// A line of metrics.jsonl (docs/metrics.md): for a step that was just committed, and for a round
// that was just evaluated.
std::string StepLine(BrokerContext& context, const wire::StepDone& done,
                     const StepFigures& figures);
std::string RoundLine(const BrokerContext& context, const EvalSummary& result);
// /metrics, Prometheus text exposition format 0.0.4. The gauges are as StatusJson set them last.
std::string PrometheusText(BrokerContext& context);

}  // namespace thresher::broker
