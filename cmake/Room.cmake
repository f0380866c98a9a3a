# A room is a folder, a static library statecached::<room>, and a warning level. Includes are written from the
# root of the repository, so that every include line names the room it reaches into.

add_library(statecached_options INTERFACE)
target_compile_features(statecached_options INTERFACE cxx_std_20)
target_include_directories(statecached_options INTERFACE "${PROJECT_SOURCE_DIR}")
target_compile_options(statecached_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast
    -Wnon-virtual-dtor -Woverloaded-virtual -Wdouble-promotion -Wformat=2 -Wimplicit-fallthrough -Wundef -Wvla>)
if(STATECACHED_WERROR)
  target_compile_options(statecached_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(STATECACHED_SANITIZE)
  string(REPLACE ";" "," _sanitizers "${STATECACHED_SANITIZE}")
  add_compile_options(-fsanitize=${_sanitizers} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${_sanitizers})
  # With instrumentation this compiler sees uninitialised members where there are none.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>)
  if(STATECACHED_SANITIZE MATCHES "thread")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-tsan>)  # fences in Asio's headers, which it does not follow
  endif()
  if(STATECACHED_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
if(STATECACHED_LIBFUZZER)
  # Every branch is counted. Warnings are those of GCC's builds: clang has others.
  add_compile_options(-fsanitize=fuzzer-no-link $<$<COMPILE_LANGUAGE:CXX>:-Wno-unknown-warning-option>)
endif()

# statecached_room(NAME SOURCES a.cpp ... PUBLIC libs ... PRIVATE libs ...)
function(statecached_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(statecached_${name} STATIC ${ROOM_SOURCES})
  add_library(statecached::${name} ALIAS statecached_${name})
  set_target_properties(statecached_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(statecached_${name} PUBLIC statecached_options ${ROOM_PUBLIC} PRIVATE ${ROOM_PRIVATE})
endfunction()

# statecached_program(NAME SOURCES ... LINK libs ...): lands in <build>/bin and is installed.
function(statecached_program name)
  cmake_parse_arguments(PROGRAM "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${PROGRAM_SOURCES})
  target_link_libraries(${name} PRIVATE statecached_options ${PROGRAM_LINK})
  target_compile_definitions(${name} PRIVATE STATECACHED_VERSION="${PROJECT_VERSION}")
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# statecached_test(NAME SOURCES ... LINK libs ... [LABELS l ...] [TIMEOUT s]): one executable with GoogleTest's main,
# run by ctest as a whole; exit 77 means skipped.
function(statecached_test name)
  cmake_parse_arguments(TEST "" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 300)
  endif()
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name} PRIVATE statecached_options ${TEST_LINK} GTest::gtest GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_compile_definitions(${name} PRIVATE
    STATECACHED_SOURCE_DIR="${PROJECT_SOURCE_DIR}" STATECACHED_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT ${TEST_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()
