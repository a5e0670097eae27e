// Tensors as the native side sees them: a dense row-major window on a reference-counted block of memory.
// Used on the JavaScript thread alone; kernels see raw pointers.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/dtype.h"
#include "core/registry.h"
#include "core/shape.h"

namespace isopolicy {

class Storage {
 public:
  Storage(CachingAllocator& allocator, size_t bytes) : allocator_(allocator) {
    data_ = allocator.allocate(bytes, blockBytes_);
  }
  Storage(const Storage&) = delete;
  void retain() { references_++; }
  void release() {
    if (--references_ == 0)
      delete this;
    else if (references_ == 1 && idle_)
      idle_->push_back(this);
  }
  // Made and held by a recording in progress: once nothing else holds it, it is listed there for reuse. Null
  // ends that.
  void listWhenIdle(std::vector<Storage*>* idle) { idle_ = idle; }
  void* data() const { return data_; }
  size_t blockBytes() const { return blockBytes_; }

 private:
  ~Storage() { allocator_.release(data_, blockBytes_); }
  CachingAllocator& allocator_;
  void* data_;
  size_t blockBytes_;
  int64_t references_ = 1;
  std::vector<Storage*>* idle_ = nullptr;
};

struct Tensor {
  Storage* storage = nullptr;
  int64_t byteOffset = 0;
  DType dtype = DType::float32;
  Device device = Device::cpu;
  Shape shape;

  void* data() const { return static_cast<char*>(storage->data()) + byteOffset; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data());
  }
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return size_t(elements()) * bytesOf(dtype); }
  bool overlaps(const Tensor& other) const {
    return as<char>() < other.as<char>() + other.bytes() && other.as<char>() < as<char>() + bytes();
  }
  std::string text() const { return std::string(nameOf(dtype)) + " " + shape.text(); }
};

// Handles are slot + generation, so that the handle of a disposed tensor is never taken for a new one.
class TensorTable {
 public:
  double add(const Tensor& tensor) {
    uint32_t slot;
    if (free_.empty()) {
      slot = uint32_t(slots_.size());
      slots_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    slots_[slot].tensor = tensor;
    slots_[slot].live = true;
    live_[size_t(tensor.device)]++;
    return double(slots_[slot].generation) * kSlots + slot;
  }
  // Null when the handle was disposed of or never existed.
  const Tensor* find(double handle) const {
    const Slot* slot = slotOf(handle);
    return slot ? &slot->tensor : nullptr;
  }
  bool remove(double handle) {
    Slot* slot = const_cast<Slot*>(slotOf(handle));
    if (slot == nullptr) return false;
    slot->tensor.storage->release();
    slot->live = false;
    slot->generation++;
    live_[size_t(slot->tensor.device)]--;
    // A slot whose generations are used up is left empty: its next handle would not be exact in a double.
    if (slot->generation < kGenerations) free_.push_back(uint32_t(slot - slots_.data()));
    return true;
  }
  void clear() {
    for (auto& slot : slots_)
      if (slot.live) slot.tensor.storage->release();
    slots_.clear();
    free_.clear();
    live_ = {};
  }
  int64_t live(Device device) const { return live_[size_t(device)]; }

 private:
  static constexpr double kSlots = 16777216.0;  // 2^24 slots, 2^29 generations within a double
  static constexpr uint32_t kGenerations = 1u << 29;
  struct Slot {
    Tensor tensor;
    uint32_t generation = 1;
    bool live = false;
  };
  const Slot* slotOf(double handle) const {
    if (!(handle >= kSlots) || handle > 9007199254740991.0) return nullptr;
    const uint64_t h = uint64_t(handle);
    const uint64_t index = h & 0xffffffu;
    if (index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    return slot.live && slot.generation == (h >> 24) ? &slot : nullptr;
  }
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::array<int64_t, kDevices> live_ = {};
};

}  // namespace isopolicy
