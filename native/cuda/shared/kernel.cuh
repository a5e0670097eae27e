// What every CUDA kernel file includes first: the registry, the launcher, PTX, numbers and reductions.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "core/dtype.h"
#include "core/registry.h"
#include "cuda/launcher.h"
#include "cuda/shared/number.cuh"
#include "cuda/shared/ptx.cuh"
#include "cuda/shared/warp.cuh"

namespace isopolicy::cuda {

template <class Args>
void addKernel(Registry& registry, Family family, CudaKernel<Args> kernel) {
  registry.addCuda<Args>(family, kernel);
}

// Calls `body` with a zero of the type: float, Half or BFloat16. The op layer lets no other type come here.
template <class Body>
auto dispatchFloat(DType dtype, Body body) {
  switch (dtype) {
    case DType::float16:
      return body(Half{});
    case DType::bfloat16:
      return body(BFloat16{});
    case DType::float32:
      return body(float{});
    default:
      throw DeviceError(std::string("expected fp32, fp16 or bf16, got ") + nameOf(dtype));
  }
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Objects to device data: the read that follows fails with the message of the check, its %i and %v replaced
// by the least index that was reported and the value there.
__device__ inline void report(const Check& check, int64_t index, int32_t value) {
  const auto place = static_cast<unsigned long long>(index < 0 ? 0 : index > 0x7fffffff ? 0x7fffffff : index);
  atomicMin(check.slot, place << 32 | static_cast<uint32_t>(value));
  atomicExch(check.any, 1u);
}

}  // namespace isopolicy::cuda
