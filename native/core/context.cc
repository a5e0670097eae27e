#include "core/context.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace isopolicy {

Registry& Registry::instance() {
  // Read on the JavaScript thread alone, so it may be destroyed with the library, which a worker's end
  // unloads.
  static Registry registry;
  return registry;
}

const char* nameOf(VectorLevel level) {
  switch (level) {
    case VectorLevel::portable:
      return "portable";
    case VectorLevel::avx2:
      return "avx2";
    case VectorLevel::avx512:
      return "avx512";
    case VectorLevel::avx512bf16:
      return "avx512bf16";
    case VectorLevel::amx:
      return "amx";
  }
  return "unknown";
}

#if defined(__x86_64__)
// Whether the processor has tiles of bf16 and the kernel lets this process use them: their registers are 8
// KiB a thread, which Linux saves only for processes that ask (ARCH_REQ_XCOMP_PERM; threads made later
// inherit it).
static bool requestTiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = (d >> 24 & 1) != 0, bf16 = (d >> 22 & 1) != 0;
  return tiles && bf16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// Of the processor, whatever this build has.
static VectorLevel vectorLevelOfProcessor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) {
    static const bool tiles = requestTiles();
    return tiles ? VectorLevel::amx : VectorLevel::avx512bf16;
  }
  if (avx512) return VectorLevel::avx512;
  if (avx2) return VectorLevel::avx2;
#endif
  return VectorLevel::portable;
}

VectorLevel supportedVectorLevel() {
  VectorLevel level = vectorLevelOfProcessor();
  while (!isCompiled(level)) level = VectorLevel(int(level) - 1);
  return level;
}

VectorLevel parseVectorLevel(const std::string& name) {
  const VectorLevel supported = supportedVectorLevel();
  for (int i = 0; i < kVectorLevels; i++) {
    const VectorLevel level = VectorLevel(i);
    if (name != nameOf(level)) continue;
    if (level > supported)
      expected("vectorLevel", std::string("a level this processor has (up to ") + nameOf(supported) + ")",
               name);
    if (!isCompiled(level)) expected("vectorLevel", "a level that the addon was compiled for", name);
    return level;
  }
  expected("vectorLevel", "one of portable, avx2, avx512, avx512bf16, amx", "\"" + name + "\"");
}

VectorLevel detectVectorLevel() {
  const char* forced = std::getenv("ISOPOLICY_VECTOR_LEVEL");
  return forced && *forced ? parseVectorLevel(forced) : supportedVectorLevel();
}

int defaultThreads() {
  const unsigned n = std::thread::hardware_concurrency();
  return n < 1 ? 1 : n > 64 ? 64 : int(n);
}

Context::Context(const Drivers& drivers)
    : vectorLevel(detectVectorLevel()),
      drivers_(drivers),
      poison_(std::getenv("ISOPOLICY_POISON") != nullptr &&
              std::string(std::getenv("ISOPOLICY_POISON")) == "1"),
      threads_(defaultThreads()) {
  const char* wanted = std::getenv("ISOPOLICY_DEVICE");
  if (wanted == nullptr || *wanted == 0) return;
  device = parseDevice(wanted);  // whether it can be used shows at the first tensor
}

Context::~Context() {
  stop();  // before the memory that commands use
  tensors.clear();
}

void Context::stop() {
  for (auto& state : devices_)
    if (state) state->stream.stop();
}

Device parseDevice(const std::string& name) {
  for (const Device device : {Device::cpu, Device::cuda})
    if (name == nameOf(device)) return device;
  expected("device", "one of cpu, cuda", "\"" + name + "\"");
}

DeviceState& Context::on(Device device) {
  auto& state = devices_[size_t(device)];
  if (!state) {
    const Driver& driver = drivers_[size_t(device)];
    state.reset(new DeviceState(device, sequence_, driver.memory(), driver.makeProcessor(threads_)));
  }
  return *state;
}

void Context::setThreads(int threads) {
  threads_ = threads;
  if (DeviceState* cpu = ifUsed(Device::cpu)) cpu->stream.setThreads(threads);
}

void Context::trim(Device device) {
  DeviceState* state = ifUsed(device);
  if (state == nullptr || recording() != nullptr) return;  // its commands run later, again and again
  // A command that does nothing holds the blocks; they are freed with it, once it has run or was dropped.
  MemorySource& source = state->source;
  std::shared_ptr<std::vector<void*>> blocks(new std::vector<void*>(state->allocator.takeCached()),
                                             [&source](std::vector<void*>* held) {
                                               for (void* block : *held) source.give(block);
                                               delete held;
                                             });
  struct NoArgs {};
  constexpr ErasedKernel nothing = {nullptr, [](void (*)(), const void*, void*) {}};
  state->stream.enqueue("trim", nothing, NoArgs{}, std::move(blocks));
}

Storage* Context::newStorage(DeviceState& state, size_t bytes) {
  Recording* recording = state.stream.recording();
  if (recording == nullptr) return new Storage(state.allocator, bytes);
  auto& idle = recording->idle;
  for (size_t i = idle.size(); i-- > 0;) {
    Storage* storage = idle[i];
    if (storage->blockBytes() != CachingAllocator::sizeClass(bytes)) continue;
    idle.erase(idle.begin() + int64_t(i));
    storage->retain();
    return storage;
  }
  auto* storage = new Storage(state.allocator, bytes);
  storage->listWhenIdle(&idle);
  storage->retain();
  recording->storages.push_back(storage);
  return storage;
}

double Context::allocate(Device device, DType dtype, const Shape& shape, Tensor& out) {
  double bytes = double(bytesOf(dtype));
  for (int i = 0; i < shape.rank; i++) bytes *= double(shape.dims[i]);
  if (bytes > 1e15) throw DeviceError("[memory] out of memory: asked for a tensor of shape " + shape.text());
  DeviceState& state = on(device);
  Tensor tensor;
  try {
    tensor.storage = newStorage(state, size_t(bytes));
  } catch (const DeviceError&) {
    trim(device);  // for the caller's next try; this one cannot wait
    throw;
  }
  tensor.dtype = dtype;
  tensor.shape = shape;
  tensor.device = device;
  if (poison_) {
    const PoisonArgs args{tensor.storage->data(), tensor.storage->blockBytes()};
    state.stream.enqueue(
        "poison", Registry::instance().find<PoisonArgs>("poison", Family::shared, device, vectorLevel), args);
  }
  out = tensor;
  return tensors.add(tensor);
}

double Context::view(const Tensor& base, int64_t byteOffset, DType dtype, const Shape& shape, Tensor& out) {
  Tensor tensor = base;
  tensor.byteOffset += byteOffset;
  tensor.dtype = dtype;
  tensor.shape = shape;
  tensor.storage->retain();
  out = tensor;
  return tensors.add(tensor);
}

Stream* Context::recording() {
  for (auto& state : devices_)
    if (state && state->stream.recording()) return &state->stream;
  return nullptr;
}

void Context::retainForRecording(const Tensor& tensor) {
  Stream* stream = recording();
  if (stream == nullptr) return;
  auto& storages = stream->recording()->storages;
  for (Storage* storage : storages)
    if (storage == tensor.storage) return;
  tensor.storage->retain();
  storages.push_back(tensor.storage);
}

void Context::releaseRecording(Recording& recording) {
  for (Storage* storage : recording.storages) storage->release();
  recording.storages.clear();
}

}  // namespace isopolicy
