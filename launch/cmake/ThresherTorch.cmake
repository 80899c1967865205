# libtorch out of an installed Python package: the target thresher_torch, in TORCH_LIBRARIES, and the
# package's folder in TORCH_INSTALL_PREFIX.
#
# The package's own CMake files are not asked: those of a CUDA build want a whole CUDA toolkit (cuBLAS,
# cuFFT, NVRTC, at times cuDNN) of their own version although nothing of it is linked, and fail on a
# machine that has nvcc and the wheel. Headers and libraries are all that is needed.
find_path(THRESHER_TORCH_FOLDER include/torch/csrc/api/include/torch/torch.h
  HINTS ${THRESHER_TORCH} PATHS ${CMAKE_PREFIX_PATH} NO_CACHE NO_DEFAULT_PATH)
if(NOT THRESHER_TORCH_FOLDER AND NOT THRESHER_TORCH)
  find_package(Python3 COMPONENTS Interpreter)
  execute_process(COMMAND "${Python3_EXECUTABLE}" -c
    "import importlib.util as u, os; s = u.find_spec('torch'); print(os.path.dirname(s.origin) if s and s.origin else '')"
    OUTPUT_VARIABLE THRESHER_TORCH_FOLDER OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT EXISTS "${THRESHER_TORCH_FOLDER}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No libtorch in '${THRESHER_TORCH}'; set THRESHER_TORCH to the folder of an installed "
    "torch package, or THRESHER_PARITY=OFF")
endif()
get_filename_component(TORCH_INSTALL_PREFIX "${THRESHER_TORCH_FOLDER}" ABSOLUTE)

add_library(thresher_torch INTERFACE IMPORTED GLOBAL)
target_include_directories(thresher_torch INTERFACE
  ${TORCH_INSTALL_PREFIX}/include ${TORCH_INSTALL_PREFIX}/include/torch/csrc/api/include)
foreach(library torch torch_cpu c10)
  add_library(thresher_${library}_library SHARED IMPORTED GLOBAL)
  set_target_properties(thresher_${library}_library PROPERTIES IMPORTED_LOCATION ${TORCH_INSTALL_PREFIX}/lib/lib${library}.so)
  target_link_libraries(thresher_torch INTERFACE thresher_${library}_library)
endforeach()
if(EXISTS ${TORCH_INSTALL_PREFIX}/lib/libtorch_cuda.so)
  # It registers itself when it is loaded, so it is linked though no symbol is asked of it; what it
  # needs (cuBLAS, cuDNN, NCCL) it finds beside itself when it is loaded, but the linker does not.
  target_link_libraries(thresher_torch INTERFACE
    "-Wl,--push-state,--no-as-needed ${TORCH_INSTALL_PREFIX}/lib/libtorch_cuda.so ${TORCH_INSTALL_PREFIX}/lib/libc10_cuda.so -Wl,--pop-state")
  target_link_options(thresher_torch INTERFACE LINKER:--unresolved-symbols=ignore-in-shared-libs)
endif()
set(TORCH_LIBRARIES thresher_torch)
message(STATUS "libtorch: ${TORCH_INSTALL_PREFIX}")
