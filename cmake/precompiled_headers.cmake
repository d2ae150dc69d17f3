# Most source files spend more time on the standard library, fmt and protobuf than on all that is ours,
# so these are parsed once for the sources, and once more, beside GoogleTest, for the tests. JSON stays
# out: its inline functions would be instantiated again in every file, at 0.8 s each.
# Sources still include what they use: -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON builds without, and so does
# `./run tidy`. Kernels do without: they include little, and some are built for other CPUs.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/precompiled_headers.cc CONTENT "")

function(troupe_precompiled_headers name)
  cmake_parse_arguments(ARG "" "" "HEADERS;LIBS" ${ARGN})
  add_library(${name} OBJECT ${PROJECT_BINARY_DIR}/precompiled_headers.cc)
  target_link_libraries(${name} PRIVATE fmt::fmt protobuf::libprotobuf ${ARG_LIBS})
  target_precompile_headers(${name} PRIVATE
    <algorithm> <array> <charconv> <cmath> <coroutine> <cstdint> <deque> <filesystem> <fstream>
    <functional> <limits> <map> <memory> <mutex> <numeric> <optional> <set> <span> <string>
    <string_view> <tuple> <unordered_map> <utility> <variant> <vector> <fmt/format.h>
    <google/protobuf/map.h> <google/protobuf/message.h> <google/protobuf/repeated_field.h> ${ARG_HEADERS})
endfunction()

troupe_precompiled_headers(troupe_precompiled)
if(TROUPE_TESTS)
  troupe_precompiled_headers(troupe_precompiled_tests LIBS GTest::gmock GTest::gtest
                             HEADERS <gmock/gmock.h> <gtest/gtest.h>)
endif()
