# Third-party packages, all from Debian 12. Pitfalls are noted where they bite.
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(absl REQUIRED CONFIG)
find_package(spdlog REQUIRED CONFIG)
find_package(GTest REQUIRED CONFIG)
find_package(benchmark REQUIRED CONFIG)
find_package(simdjson REQUIRED CONFIG)
find_package(Boost 1.81 REQUIRED COMPONENTS json)
find_package(prometheus-cpp REQUIRED CONFIG)

if(SY_NETWORK)
  find_package(Protobuf REQUIRED)  # Module mode, before gRPC: Debian ships no protobuf-config.cmake.
  find_package(gRPC REQUIRED CONFIG)
  find_package(ucx REQUIRED CONFIG)
  if(NOT TARGET gRPC::grpc_cpp_plugin)  # Debian's gRPCConfig has no plugin target.
    find_program(SY_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
    add_executable(gRPC::grpc_cpp_plugin IMPORTED)
    set_target_properties(gRPC::grpc_cpp_plugin PROPERTIES IMPORTED_LOCATION ${SY_GRPC_CPP_PLUGIN})
  endif()
endif()
