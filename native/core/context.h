// What one JavaScript environment owns: its tensors, their memory, its command stream and its settings.
#pragma once
#include <array>
#include <memory>

#include "core/allocator.h"
#include "core/registry.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace isopolicy {

// Memory and command stream of one device.
struct DeviceState {
  DeviceState(Device device, uint64_t& sequence, MemorySource& source, std::unique_ptr<Processor> processor)
      : source(source), allocator(source), stream(device, sequence, std::move(processor)) {}
  MemorySource& source;
  CachingAllocator allocator;
  Stream stream;  // after the allocator: its commands use that memory
};

using Drivers = std::array<Driver, kDevices>;  // by device

class Context {
 public:
  explicit Context(const Drivers& drivers);
  ~Context();
  // Ends the native threads; nothing that is queued runs any more.
  void stop();

  // The state of a device, made at its first use. Throws DeviceError where it cannot be used.
  DeviceState& on(Device device);
  // The same, or null where the device was not used yet.
  DeviceState* ifUsed(Device device) { return devices_[size_t(device)].get(); }
  // Number of the last queued command, of whatever device.
  uint64_t sequence() const { return sequence_; }

  // A new tensor of the given type and shape; its contents are whatever the memory held (all ones in every
  // bit, which is NaN, where ISOPOLICY_POISON=1).
  double allocate(Device device, DType dtype, const Shape& shape, Tensor& out);
  // Another window on the same memory.
  double view(const Tensor& base, int64_t byteOffset, DType dtype, const Shape& shape, Tensor& out);
  // Returns cached memory to the system, in stream order: queued commands may still use it.
  void trim(Device device);
  void setThreads(int threads);
  int threads() const { return threads_; }
  // The stream that records, or null.
  Stream* recording();
  // Everything a queued command touches stays alive for as long as a recording may replay it.
  void retainForRecording(const Tensor& tensor);
  void releaseRecording(Recording& recording);

  TensorTable tensors;
  VectorLevel vectorLevel;
  // Where tensors are made by ops that have no tensor as an input.
  Device device = Device::cpu;

 private:
  const Drivers drivers_;
  // New memory, or while recording preferably some that the sequence is done with.
  Storage* newStorage(DeviceState& state, size_t bytes);
  bool poison_;
  int threads_;
  uint64_t sequence_ = 0;
  std::unique_ptr<DeviceState> devices_[kDevices];
};

// The highest level that this processor has.
VectorLevel supportedVectorLevel();
// That, or what ISOPOLICY_VECTOR_LEVEL (portable, avx2, avx512, avx512bf16, amx) lowers it to.
VectorLevel detectVectorLevel();
Device parseDevice(const std::string& name);
VectorLevel parseVectorLevel(const std::string& name);
const char* nameOf(VectorLevel level);
int defaultThreads();

}  // namespace isopolicy
