// The CUDA side as the rest of the addon sees it. Built from stub.cc where there is no CUDA compiler.
#pragma once
#include <string>
#include <vector>

#include "core/processor.h"

namespace isopolicy {

class Registry;

namespace cuda {

struct DeviceInfo {
  std::string name;
  int computeMajor, computeMinor;
  double totalBytes;
  int multiprocessors;
};

// Whether kernels for CUDA were compiled in.
bool compiled();
// Devices that can be used, or none and the reason in `problem`.
std::vector<DeviceInfo> devices(std::string& problem);
// CUDA versions, as 13.0: that of the driver, and that of the run time compiled in; empty where there is
// none.
std::string driverVersion();
std::string runtimeVersion();
// Of the first device.
Driver driver();
void registerKernels(Registry& registry);

}  // namespace cuda
}  // namespace isopolicy
