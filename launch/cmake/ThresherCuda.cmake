# Whether the CUDA kernels are built: sets THRESHER_CUDA_BUILT.
#
# -fmad=false: as -ffp-contract=off for the host. Division and square root are correctly rounded and
# denormals are kept by default.
set(THRESHER_CUDA_BUILT OFF)
if(THRESHER_CUDA STREQUAL "AUTO" AND NOT THRESHER_SANITIZE STREQUAL "")
  message(STATUS "CUDA: not built with sanitizers")
elseif(THRESHER_CUDA STREQUAL "AUTO" OR THRESHER_CUDA)
  include(CheckLanguage)
  # Named by flags: CMake before 3.25 does not know architectures such as 90a.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    check_language(CUDA)
  endif()
  if(CMAKE_CUDA_COMPILER)
    set(THRESHER_CUDA_BUILT ON)
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # before CMake 3.26
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -fmad=false")
    foreach(architecture ${THRESHER_CUDA_ARCHITECTURES})
      string(APPEND CMAKE_CUDA_FLAGS " -gencode=arch=compute_${architecture},code=sm_${architecture}")
    endforeach()
    find_package(CUDAToolkit REQUIRED)
    message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION}, for ${THRESHER_CUDA_ARCHITECTURES}")
  elseif(THRESHER_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: no nvcc that works with ${CMAKE_CXX_COMPILER}; kernels for GPUs are not built")
  else()
    message(FATAL_ERROR "THRESHER_CUDA is ON, but there is no nvcc; install the CUDA toolkit, or set CUDACXX")
  endif()
endif()
