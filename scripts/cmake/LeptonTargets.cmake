# Sources of a target are compiled a few at a time as one (a "unity" build): most of what a source
# costs is its headers. The sources of a target therefore share one set of names, unnamed namespaces
# included.
function(lepton_unite name batch)
  if(LEPTON_UNITY)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${batch})
    # It warns of unnamed namespaces in what it takes for headers.
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
  endif()
endfunction()

# What most sources include is parsed once: by lepton_base for the product, by lepton_test_headers
# (tests/CMakeLists.txt) for the tests, and reused by all others. A source with machine flags of its
# own must not use it: SKIP_PRECOMPILE_HEADERS.
set(LEPTON_COMMON_HEADERS
  <algorithm> <atomic> <chrono> <cmath> <condition_variable> <cstdint> <cstring> <deque> <filesystem>
  <fstream> <functional> <map> <memory> <mutex> <optional> <random> <set> <span> <sstream> <string>
  <string_view> <thread> <unordered_map> <utility> <vector> <fmt/format.h> <nlohmann/json.hpp>)
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  set(CMAKE_DISABLE_PRECOMPILE_HEADERS ON)
endif()
# lepton_precompile(NAME <header> ...): makes them.
function(lepton_precompile name)
  target_precompile_headers(${name} PRIVATE ${ARGN})
  # For ccache; scripts/build.sh sets the sloppiness that it needs as well.
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endfunction()
# lepton_reuse_precompiled(NAME MAKER): uses MAKER's.
function(lepton_reuse_precompiled name maker)
  target_precompile_headers(${name} REUSE_FROM ${maker})
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endfunction()

# lepton_library(NAME SOURCES a.cc ... DEPS target ...)
#   [PRECOMPILE <header> ...] instead of the common headers, or NO_PRECOMPILE
#   [COLD] code that is not waited for (it parses a job, answers a person, builds a graph): with -O1
#   it compiles in two thirds of the time
#   [UNITE 8] how many sources are compiled as one
#   A static library with the project's warnings. A folder's leaf target is named lepton_<folder>.
function(lepton_library name)
  cmake_parse_arguments(ARG "COLD;NO_PRECOMPILE" "UNITE" "SOURCES;DEPS;PRIVATE_DEPS;PRECOMPILE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE lepton_options ${ARG_PRIVATE_DEPS})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  if(NOT ARG_UNITE)
    set(ARG_UNITE 8)
  endif()
  lepton_unite(${name} ${ARG_UNITE})
  if(ARG_COLD)
    target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
  if(ARG_PRECOMPILE)
    lepton_precompile(${name} ${ARG_PRECOMPILE})
  elseif(NOT ARG_NO_PRECOMPILE)
    lepton_reuse_precompiled(${name} lepton_base)
  endif()
endfunction()

# lepton_proto_library(NAME PROTOS a.proto ... DEPS target ...)
#   Generated code: compiled without our warnings, included as "<folder>/a.pb.h".
function(lepton_proto_library name)
  cmake_parse_arguments(ARG "" "" "PROTOS;DEPS" ${ARGN})
  set(generated)
  foreach(proto ${ARG_PROTOS})
    file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
    get_filename_component(stem ${proto} NAME_WE)
    set(out ${CMAKE_BINARY_DIR}/${folder}/${stem}.pb)
    add_custom_command(
      OUTPUT ${out}.cc ${out}.h
      COMMAND protobuf::protoc --proto_path=${CMAKE_SOURCE_DIR} --cpp_out=${CMAKE_BINARY_DIR}
              ${folder}/${proto}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      DEPENDS ${proto})
    list(APPEND generated ${out}.cc)
  endforeach()
  add_library(${name} STATIC ${generated})
  target_link_libraries(${name} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  target_include_directories(${name} PUBLIC ${CMAKE_BINARY_DIR})
endfunction()

# lepton_test(NAME SOURCES a_test.cc ... DEPS target ... [LABELS fast] [TIMEOUT 60])
#   One GoogleTest program of a folder, registered with ctest as one test, so that start-up is paid
#   once and `ctest -L fast` stays under a minute. RUN_SERIAL for tests that need both cores.
function(lepton_test name)
  cmake_parse_arguments(ARG "RUN_SERIAL" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS fast)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(LEPTON_SANITIZE)  # ten times slower
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE lepton_options ${ARG_DEPS} GTest::gmock GTest::gtest
                                        GTest::gtest_main)
  target_compile_options(${name} PRIVATE ${LEPTON_TEST_OPTIONS})
  lepton_unite(${name} 4)
  lepton_reuse_precompiled(${name} lepton_test_headers)
  if("fast" IN_LIST ARG_LABELS)
    add_dependencies(unit_tests ${name})
  endif()
  if("threads" IN_LIST ARG_LABELS)
    add_dependencies(thread_tests ${name})
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
                                          SKIP_RETURN_CODE 77)
  if(ARG_RUN_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# lepton_script_test(NAME COMMAND ... [LABELS slow] [TIMEOUT 300]): a script that exits 0 when it
#   passes and 77 when it cannot run here, saying why.
function(lepton_script_test name)
  cmake_parse_arguments(ARG "RUN_SERIAL" "TIMEOUT" "COMMAND;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${ARG_COMMAND} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
                                          SKIP_RETURN_CODE 77)
  set_property(TEST ${name} PROPERTY ENVIRONMENT "LEPTON=$<TARGET_FILE:lepton>;${ARG_ENVIRONMENT}")
  if(ARG_RUN_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# lepton_bench(NAME SOURCES ... DEPS ...): a Google Benchmark program, not run by ctest.
function(lepton_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE lepton_options ${ARG_DEPS} benchmark::benchmark)
endfunction()
