# Run with cmake -P at build time; the arguments are named in ThresherBuildInfo.cmake.
set(THRESHER_REVISION "unknown")
if(GIT)
  execute_process(COMMAND ${GIT} describe --always --dirty --abbrev=12 --exclude=*
    WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE described RESULT_VARIABLE failed
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT failed)
    set(THRESHER_REVISION ${described})
  endif()
endif()
if(THRESHER_SANITIZE)
  string(APPEND THRESHER_BUILD_TYPE "+${THRESHER_SANITIZE}")
endif()
configure_file(${SOURCE_DIR}/common/base/build_info.cc.in ${OUTPUT} @ONLY)  # keeps an equal file
