# Language level, warnings, sanitizers and optional speed-ups (ccache, mold).
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# Results must not depend on the compiler's choice of contractions: every FMA in the numerics is written out.
# Designated initializers leave members out on purpose, hence -Wno-missing-field-initializers.
add_compile_options(-Wall -Wextra -Wshadow -Wconversion -Werror -Wno-missing-field-initializers
                    -ffp-contract=off -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-Wthread-safety -Wno-unknown-warning-option)
endif()
if(SY_SANITIZE)
  add_compile_options(-fsanitize=${SY_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SY_SANITIZE})
endif()

find_program(SY_CCACHE ccache)
if(SY_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SY_CCACHE})
endif()
find_program(SY_MOLD mold)
if(SY_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
