# Third-party packages out of the bundle THRESHER_BUNDLE (launch/README.md, "Bundles"): the same
# targets that ThresherDependencies.cmake finds on a system with packages, made here from known files.
# The descriptions in the packages name /usr, and pkg-config may not be there: neither is asked, so
# nothing of the machine's is taken by accident.
#
# Shared libraries are found through an RPATH, not a RUNPATH: libzmq and its kind need libraries of the
# bundle themselves and carry no path.
set(CMAKE_BUILD_RPATH ${THRESHER_BUNDLE}/lib)
add_link_options(LINKER:--disable-new-dtags LINKER:-rpath-link,${THRESHER_BUNDLE}/lib)
include_directories(SYSTEM ${THRESHER_BUNDLE}/include)
file(STRINGS ${THRESHER_BUNDLE}/defines BUNDLE_DEFINES)

# bundle_target(name [LIBRARY l] [DEFINES d] [DEPENDS targets...]): an imported target with the headers
# of the bundle; l is linked, as an archive where the bundle has one. d names the line of the file
# "defines" with the definitions that users of the library are compiled with.
function(bundle_target name)
  cmake_parse_arguments(ARG "" "LIBRARY;DEFINES" "DEPENDS" ${ARGN})
  if(ARG_LIBRARY)
    file(GLOB file ${THRESHER_BUNDLE}/lib/lib${ARG_LIBRARY}.a)
    if(NOT file)
      file(GLOB file ${THRESHER_BUNDLE}/lib/lib${ARG_LIBRARY}.so.* ${THRESHER_BUNDLE}/lib/lib${ARG_LIBRARY}-[0-9]*.so)
    endif()
    list(LENGTH file files)
    if(NOT files EQUAL 1)
      message(FATAL_ERROR "The bundle ${THRESHER_BUNDLE} has no lib${ARG_LIBRARY}; launch/bundle --verify")
    endif()
    add_library(${name} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${file})
  else()
    add_library(${name} INTERFACE IMPORTED GLOBAL)
  endif()
  set_target_properties(${name} PROPERTIES INTERFACE_LINK_LIBRARIES "${ARG_DEPENDS}")
  if(ARG_DEFINES)
    set(line ${BUNDLE_DEFINES})
    list(FILTER line INCLUDE REGEX "^${ARG_DEFINES}( |$)")
    separate_arguments(line)
    list(REMOVE_AT line 0)
    set_target_properties(${name} PROPERTIES INTERFACE_COMPILE_DEFINITIONS "${line}")
  endif()
endfunction()

bundle_target(PkgConfig::ZMQ LIBRARY zmq)
bundle_target(PkgConfig::ZSTD LIBRARY zstd)
bundle_target(PkgConfig::XXHASH LIBRARY xxhash)
bundle_target(PkgConfig::ICU LIBRARY icuuc)
bundle_target(PkgConfig::HTTPLIB LIBRARY cpp-httplib DEFINES cpp-httplib)
bundle_target(CapnProto::kj LIBRARY kj DEPENDS Threads::Threads)
bundle_target(CapnProto::capnp LIBRARY capnp DEPENDS CapnProto::kj)
bundle_target(yaml-cpp LIBRARY yaml-cpp)
bundle_target(fmt::fmt LIBRARY fmt)
bundle_target(spdlog::spdlog LIBRARY spdlog DEFINES spdlog DEPENDS fmt::fmt)
bundle_target(nlohmann_json::nlohmann_json)
bundle_target(GTest::gtest LIBRARY gtest DEPENDS Threads::Threads)
bundle_target(GTest::gtest_main LIBRARY gtest_main DEPENDS GTest::gtest)
bundle_target(GTest::gmock LIBRARY gmock DEPENDS GTest::gtest)

# capnp_generate_cpp(), with the schema compiler of the bundle.
set(CAPNP_EXECUTABLE ${THRESHER_BUNDLE}/bin/capnp)
set(CAPNPC_CXX_EXECUTABLE ${THRESHER_BUNDLE}/bin/capnpc-c++)
set(CAPNP_INCLUDE_DIRECTORY ${THRESHER_BUNDLE}/include)
include(${THRESHER_BUNDLE}/cmake/CapnProtoMacros.cmake)
message(STATUS "Third-party libraries: the bundle ${THRESHER_BUNDLE}")
