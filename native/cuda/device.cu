// The CUDA side of an addon that was built with CUDA: which devices there are, or why none can be used.
//
// The CUDA runtime is linked statically and opens the driver at the first call, so the addon loads and this
// file runs on machines without a driver too.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "cuda/cuda.h"

namespace isopolicy::cuda {
namespace {

// CUDA's version numbers: 13000 is 13.0.
std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The lowest compute capability that code was compiled for, times 100: 8.0 is 800.
int lowestCompiledArchitecture() {
  constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};
  return *std::min_element(std::begin(kArchitectures), std::end(kArchitectures));
}

std::string reason(cudaError_t status) {
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;
    const bool installed = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    return installed ? "the NVIDIA driver is too old: it has CUDA " + versionText(driver) +
                           ", the addon was built with CUDA " + versionText(CUDART_VERSION)
                     : "the NVIDIA driver is missing or too old";
  }
  if (status == cudaErrorNoDevice) return "the NVIDIA driver sees no device";
  return std::string(cudaGetErrorString(status)) + " (CUDA error " + std::to_string(int(status)) + ")";
}

}  // namespace

bool compiled() { return true; }

std::string driverVersion() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess && version > 0 ? versionText(version) : "";
}

std::string runtimeVersion() { return versionText(CUDART_VERSION); }

std::vector<DeviceInfo> devices(std::string& problem) {
  problem.clear();
  std::vector<DeviceInfo> found;
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  std::string tooOld;
  for (int i = 0; status == cudaSuccess && i < count; i++) {
    cudaDeviceProp properties;
    status = cudaGetDeviceProperties(&properties, i);
    if (status != cudaSuccess) break;
    if (properties.major * 100 + properties.minor * 10 < lowestCompiledArchitecture()) {
      tooOld = std::string(properties.name) + " has compute capability " + std::to_string(properties.major) +
               "." + std::to_string(properties.minor) + ", below what the addon was compiled for";
      if (i == 0) {
        // It is the first that is computed on.
        tooOld += "; CUDA_VISIBLE_DEVICES can hide it";
        break;
      }
      continue;
    }
    found.push_back({properties.name, properties.major, properties.minor, double(properties.totalGlobalMem),
                     properties.multiProcessorCount});
  }
  if (!found.empty()) return found;
  if (status != cudaSuccess) {
    cudaGetLastError();  // the next CUDA call starts clean
    problem = "no usable GPU: " + reason(status);
  } else {
    problem = "no usable GPU: " + (tooOld.empty() ? "the NVIDIA driver sees no device" : tooOld);
  }
  return found;
}

}  // namespace isopolicy::cuda
