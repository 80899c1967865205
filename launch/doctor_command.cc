#include <iostream>

#include "common/log/log.h"
#include "launch/commands.h"
#include "launch/doctor.h"

namespace thresher::launch {

int DoctorCommand() {
  bool missing = false;
  for (const Finding& f : Diagnose(std::filesystem::current_path())) {
    const char* mark = f.level == Finding::Level::kGood   ? "ok     "
                       : f.level == Finding::Level::kNote ? "note   "
                                                          : "MISSING";
    std::cout << mark << "  " << f.what << ": " << Visible(f.found) << "\n";
    if (!f.remedy.empty()) std::cout << "           " << f.remedy << "\n";
    missing |= f.level == Finding::Level::kMissing;
  }
  return missing ? kExitDoesNotHold : kExitOk;
}

}  // namespace thresher::launch
