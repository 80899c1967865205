#include "common/gpu/error.h"

namespace thresher::gpu {

ErrorKind KindOf(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return ErrorKind::kNone;
    case cudaErrorMemoryAllocation:
      return ErrorKind::kOutOfMemory;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorExternalDevice:
    case cudaErrorContextIsDestroyed:
      return ErrorKind::kDeviceLost;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return ErrorKind::kNoDriver;
    case cudaErrorDevicesUnavailable:
      return ErrorKind::kBusy;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
      return ErrorKind::kNotBuiltFor;
    default:
      return ErrorKind::kOther;
  }
}

Status ToStatus(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return Status::Ok();
  (void)cudaGetLastError();  // else the next launch would find it and take it for its own
  const std::string text =
      what + ": " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")";
  switch (KindOf(error)) {
    case ErrorKind::kOutOfMemory:
      return ResourceExhausted(text);
    case ErrorKind::kDeviceLost:
      return Aborted(text + "; the device's context is lost, the process has to start anew");
    case ErrorKind::kNoDriver:
    case ErrorKind::kNotBuiltFor:
      return FailedPrecondition(text);
    case ErrorKind::kBusy:
      return Unavailable(text);
    default:
      return InternalError(text);
  }
}

}  // namespace thresher::gpu
