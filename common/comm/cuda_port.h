#pragma once

#include <memory>

#include "common/comm/device_port.h"

namespace thresher::comm {

// The port of a real device, which the calling thread has opened (gpu::OpenDevice). Errors: no
// memory (kResourceExhausted), and the CUDA runtime's.
Result<std::unique_ptr<DevicePort>> MakeCudaPort();

}  // namespace thresher::comm
