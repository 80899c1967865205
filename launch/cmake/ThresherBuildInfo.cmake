# thresher_build_info: the library behind common/base/build_info.h. Its one source is written at
# build time, and only when its text changes: a new revision compiles one file and links the programs.
set(BUILD_INFO_SOURCE ${CMAKE_BINARY_DIR}/generated/build_info.cc)
find_package(Git QUIET)
add_custom_target(thresher_build_info_text
  BYPRODUCTS ${BUILD_INFO_SOURCE}
  COMMAND ${CMAKE_COMMAND}
    -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DOUTPUT=${BUILD_INFO_SOURCE} -DGIT=${GIT_EXECUTABLE}
    -DTHRESHER_VERSION=${PROJECT_VERSION} -DTHRESHER_BUILD_TYPE=${CMAKE_BUILD_TYPE}
    -DTHRESHER_SANITIZE=${THRESHER_SANITIZE}
    "-DTHRESHER_COMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
    -P ${CMAKE_SOURCE_DIR}/launch/cmake/WriteBuildInfo.cmake
  COMMENT "" VERBATIM)
add_library(thresher_build_info STATIC ${BUILD_INFO_SOURCE})
add_dependencies(thresher_build_info thresher_build_info_text)
