# The module of the CUDA kernels, where there is a compiler for them.

include(CheckLanguage)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90)  # of CMake's own trials
endif()
check_language(CUDA)
set(missing "")
if(NOT CMAKE_CUDA_COMPILER)
  set(missing "CMake found none")
else()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS PCLC_OLDEST_NVCC)
    set(missing "${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
endif()
if(missing AND PCLC_CUDA STREQUAL "ON")
  message(FATAL_ERROR "PCLC_CUDA=ON needs nvcc ${PCLC_OLDEST_NVCC} or newer: ${missing}")
elseif(missing)
  message(STATUS "PCLC_CUDA: no CUDA kernels, which need nvcc ${PCLC_OLDEST_NVCC}: ${missing}")
  return()
endif()

if(PCLC_CUDA_ARCHS STREQUAL "all")
  set(architectures 80-real 86-real 89-real 90-real 100-real 120)  # and PTX of the newest
elseif(PCLC_CUDA_ARCHS)
  set(architectures ${PCLC_CUDA_ARCHS})
elseif(CMAKE_CUDA_ARCHITECTURES_NATIVE MATCHES "^[0-9]")
  set(architectures ${CMAKE_CUDA_ARCHITECTURES_NATIVE})
else()
  set(architectures 90)
endif()
message(STATUS "PCLC_CUDA: ${CMAKE_CUDA_COMPILER} for ${architectures}")

pybind11_add_module(_cuda NO_EXTRAS csrc/module_cuda.cpp csrc/pclc_cuda.cu csrc/pclc_cuda_float32.cu
                    csrc/pclc_cuda_bfloat16.cu csrc/pclc_cuda_float16.cu csrc/pclc_cuda_float64.cu)
# C++17: the standard library of a newer one takes seconds more to read, in every file.
set_target_properties(_cuda PROPERTIES CUDA_ARCHITECTURES "${architectures}"
                                       CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
                                       CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
                                       CXX_STANDARD 17)
# Forward and backward are to round alike: nothing is fused that the sources do not fuse.
target_compile_options(
  _cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;--expt-relaxed-constexpr>")
install(TARGETS _cuda DESTINATION pclc_fast)
