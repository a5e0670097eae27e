// Tensor maps of TMA. The driver's function is found through the runtime, so that the addon does not link the
// driver.
#include "cuda/shared/ptx_hopper.cuh"

namespace isopolicy::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t rank, void* address,
                            const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                            const cuuint32_t* elementStrides, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

Encode findEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  expectSuccess(status, "looking for cuTensorMapEncodeTiled in the driver");
  if (found != cudaDriverEntryPointSuccess || function == nullptr)
    throw DeviceError("the NVIDIA driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<Encode>(function);
}

CUtensorMap encode(const void* data, DType dtype, int rank, const cuuint64_t* sizes,
                   const cuuint64_t* strides, const cuuint32_t* box, Swizzle swizzle) {
  static const Encode function = findEncode();
  constexpr cuuint32_t kOnes[] = {1, 1, 1};
  constexpr CUtensorMapSwizzle kSwizzles[] = {CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                              CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_32B};
  const CUtensorMapDataType type = dtype == DType::float16    ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                   : dtype == DType::bfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                              : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  CUtensorMap map;
  const CUresult status = function(&map, type, cuuint32_t(rank), const_cast<void*>(data), sizes, strides, box,
                                   kOnes, CU_TENSOR_MAP_INTERLEAVE_NONE, kSwizzles[int(swizzle)],
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw DeviceError("making a tensor map failed: CUDA driver error " + std::to_string(int(status)));
  return map;
}

}  // namespace

CUtensorMap tensorMap(const void* data, DType dtype, int64_t width, int64_t height, int64_t rowBytes,
                      int boxWidth, int boxHeight, Swizzle swizzle) {
  const cuuint64_t sizes[] = {cuuint64_t(width), cuuint64_t(height)}, strides[] = {cuuint64_t(rowBytes)};
  const cuuint32_t box[] = {cuuint32_t(boxWidth), cuuint32_t(boxHeight)};
  return encode(data, dtype, 2, sizes, strides, box, swizzle);
}

CUtensorMap tensorMap(const void* data, DType dtype, int64_t width, int64_t height, int64_t depth,
                      int64_t rowBytes, int64_t planeBytes, int boxWidth, int boxHeight, int boxDepth,
                      Swizzle swizzle) {
  const cuuint64_t sizes[] = {cuuint64_t(width), cuuint64_t(height), cuuint64_t(depth)};
  const cuuint64_t strides[] = {cuuint64_t(rowBytes), cuuint64_t(planeBytes)};
  const cuuint32_t box[] = {cuuint32_t(boxWidth), cuuint32_t(boxHeight), cuuint32_t(boxDepth)};
  return encode(data, dtype, 3, sizes, strides, box, swizzle);
}

}  // namespace isopolicy::cuda
