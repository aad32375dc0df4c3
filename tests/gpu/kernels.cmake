# The kernels of the CUDA device, compiled as C++ for the CPU (shim/): they are tested on every machine
# that has a C++ compiler.
include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "no C++ compiler: the tests of the CUDA kernels are not built")
  return()
endif()
enable_language(CXX)
find_package(Threads REQUIRED)

set(device_dir ${CMAKE_SOURCE_DIR}/gpu-engine/device)
set(cuda_dir ${CMAKE_SOURCE_DIR}/gpu-engine/device/cuda)
set(shim_dir ${CMAKE_CURRENT_SOURCE_DIR}/shim)
file(GLOB cuda_kernels CONFIGURE_DEPENDS ${cuda_dir}/*.cu)
file(GLOB cuda_host CONFIGURE_DEPENDS ${cuda_dir}/*_ref.c ${cuda_dir}/cuda_kv.c ${cuda_dir}/job_slots_check.c
     ${cuda_dir}/cuda_weights*.c ${cuda_dir}/cuda_dense.c ${cuda_dir}/cublaslt*.c)
set(shim_flags -std=c++17 -Wall -Wextra -Wno-unknown-pragmas -Werror -ffp-contract=off)
if(OMNI_SANITIZE MATCHES thread)
  list(APPEND shim_flags -Wno-tsan) # it does not know fences: the host's side is not running here
endif()

# Switches stacks and speaks to the sanitizers itself, so it is not instrumented.
add_library(omni_cuda_shim STATIC shim/fiber.cpp shim/shim.cpp shim/runtime_memory.cpp shim/runtime_stream.cpp)
target_include_directories(omni_cuda_shim PUBLIC ${CMAKE_SOURCE_DIR} ${shim_dir})
target_compile_options(omni_cuda_shim PRIVATE ${shim_flags})
if(OMNI_SANITIZE MATCHES address)
  target_compile_definitions(omni_cuda_shim PRIVATE SHIM_ASAN)
elseif(OMNI_SANITIZE MATCHES thread)
  target_compile_definitions(omni_cuda_shim PRIVATE SHIM_TSAN)
endif()

# omni_cuda_cpp(target sources...): .cu files as C++ against the shim's headers.
function(omni_cuda_cpp target)
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  target_sources(${target} PRIVATE ${ARGN})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR} ${shim_dir})
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${shim_flags}>)
  if(OMNI_SANITIZE)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${OMNI_SANITIZE} -fno-omit-frame-pointer>)
  endif()
endfunction()

# omni_cuda_cpu: the kernels; omni_cuda_host: the C around them, over the shim's runtime.
add_library(omni_cuda_cpu STATIC)
omni_cuda_cpp(omni_cuda_cpu ${cuda_kernels})
add_library(omni_cuda_host STATIC ${cuda_host})
target_include_directories(omni_cuda_host PUBLIC ${shim_dir})
target_link_libraries(omni_cuda_host PUBLIC omni_cuda_cpu omni_cuda_shim omni_uring omni_model omni_kv omni_base
                      ${CMAKE_DL_LIBS} stdc++)

# The device itself, over the shim; test_device_cuda links it before the engine.
file(GLOB cuda_device CONFIGURE_DEPENDS ${cuda_dir}/cuda_*.c)
list(REMOVE_ITEM cuda_device ${cuda_host})
add_library(omni_cuda_device STATIC ${cuda_device})
target_link_libraries(omni_cuda_device PUBLIC omni_cuda_host)

# A stand-in for cuBLASLt, found as the real one is.  It puts its products on the shim's streams, so the
# programs that load it show it the shim.
add_library(omni_cublaslt_standin MODULE shim/cublaslt_standin.c)
target_link_libraries(omni_cublaslt_standin PRIVATE omni_options)
target_include_directories(omni_cublaslt_standin PRIVATE ${shim_dir})
function(omni_cublaslt_for target)
  set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON)
  target_link_options(${target} PRIVATE -Wl,-u,shim_stream_run -Wl,-u,shim_runtime_reaches)
  add_dependencies(${target} omni_cublaslt_standin)
  set_property(TEST ${target} APPEND PROPERTY ENVIRONMENT OMNI_CUBLASLT=$<TARGET_FILE:omni_cublaslt_standin>)
endfunction()

file(GLOB check_sources CONFIGURE_DEPENDS checks/*.c)
omni_test(test_gpu_kernels fast TIMEOUT 600
  LIBS omni_cuda_host
  SOURCES test_gpu_kernels.c ${check_sources} ${device_dir}/pick.c ${device_dir}/sampler.c
          ${device_dir}/sampler_adjust.c)

add_library(omni_cuda_planted STATIC)
omni_cuda_cpp(omni_cuda_planted ${CMAKE_CURRENT_SOURCE_DIR}/shim/planted.cu)
omni_test(test_gpu_shim fast LIBS omni_cuda_planted omni_cuda_shim omni_kv stdc++ SOURCES test_gpu_shim.c)
if(OMNI_SANITIZE MATCHES thread)
  target_compile_definitions(test_gpu_shim PRIVATE SHIM_TEST_TSAN)
endif()
if(OMNI_SANITIZE MATCHES thread)
  # Each CUDA thread is a thread to it: 15 s of a core, and more on a busy machine.
  set_tests_properties(test_gpu_kernels PROPERTIES LABELS full TIMEOUT 1800)
endif()

omni_test(test_gpu_runtime fast LIBS omni_cuda_shim omni_kv stdc++ SOURCES test_gpu_runtime.c)

foreach(name cuda_weights cuda_dense)
  omni_test(test_${name} fast TIMEOUT 300 LIBS omni_cuda_host SOURCES test_${name}.c)
endforeach()
omni_cublaslt_for(test_cuda_dense)

set(unit_dir ${CMAKE_SOURCE_DIR}/tests/unit)
omni_test(test_device_cuda fast TIMEOUT 600 LIBS omni_cuda_device omni_engine omni_attnd
  SOURCES ${unit_dir}/test_device_cuda.c ${unit_dir}/cuda_rig.c)
target_include_directories(test_device_cuda PRIVATE ${unit_dir})
omni_cublaslt_for(test_device_cuda)
