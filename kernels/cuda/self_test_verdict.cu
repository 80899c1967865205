#include <cstdio>

#include "kernels/cuda/self_test.h"

namespace thresher::kernels::cuda {
namespace {

// Why a form cannot be used by itself; empty: it can.
std::string FaultOf(const Bf16Evidence& seen) {
  if (!seen.error.empty()) return seen.error;
  if (!(seen.worst <= 1)) {
    char text[64];
    std::snprintf(text, sizeof text, "%.3g times its bound off the plain form, ", seen.worst);
    return text + seen.worst_at;
  }
  if (!seen.impure.empty()) return "a row's bits depend on its batch, " + seen.impure;
  return "";
}

std::string Passed(const Bf16Evidence& seen) {
  char text[64];
  std::snprintf(text, sizeof text, "ok, %.2g of its bound", seen.worst);
  return text;
}

}  // namespace

Bf16Verdict JudgeBf16(const std::array<Bf16Evidence, kBf16Forms>& evidence) {
  Bf16Verdict verdict;
  int reference = -1;
  for (int form = 0; form < kBf16Forms; ++form) {
    const auto at = static_cast<std::size_t>(form);
    std::string fault = FaultOf(evidence[at]);
    if (fault.empty() && reference >= 0) {
      const std::string& where = evidence[at].differs[static_cast<std::size_t>(reference)];
      if (!where.empty()) {
        fault = std::string("not the bits of ") + Bf16FormName(static_cast<Bf16Form>(reference)) +
                ", " + where;
      }
    }
    if (fault.empty()) {
      if (reference < 0) reference = form;
      verdict.forms |= 1u << form;
    }
    verdict.lines[at] = std::string(Bf16FormName(static_cast<Bf16Form>(form))) + ": " +
                        (fault.empty() ? Passed(evidence[at]) : "not used: " + fault);
  }
  if (verdict.forms == 0) {
    verdict.error = std::string(kBf16KernelSet) +
                    " cannot be used on this device: no form passed "
                    "its self-test (" +
                    verdict.lines[0] + ")";
  }
  return verdict;
}

}  // namespace thresher::kernels::cuda
