# The standard library, and for tests GoogleTest, parsed once instead of in every file: a fifth of the build's time.
# A file still includes what it uses: sanitizer builds and THRESHER_PCH=OFF have no precompiled headers.
option(THRESHER_PCH "Precompile the headers that most files include" ON)
if(THRESHER_SANITIZE OR NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(THRESHER_PCH OFF)
endif()

set(THRESHER_PCH_HEADERS <algorithm> <array> <atomic> <bit> <chrono> <cmath> <condition_variable> <cstddef> <cstdint>
  <cstring> <deque> <filesystem> <fstream> <functional> <limits> <list> <map> <memory> <mutex> <numeric> <optional>
  <set> <span> <sstream> <string> <string_view> <thread> <tuple> <unordered_map> <unordered_set> <utility> <variant>
  <vector>)

# The first lets ccache see through the header. GCC 12 warns of its own std::string (bug 105329) once that is no longer
# a system header; builds without precompiled headers keep these warnings.
set(THRESHER_PCH_OPTIONS -fpch-preprocess -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow -Wno-stringop-overread)

# thresher_use_pch(target): `target`, a library, is compiled against them.
function(thresher_use_pch target)
  if(THRESHER_PCH)
    target_precompile_headers(${target} REUSE_FROM thresher_pch)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${THRESHER_PCH_OPTIONS}>")
  endif()
endfunction()

# thresher_use_test_pch(target): the same for a test's executable, with GoogleTest.
function(thresher_use_test_pch target)
  if(THRESHER_PCH)
    target_precompile_headers(${target} REUSE_FROM thresher_test_pch)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${THRESHER_PCH_OPTIONS}>")
  endif()
endfunction()

# One header serves all targets of a kind: GCC takes it whatever else is defined, but not for other code generation,
# and an executable is position-independent in another way than a library.
if(THRESHER_PCH)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch/empty.cc CONTENT "// Its target makes the precompiled header.\n")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch/main.cc CONTENT "int main() {}\n")
  add_library(thresher_pch STATIC ${CMAKE_BINARY_DIR}/pch/empty.cc)
  target_precompile_headers(thresher_pch PRIVATE ${THRESHER_PCH_HEADERS})
  target_compile_options(thresher_pch PRIVATE -fpch-preprocess)
  if(THRESHER_TESTS)
    add_executable(thresher_test_pch ${CMAKE_BINARY_DIR}/pch/main.cc)
    target_precompile_headers(thresher_test_pch PRIVATE ${THRESHER_PCH_HEADERS} <gmock/gmock.h> <gtest/gtest.h>)
    target_compile_options(thresher_test_pch PRIVATE -fpch-preprocess)
    target_link_libraries(thresher_test_pch PRIVATE GTest::gtest GTest::gmock)
  endif()
endif()
