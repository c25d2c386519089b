# Warnings are errors everywhere; sanitizers and ccache apply to every target.
add_library(lepton_options INTERFACE)
target_compile_options(lepton_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-missing-field-initializers>)
# GCC 12 sees copies that overlap or overflow in plain uses of std::string (its bug 105651).
target_compile_options(lepton_options INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict;-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>)
# Clang builds the fuzzers alone: GCC's warnings are the ones that count.
target_compile_options(lepton_options INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:Clang>>:-Wno-error;-Wno-unknown-warning-option>)
# -O2 halves the build; kernels ask for -O3 themselves.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
target_include_directories(lepton_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
# Sanitized builds: enough optimisation to be quick, line numbers in reports. NDEBUG, because the
# distribution's protobuf was built with it and its maps differ without. Undefined behaviour is left
# out where another check says as much and a third of the build is saved: null pointers (ASan
# reports the access) and vptr.
set(CMAKE_CXX_FLAGS_SANITIZE "-O1 -g1 -DNDEBUG")
if(LEPTON_SANITIZE)
  string(APPEND CMAKE_CXX_FLAGS_SANITIZE
    " -fsanitize=${LEPTON_SANITIZE} -fno-sanitize=null,vptr -fno-sanitize-recover=all -fno-omit-frame-pointer")
  if(LEPTON_SANITIZE MATCHES thread)
    # protobuf's maps are laid out otherwise where this is defined, and the distribution's library
    # was built without it. libstdc++ must know all the same: shared_ptr reads two counts at once
    # otherwise, which TSan takes for a race.
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-U__SANITIZE_THREAD__>)
    add_compile_definitions(LEPTON_TSAN _GLIBCXX_TSAN=1)
  endif()
  add_link_options(-fsanitize=${LEPTON_SANITIZE})
  # GCC 12 reports false positives of these two under its sanitizers.
  target_compile_options(lepton_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized -Wno-tsan>)
endif()

find_program(LEPTON_CCACHE ccache)
if(LEPTON_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${LEPTON_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${LEPTON_CCACHE})
endif()
