# How the executables of the project are made and installed.
#
# thresher_programs builds every executable and nothing else (no test): what launch/thresher builds.
# The installed tree mirrors the build tree, so a program finds its siblings by one relative path:
#   <build>/actor/thresher-actor      <prefix>/libexec/thresher/actor/thresher-actor
add_custom_target(thresher_programs)

set(THRESHER_LIBEXEC libexec/thresher)
set(THRESHER_INSTALL_LIB lib/thresher)

# thresher_executable(name SOURCES... DEPENDS...): an executable called `name` with '_' as '-' and
# without a final "_program" (which sets it apart from the folder's library), in the build folder of the calling CMakeLists.txt; part of thresher_programs; linked with the build
# information; installed below libexec/thresher with a run path relative to itself.
function(thresher_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS OR NOT ARG_SOURCES)
    message(FATAL_ERROR "thresher_executable(${name}): SOURCES expected, '${ARG_UNPARSED_ARGUMENTS}' not understood")
  endif()
  string(REGEX REPLACE "_program$" "" output ${name})
  string(REPLACE "_" "-" output ${output})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} thresher_build_info)
  set_target_properties(${name} PROPERTIES OUTPUT_NAME ${output} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  add_dependencies(thresher_programs ${name})

  file(RELATIVE_PATH folder ${CMAKE_BINARY_DIR} ${CMAKE_CURRENT_BINARY_DIR})
  set(destination ${THRESHER_LIBEXEC}/${folder})
  file(RELATIVE_PATH to_lib /${destination} /${THRESHER_INSTALL_LIB})
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/${to_lib}")
  install(TARGETS ${name} RUNTIME DESTINATION ${destination})
endfunction()

# thresher_torch_pch(target): compiles `target` against a precompiled torch/torch.h (25 s a file
# without it). Only for targets whose every source includes libtorch: the oracles of tests/parity,
# whose parity_torch makes it.
function(thresher_torch_pch target)
  if(target STREQUAL "parity_torch")
    target_precompile_headers(${target} PRIVATE <torch/torch.h>)
  else()
    target_precompile_headers(${target} REUSE_FROM parity_torch)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # lets ccache see through the header
  endif()
endfunction()

# What is not an executable: the launcher and the configurations.
function(thresher_install_rest)
  install(PROGRAMS ${CMAKE_SOURCE_DIR}/launch/bootstrap/installed_thresher.sh DESTINATION bin RENAME thresher)
  install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION share/thresher)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs DESTINATION share/thresher)
  if(THRESHER_BUNDLE)
    install(DIRECTORY ${THRESHER_BUNDLE}/lib/ DESTINATION ${THRESHER_INSTALL_LIB} FILES_MATCHING PATTERN "*.so*"
            PATTERN "libcapnp*" EXCLUDE PATTERN "libkj*" EXCLUDE)
    install(FILES ${THRESHER_BUNDLE}/LICENCES.md DESTINATION share/thresher)
    install(DIRECTORY ${THRESHER_BUNDLE}/copyright DESTINATION share/thresher)
  endif()
endfunction()
