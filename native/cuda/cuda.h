// The CUDA side as the rest of the addon sees it. Built from stub.cc where there is no CUDA compiler.
#pragma once
#include <string>
#include <vector>

namespace isopolicy {

class Registry;

namespace cuda {

struct DeviceInfo {
  std::string name;
  int computeMajor, computeMinor;
  double totalBytes;
};

// Whether kernels for CUDA were compiled in.
bool compiled();
// Devices that can be used, or none and the reason in `problem`.
std::vector<DeviceInfo> devices(std::string& problem);
void registerKernels(Registry& registry);

}  // namespace cuda
}  // namespace isopolicy
