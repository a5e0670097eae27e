#include "cuda/launcher.h"

#include <algorithm>
#include <cstdlib>

namespace isopolicy::cuda {

void expectSuccess(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call starts clean, where the error is not one that stays
  throw DeviceError(std::string(what) + " failed: " + cudaGetErrorString(status) + " (" +
                    cudaGetErrorName(status) + ")");
}

static cudaStream_t newStream() {
  cudaStream_t stream = nullptr;
  expectSuccess(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return stream;
}

Launcher::Launcher() : stream_(newStream()), checks_(stream_) {
  cudaDeviceProp device;
  expectSuccess(cudaGetDeviceProperties(&device, 0), "asking for the properties of the GPU");
  properties_.capability = device.major * 10 + device.minor;
  // Lowers what kernels make use of, to try the paths of older GPUs.
  const char* most = std::getenv("ISOPOLICY_CUDA_CAPABILITY");
  if (most != nullptr && std::atoi(most) > 0)
    properties_.capability = std::min(properties_.capability, std::atoi(most));
  properties_.multiprocessors = device.multiProcessorCount;
  properties_.sharedMemoryPerBlock = device.sharedMemPerBlockOptin;
  properties_.l2Bytes = size_t(device.l2CacheSize);
  properties_.readsPageable = device.pageableMemoryAccess != 0;
  expectSuccess(cudaMalloc(reinterpret_cast<void**>(&counters_), kCounters * sizeof(unsigned)),
                "allocating counters");
  expectSuccess(cudaMemsetAsync(counters_, 0, kCounters * sizeof(unsigned), stream_), "clearing counters");
}

Launcher::~Launcher() {
  cudaStreamSynchronize(stream_);
  cudaFree(counters_);
  for (const Block& block : scratch_) cudaFree(block.data);
  cudaStreamDestroy(stream_);
}

void Launcher::begin(const char* op, uint64_t sequence) {
  checks_.begin(op, sequence);
  scratchUsed_ = 0;
}

void Launcher::zero(void* to, size_t bytes) {
  if (bytes > 0) expectSuccess(cudaMemsetAsync(to, 0, bytes, stream_), "clearing memory");
}

void Launcher::copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0)
    expectSuccess(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copying memory");
}

void* Launcher::takeScratch(size_t bytes) {
  constexpr size_t kAlignment = 256, kLeast = size_t(8) << 20;
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (scratch_.empty() || scratchUsed_ + rounded > scratch_.back().bytes) {
    const size_t last = scratch_.empty() ? 0 : scratch_.back().bytes;
    // What the command has taken so far stays in the block before, and its place here stays free: the last
    // block has room for all of each command that was run, and a graph of it is captured without this.
    size_t size = std::max({kLeast, last * 2, (scratchUsed_ + rounded) * 2});
    void* data = nullptr;
    const auto allocate = [&] {
      if (cudaMalloc(&data, size) == cudaSuccess) return true;
      cudaGetLastError();
      return false;
    };
    const bool ample = allocate();
    if (!ample) size = scratchUsed_ + rounded;
    if (!ample && !allocate()) {
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw DeviceError("out of memory: asked for " + std::to_string(size) + " bytes of scratch of " +
                        std::to_string(free) + " free on the device");
    }
    scratch_.push_back({static_cast<char*>(data), size});
  }
  void* taken = scratch_.back().data + scratchUsed_;
  scratchUsed_ += rounded;
  return taken;
}

void Launcher::prepare(const void* function, Grid grid, size_t sharedBytes) {
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
    throw DeviceError("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                      std::to_string(grid.z) + " blocks cannot be launched");
  if (sharedBytes == 0) return;
  size_t& most = sharedBytes_[function];
  if (most == 0) {
    // Unasked, static and dynamic memory have 48 KiB together. All that there is, whatever this launch needs:
    // the setting is the process's, and the launchers of other threads set it too.
    cudaFuncAttributes attributes;
    expectSuccess(cudaFuncGetAttributes(&attributes, function), "asking for the attributes of a kernel");
    const size_t all = properties_.sharedMemoryPerBlock - attributes.sharedSizeBytes;
    expectSuccess(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(all)),
                  "asking for shared memory");
    most = all;
  }
  if (sharedBytes > most)
    throw DeviceError("a kernel needs " + std::to_string(sharedBytes) +
                      " bytes of shared memory, the GPU has " + std::to_string(most));
}

#if !defined(ISOPOLICY_EMULATED)
void Launcher::launchRaw(const void* function, dim3 blocks, int threads, size_t sharedBytes, int cluster,
                         void** arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = sharedBytes;
  config.stream = stream_;
  cudaLaunchAttribute attribute = {};
  if (cluster > 1) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {unsigned(cluster), 1, 1};
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  expectSuccess(cudaLaunchKernelExC(&config, function, arguments), "launching a kernel");
}
#endif

}  // namespace isopolicy::cuda
